# Copyright (c) PVD-MM contributors. Apache-2.0.
"""From the maps A and B of an encoder step to its votes."""

from collections.abc import Sequence

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from pvd_mm.ops import upsampling_kernel
from pvd_mm.ops.checks import check_choice, check_kernel, check_odd
from pvd_mm.ops.tracing import sizes_of

from .layers import CONV_1X1, ConcatConv, conv2d
from .sizes import match_size

VOTE_NORMS = ('none', 'softmax', 'sigmoid', 'tanh')
VOTE_STARTS = ('identity', 'zero', 'random')

RELU = dict(type='ReLU')

# The smallest vote that a bounded vote can start with
_LEAST_VOTE = 1e-3


class _ConvOfFine(ConvModule):
    """A ``ConvModule`` that learns its stride and the size of its result from
    the maps, call by call."""

    def forward(self, x: Tensor, stride: int, size: Sequence[int]) -> Tensor:
        # A 1×1 convolution with a stride reads only these pixels. Picking
        # them first is the same; besides, the backward pass of the strided
        # one crashes on a CPU with torch 2.13, few channels, channels_last.
        if self.conv.kernel_size == (1, 1):
            x, stride = x[..., ::stride, ::stride], 1
        x = conv2d(x, self.conv.weight, self.conv.bias, stride, self.conv.padding)
        x = match_size(x, size)
        if self.with_norm:
            x = self.norm(x)
        return self.activate(x) if self.with_activation else x


class PixelAssociation(BaseModule):
    """The pixel association module (section 3.2, Fig. 3b).

    A 1×1 convolution of A with the stride of the encoder step, a 1×1
    convolution of B, and a 1×1 convolution of their concatenation to the
    votes V, the pixel association degrees: per pixel of B, how strongly each
    of the k² pixels of A in its window belongs to it.

    Shape shorthand: A = z_l is (N, C_A, H_A, W_A), B = z_{l+1} is
    (N, C_B, H_B, W_B), H_B is H_A / s rounded up or down, V is
    (N, G·k², H_B, W_B).

    Args:
        in_channels (int): C_A.
        out_channels (int): C_B.
        kernel_size (int): Side k of the window, odd. Defaults to 3.
        groups (int): Number G of groups of votes. Defaults to 1.
        vote_channels (int, optional): The width of the module: channels that
            A and B are each convolved to. Defaults to None, which is the
            paper's: C_A and C_B.
        vote_norm (str): How votes are bounded. 'none' leaves them as they
            are regressed; 'softmax' makes the k² votes of a pixel of B
            positive with the sum of an upsampling kernel (s²), 'sigmoid'
            keeps each in (0, 2), 'tanh' in (-2, 2). Defaults to 'none'.
        vote_start (str): What the votes are before training. 'identity'
            starts as plain upsampling (the identity at stride 1, bilinear at
            stride 2), around which the votes are regressed; 'zero' regresses
            from zero; 'random' as 'zero' with random weights.
            Defaults to 'identity'.
        vote_conv_size (int): Side of the convolution of A, odd. 1 is the
            paper's; 3 lets a vote see the pixels of A between B's, where an
            edge may lie. Defaults to 1.
        gain (float): How fast the votes move from their start: what the last
            convolution gives is multiplied by it. Defaults to 1.
        norm_cfg (dict, optional): Normalisation after the first
            convolutions. Defaults to None.
        act_cfg (dict, optional): Activation after them; the paper shows
            none, but without one the two layers would be a single linear one
            and their width would mean nothing. Defaults to ReLU.
        init_cfg (dict, optional): Defaults to None.

    Raises:
        ValueError: If ``vote_norm`` or ``vote_start`` is unknown, or a number
            is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 3,
        groups: int = 1,
        vote_channels: int | None = None,
        vote_norm: str = 'none',
        vote_start: str = 'identity',
        vote_conv_size: int = 1,
        gain: float = 1.0,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = RELU,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_kernel(kernel_size, 1, None, groups)
        check_choice('vote_norm', vote_norm, VOTE_NORMS)
        check_choice('vote_start', vote_start, VOTE_STARTS)
        check_odd('vote_conv_size', vote_conv_size)
        self.kernel_size = kernel_size
        self.groups = groups
        self.vote_norm = vote_norm
        self.vote_start = vote_start
        widths = [vote_channels or in_channels, vote_channels or out_channels]
        norm_and_act = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.conv_in = _ConvOfFine(
            in_channels,
            widths[0],
            vote_conv_size,
            padding=vote_conv_size // 2,
            **norm_and_act,
        )
        self.conv_out = ConvModule(
            out_channels, widths[1], 1, conv_cfg=CONV_1X1, **norm_and_act
        )
        self.conv_votes = ConcatConv(
            widths,
            groups * kernel_size**2,
            gains=[gain * width**-0.5 for width in widths],
            bias_gain=gain,
        )
        # What is added to the regressed votes, a row for each stride from 1
        # to k; not saved, for it follows from k
        starts = torch.stack(
            [
                self._start(upsampling_kernel(kernel_size, stride).flatten()).repeat(
                    groups
                )
                for stride in range(1, kernel_size + 1)
            ]
        )
        self.register_buffer('starts', starts, persistent=False)
        self._init_votes()

    def init_weights(self) -> None:
        """Initialise as mmengine does, but the votes as ``vote_start``."""
        first = not self.is_init
        super().init_weights()
        if first:
            self._init_votes()

    def _init_votes(self) -> None:
        if self.vote_start == 'random':
            # Kaiming's, but for the gain
            nn.init.normal_(self.conv_votes.weight)
        else:
            nn.init.zeros_(self.conv_votes.weight)
        nn.init.zeros_(self.conv_votes.bias)

    def _start(self, kernel: Tensor) -> Tensor:
        """The inverse of :meth:`_normalise` at ``kernel``, (k²,)."""
        if self.vote_start != 'identity':
            return torch.zeros_like(kernel)
        if self.vote_norm == 'softmax':
            return kernel.clamp(min=_LEAST_VOTE).log()
        if self.vote_norm == 'sigmoid':
            return torch.logit(kernel / 2, eps=_LEAST_VOTE)
        if self.vote_norm == 'tanh':
            return torch.atanh(kernel / 2)
        return kernel

    def _normalise(self, votes: Tensor, stride: int) -> Tensor:
        """Bound votes of shape (N, G·k², H_B, W_B)."""
        if self.vote_norm == 'softmax':
            windows = votes.unflatten(1, (self.groups, self.kernel_size**2))
            return stride**2 * windows.softmax(dim=2).flatten(1, 2)
        if self.vote_norm == 'sigmoid':
            return 2 * votes.sigmoid()
        if self.vote_norm == 'tanh':
            return 2 * votes.tanh()
        return votes

    def forward(self, fine: Tensor, coarse: Tensor, stride: int) -> Tensor:
        """Regress the votes of one encoder step.

        Args:
            fine (Tensor): A, (N, C_A, H_A, W_A).
            coarse (Tensor): B, (N, C_B, H_B, W_B).
            stride (int): The step's stride s, at most k.

        Returns:
            Tensor: The votes V, (N, G·k², H_B, W_B).
        """
        votes = self.conv_votes(
            self.conv_in(fine, stride, sizes_of(coarse)[2:]), self.conv_out(coarse)
        )
        start = self.starts[stride - 1].to(votes.dtype)
        return self._normalise(votes + start[:, None, None], stride)
