# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The chain of decoding steps."""

from collections.abc import Sequence

import torch.nn.functional as F
from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from pvd_mm.ops import upsampling_kernel
from pvd_mm.ops.tracing import sizes_of

from .sizes import fits_stride, match_size
from .step import DecodingStep


def _per_step(number: int, arguments: dict) -> list[dict]:
    """The arguments of each step; a list has one for each.

    Raises:
        ValueError: If a list is of another length.
    """
    for name, value in arguments.items():
        if isinstance(value, (list, tuple)) and len(value) != number:
            raise ValueError(
                f'{name} must have one entry for each of the {number} steps '
                f'between {number + 1} maps, but got {list(value)}'
            )
    return [
        {
            name: value[level] if isinstance(value, (list, tuple)) else value
            for name, value in arguments.items()
        }
        for level in range(number)
    ]


class PixelVotingDecoder(BaseModule):
    """The chain of decoding steps (eqs. 2-4).

    Data walks one way: maps z_0 … z_L, finest first, make the votes of the L
    steps; y_L is decoded by them step by step to y_0, of the size of z_0.
    For a pyramid any strides do. They are given, or read off the shapes: the
    smallest stride that rounds the finer size up or down to the coarser one.
    Strides 1 and 2 are read right at every size but one: 1×1 above 1×1 may be
    either. Strides from 3 on share sizes of a few pixels with smaller ones
    (5 and 2 are taken for stride 2). Give them where maps get that small.

    Args:
        in_channels (Sequence[int]): Channels of z_0 … z_L, finest first.
        channels (int): C_obj, the channels of y_l.
        strides (Sequence[int], optional): Stride of each step from z_l to
            z_{l+1}. An encoder with convolutions that are not padded, or
            padded more than by half, needs them. Defaults to None: read off
            the shapes.
        kernel_size (int or Sequence[int]): Side k of the votes' window, odd,
            at least the step's stride. Defaults to 3.
        init_cfg (dict, optional): Defaults to None.
        **step: Arguments of :class:`DecodingStep` and
            :class:`PixelAssociation`: ``groups``, ``vote_channels``,
            ``vote_norm``, ``vote_start``, ``vote_conv_size``, ``vote_gain``,
            ``fuse_conv_size``, ``fuse_channels``, ``upsampling``,
            ``formulation``, ``backend``, ``norm_cfg``, ``act_cfg``.

    ``kernel_size`` and each of ``**step`` may be a list with a value for each
    step, finest first.

    Raises:
        ValueError: If there are fewer than two maps, if the number of strides
            or of another list does not fit, or an argument is out of range.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        strides: Sequence[int] | None = None,
        kernel_size: int | Sequence[int] = 3,
        init_cfg: dict | None = None,
        **step,
    ) -> None:
        super().__init__(init_cfg)
        if len(in_channels) < 2:
            raise ValueError(
                'in_channels must name at least two maps, the '
                f'ends of one step, but got {in_channels}'
            )
        steps = _per_step(
            len(in_channels) - 1, dict(step, strides=strides, kernel_size=kernel_size)
        )
        for arguments in steps:
            stride = arguments.pop('strides')
            if stride is not None:
                # raises if no window of this size has votes for it
                upsampling_kernel(arguments['kernel_size'], stride)
        self.in_channels = tuple(in_channels)
        self.channels = channels
        self.strides = strides
        self.regresses_votes = True
        self.steps = ModuleList(
            DecodingStep(fine, coarse, channels, depth=len(steps), **arguments)
            for fine, coarse, arguments in zip(in_channels, in_channels[1:], steps)
        )

    def use_votes_of(self, other: 'PixelVotingDecoder') -> None:
        """Let go of the modules that regress votes: from now on those of another
        decoder are given to :meth:`decode`, the last ones if it has more maps.

        So several decoders of one image share its votes, and each parameter is
        in one of them. C_obj, and with it the fusion, may differ.

        Args:
            other (PixelVotingDecoder): On the same maps, or more finer ones.

        Raises:
            ValueError: If its votes are others than this decoder regresses.
        """
        number = len(self.steps)
        own, others = (
            dict(
                in_channels=list(decoder.in_channels[-number - 1 :]),
                strides=decoder.strides and list(decoder.strides)[-number:],
                votes=[step.describe_votes() for step in list(decoder.steps)[-number:]],
            )
            for decoder in (self, other)
        )
        for name, value in own.items():
            if value != others[name] or value == [None] * number:
                raise ValueError(
                    f'votes are shared by decoders that regress the same, but {name} '
                    f'of one is {value} and of the other {others[name]}'
                )
        for step in self.steps:
            step.association = None
        self.regresses_votes = False

    def _stride(self, level: int, fine: Sequence[int], coarse: Sequence[int]) -> int:
        """The stride of step ``level`` between maps of these sizes: the given
        one, or the smallest that fits."""
        given = self.strides is not None
        most = self.steps[level].kernel_size
        for stride in [self.strides[level]] if given else range(1, most + 1):
            if fits_stride(stride, fine, coarse, given):
                return stride
        sizes = f'maps {level} and {level + 1} are {tuple(fine)} and {tuple(coarse)}'
        if given:
            raise ValueError(
                f'{sizes}, which does not fit strides[{level}]={self.strides[level]}: '
                'a step makes size / stride of the size, rounded up or down, finest '
                'map first'
            )
        raise ValueError(
            f'{sizes}, which does not fit any stride up to kernel_size={most}: a step '
            'makes size / stride of the size, rounded up or down, finest map first. '
            'Of an encoder that rounds otherwise, give the strides; a larger stride '
            'needs a larger kernel_size'
        )

    def strides_of(self, maps: Sequence[Tensor], first: int = 0) -> list[int]:
        """The strides of the steps between some maps.

        Args:
            maps (Sequence[Tensor]): (N, C_l, H_l, W_l), finest first.
            first (int): The level of the first map. Defaults to 0.

        Returns:
            list[int]: Those given, or read off the shapes.

        Raises:
            ValueError: If the shapes fit no stride, or not the given one.
        """
        sizes = [sizes_of(z)[2:] for z in maps]
        return [
            self._stride(level, fine, coarse)
            for level, (fine, coarse) in enumerate(zip(sizes, sizes[1:]), first)
        ]

    def votes(self, maps: Sequence[Tensor], first: int = 0) -> list[Tensor]:
        """The votes of all steps, or of some that follow each other.

        Args:
            maps (Sequence[Tensor]): z_0 … z_L, (N, C_l, H_l, W_l), or from
                z_first on as many as there are.
            first (int): The level of the first map. Defaults to 0.

        Returns:
            list[Tensor]: For each pair of maps the votes,
            (N, G·k², H_{l+1}, W_{l+1}).

        Raises:
            TypeError: After :meth:`use_votes_of`.
            ValueError: If the maps don't fit ``in_channels`` or the strides.
        """
        if not self.regresses_votes:
            raise TypeError('this decoder uses the votes of another one')
        channels = tuple(sizes_of(z)[1] for z in maps)
        if channels != self.in_channels[first : first + len(maps)]:
            raise ValueError(
                f'in_channels={list(self.in_channels)} do not fit maps of '
                f'{list(channels)} channels, the first of level {first}'
            )
        return [
            step.votes(fine, coarse, stride)
            for step, fine, coarse, stride in zip(
                list(self.steps)[first:], maps, maps[1:], self.strides_of(maps, first)
            )
        ]

    def contexts(self, maps: Sequence[Tensor], first: int = 0) -> list[Tensor]:
        """What the maps add when they are fused.

        Args:
            maps (Sequence[Tensor]): z_{first+1} …, the coarse ends of steps.
            first (int): The level of the first step. Defaults to 0.

        Returns:
            list[Tensor]: See :meth:`DecodingStep.context`.
        """
        return [step.context(z) for step, z in zip(list(self.steps)[first:], maps)]

    def decode(
        self,
        contexts: Sequence[Tensor],
        votes: Sequence[Tensor],
        top: Tensor,
        size: tuple[int, int],
        first: int = 0,
    ) -> list[Tensor]:
        """Decode by votes and contexts that are there already, whole or
        cropped, from the coarse end of the last of these steps to the fine
        end of the first.

        Args:
            contexts (Sequence[Tensor]): From :meth:`contexts`.
            votes (Sequence[Tensor]): From :meth:`votes`, as many, of the same
                sizes.
            top (Tensor): What is decoded, (N, C_obj, H, W), of the size of
                the last.
            size (tuple[int, int]): Size of the result.
            first (int): The level of the first step. Defaults to 0.

        Returns:
            list[Tensor]: y_first … top, (N, C_obj, H_l, W_l), finest first.
        """
        sizes = [tuple(size), *(sizes_of(c)[2:] for c in contexts)]
        decoded = [top]
        for i in reversed(range(len(votes))):
            step = self.steps[first + i]
            stride = self._stride(first + i, sizes[i], sizes[i + 1])
            finer = step.decode(contexts[i], decoded[0], votes[i], sizes[i], stride)
            decoded.insert(0, finer)
        return decoded

    def labels_of(self, labels: Tensor, decoded: Sequence[Tensor]) -> list[Tensor]:
        """Labels for the losses of all decoded maps.

        They are those of single pixels: over the random crops of training that
        is each class as often as it has pixels, and none is outvoted.

        Args:
            labels (Tensor): Of the image, (N, 1, H, W), integers.
            decoded (Sequence[Tensor]): y_0 … y_L.

        Returns:
            list[Tensor]: (N, 1, H_l, W_l), finest first.
        """
        own = F.interpolate(labels.float(), decoded[0].shape[2:], mode='nearest')
        results = [own]
        for y, stride in zip(decoded[1:], self.strides_of(decoded)):
            # those that votes are laid around
            own = match_size(own[..., ::stride, ::stride], y.shape[2:])
            results.append(own)
        return [own.to(labels.dtype) for own in results]

    def forward(self, maps: Sequence[Tensor], top: Tensor) -> list[Tensor]:
        """Decode y_L to the size of z_0.

        Args:
            maps (Sequence[Tensor]): z_0 … z_L, (N, C_l, H_l, W_l).
            top (Tensor): y_L, (N, C_obj, H_L, W_L).

        Returns:
            list[Tensor]: y_0 … y_L, (N, C_obj, H_l, W_l), finest first.

        Raises:
            ValueError: If the maps don't fit ``in_channels`` or the strides.
        """
        if len(maps) != len(self.in_channels):
            raise ValueError(
                f'in_channels={list(self.in_channels)} do not fit {len(maps)} maps'
            )
        votes = self.votes(maps)
        return self.decode(self.contexts(maps[1:]), votes, top, sizes_of(maps[0])[2:])
