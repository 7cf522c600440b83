# Copyright (c) PVD-MM contributors. Apache-2.0.
"""One decoding step."""

import torch
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from pvd_mm.ops import dynamic_deconv2d
from pvd_mm.ops.backends import check_backend
from pvd_mm.ops.checks import (
    FORMULATIONS,
    check_choice,
    check_integer,
    check_odd,
    check_positive,
)
from pvd_mm.ops.tracing import sizes_of

from .association import RELU, PixelAssociation
from .layers import CONV_1X1, ConcatConv
from .sizes import match_size
from .upsamplers import UPSAMPLERS


class DecodingStep(BaseModule):
    """One repeated block of the decoder (eq. 4, Fig. 3b and 3d).

    ====== ================================== =====================
    symbol meaning                            shape
    ====== ================================== =====================
    A      ``fine``, input of an encoder step (N, C_A, H_A, W_A)
    B      ``coarse``, its output             (N, C_B, H_B, W_B)
    V      votes, from A and B                (N, G·k², H_B, W_B)
    C      ``decoded``, from the step above   (N, C_obj, H_B, W_B)
    M      ``fused``, conv of concat B, C     (N, C_obj, H_B, W_B)
    D      the result                         (N, C_obj, H_A, W_A)
    ====== ================================== =====================

    The fusion starts as M = C plus little of B: together with
    votes that start as upsampling, a chain of steps starts as upsampling. It
    is written as M = C + conv(B, C), so that weight decay pulls towards that
    start and not towards zero.

    In a chain of L steps everything that multiplies, the votes and C's
    weights, is the L-th power of itself when it moves the same way in every
    step, as it does early in training. Both are therefore damped by
    1 / sqrt(L); without that SGD at the paper's rate blows up a chain of 16
    steps within ten iterations.

    Args:
        in_channels (int): C_A.
        out_channels (int): C_B.
        channels (int): C_obj, the channels that are decoded.
        kernel_size (int): Side k of the window, odd. Defaults to 3.
        groups (int): Number G of groups of votes. Defaults to 1.
        depth (int): Number L of steps in the chain. Defaults to 1.
        vote_gain (float): Multiplies the gain of the votes: with 8 they move
            eight times as fast from their start. A short chain can bear it.
            Defaults to 1.
        fuse_conv_size (int): Side of the fusing convolution, odd. 1 is the
            paper's; 3 lets C be corrected by its surroundings.
            Defaults to 1.
        fuse_channels (int, optional): Channels of a hidden layer in the
            fusion: M = C + conv(act(norm(conv(B, C)))), so that what B says
            may depend on what C holds. Defaults to None, the paper's linear
            one.
        upsampling (str): 'votes', or what stands in their place: 'bilinear',
            'carafe' or 'dysample', see :mod:`pvd_mm.decoder.upsamplers`.
            Defaults to 'votes'.
        formulation (str): 'exact' or 'factored', see
            :func:`pvd_mm.ops.dynamic_deconv2d`. Defaults to 'exact'.
        backend (str): Backend of the op. Defaults to 'auto'.
        norm_cfg (dict, optional): Normalisation of the pixel association
            module and of the hidden layer. Defaults to None.
        act_cfg (dict, optional): Activation in both. Defaults to ReLU.
        init_cfg (dict, optional): Defaults to None.
        **votes: Arguments of :class:`PixelAssociation`.

    Raises:
        ValueError: If ``groups`` does not divide ``channels``, or an argument
            is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        channels: int,
        kernel_size: int = 3,
        groups: int = 1,
        depth: int = 1,
        vote_gain: float = 1.0,
        fuse_conv_size: int = 1,
        fuse_channels: int | None = None,
        upsampling: str = 'votes',
        formulation: str = 'exact',
        backend: str = 'auto',
        norm_cfg: dict | None = None,
        act_cfg: dict | None = RELU,
        init_cfg: dict | None = None,
        **votes,
    ) -> None:
        super().__init__(init_cfg)
        check_choice('formulation', formulation, FORMULATIONS)
        check_choice('upsampling', upsampling, ('votes', *UPSAMPLERS))
        check_odd('fuse_conv_size', fuse_conv_size)
        check_positive('vote_gain', vote_gain)
        check_backend(backend)  # refuses an unknown one
        gain = depth**-0.5
        # Built whatever upsamples: it checks its arguments, and models that
        # differ in ``upsampling`` alone get the same random weights elsewhere.
        association = PixelAssociation(
            in_channels,
            out_channels,
            kernel_size,
            groups,
            gain=vote_gain * gain,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
            **votes,
        )
        if channels % groups:
            raise ValueError(
                f'groups must divide the {channels} decoded '
                f'channels, but got groups={groups}'
            )
        self.hidden = None
        if fuse_channels is not None:
            check_integer('fuse_channels', fuse_channels, 1)
            self.hidden = ConvModule(
                fuse_channels,
                channels,
                1,
                conv_cfg=CONV_1X1,
                norm_cfg=norm_cfg,
                act_cfg=act_cfg,
                order=('norm', 'act', 'conv'),
            )
        self.fuse = ConcatConv(
            [out_channels, channels],
            fuse_channels or channels,
            # the hidden layer's own convolution starts near zero instead
            gains=None if fuse_channels else [1.0, gain * channels**-0.5],
            kernel_size=fuse_conv_size,
        )
        if upsampling == 'votes':
            self.association = association
        else:
            # 'control' is its name in checkpoints
            self.control = UPSAMPLERS[upsampling](out_channels)
        self.upsampling = upsampling
        self.kernel_size = kernel_size
        self.groups = groups
        self.formulation = formulation
        self.backend = backend
        self._init_fuse()

    def init_weights(self) -> None:
        """Initialise as mmengine does, but the fusion as M = C + little B."""
        first = not self.is_init
        super().init_weights()
        if first:
            self._init_fuse()

    def _init_fuse(self) -> None:
        if self.hidden is not None:
            self.fuse.reset_parameters()
            nn.init.normal_(self.hidden.conv.weight, std=0.01)
            return
        from_coarse, from_decoded = torch.split(
            self.fuse.weight.data, self.fuse.parts, dim=1
        )
        nn.init.normal_(from_coarse, std=0.01)
        nn.init.zeros_(from_decoded)
        nn.init.zeros_(self.fuse.bias)

    def votes(self, fine: Tensor, coarse: Tensor, stride: int) -> Tensor:
        """V from A and B (Fig. 3b), see :class:`PixelAssociation`; else the
        kernels of what upsamples in their place."""
        if self.upsampling != 'votes':
            return self.control.kernels(coarse, stride)
        return self.association(fine, coarse, stride)

    def describe_votes(self) -> dict | None:
        """What decides what votes there are; None where something else upsamples,
        or the votes are those of another step."""
        if self.upsampling != 'votes' or self.association is None:
            return None
        return dict(
            kernel_size=self.kernel_size,
            groups=self.groups,
            vote_norm=self.association.vote_norm,
            vote_start=self.association.vote_start,
            shapes={
                name: tuple(parameter.shape)
                for name, parameter in self.association.named_parameters()
            },
        )

    def context(self, coarse: Tensor) -> Tensor:
        """What B adds to M, (N, C_obj, H_B, W_B), or with ``fuse_channels``
        to the hidden layer, (N, fuse_channels, H_B, W_B).

        It is linear in B: where B is cropped, this can be cropped instead,
        which has these channels and not C_B.
        """
        return self.fuse.part(0, coarse)

    def decode(
        self,
        context: Tensor,
        decoded: Tensor,
        votes: Tensor,
        size: tuple[int, int],
        stride: int,
    ) -> Tensor:
        """D, of ``size`` (H_A, W_A), from B's :meth:`context`, C and V
        (Fig. 3d): fuse B and C to M, then deconvolve M by V.

        Where the encoder has rounded down, there are rows and columns of A
        beyond those of B. M and V go on there with their last ones.
        """
        change = context + self.fuse.part(1, decoded)
        if self.hidden is not None:
            change = self.hidden(change)
        fused = decoded + change

        # under autocast M and V may have left their layers in two dtypes
        votes = votes.to(fused.dtype)
        # no max(): an exporter would write it into the graph
        sides = [
            coarse if coarse * stride >= fine else -(-fine // stride)
            for fine, coarse in zip(size, sizes_of(fused)[2:])
        ]
        fused, votes = match_size(fused, sides), match_size(votes, sides)
        # the least that these make, where B has more than A / s rounded up
        whole = [
            fine if (coarse - 1) * stride < fine else (coarse - 1) * stride + 1
            for fine, coarse in zip(size, sides)
        ]
        if self.upsampling != 'votes':
            result = self.control(fused, votes, whole, stride)
        else:
            result = dynamic_deconv2d(
                fused,
                votes,
                self.kernel_size,
                stride,
                output_size=whole,
                groups=self.groups,
                formulation=self.formulation,
                backend=self.backend,
            )
        return match_size(result, size)

    def forward(
        self, fine: Tensor, coarse: Tensor, decoded: Tensor, stride: int
    ) -> Tensor:
        """D from A, B and C: regress the votes, then decode by them."""
        votes = self.votes(fine, coarse, stride)
        return self.decode(self.context(coarse), decoded, votes, fine.shape[2:], stride)
