# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The chain of decoding steps."""
from typing import List, Optional, Sequence, Tuple

from mmengine.model import BaseModule, ModuleList
from torch import Tensor

from pvd_mm.ops import upsampling_kernel
from pvd_mm.ops.checks import sizes_of

from .step import DecodingStep


class PixelVotingDecoder(BaseModule):
    """The chain of decoding steps (eqs. 2-4).

    Data walks one way: maps z_0 … z_L, finest first, make the votes of the L
    steps; y_L is decoded by them step by step to y_0, of the size of z_0.
    For a pyramid any strides do. They are given, or read off the shapes.

    Args:
        in_channels (Sequence[int]): Channels of z_0 … z_L, finest first.
        channels (int): C_obj, the channels of y_l.
        strides (Sequence[int], optional): Stride of each step from z_l to
            z_{l+1}. Defaults to None: read off the shapes.
        kernel_size (int): Side k of the votes' window, odd, at least the
            largest stride. Defaults to 3.
        init_cfg (dict, optional): Defaults to None.
        **step: Arguments of :class:`DecodingStep` and
            :class:`PixelAssociation`: ``groups``, ``vote_channels``,
            ``vote_norm``, ``vote_start``, ``formulation``, ``backend``,
            ``norm_cfg``, ``act_cfg``.

    Raises:
        ValueError: If there are fewer than two maps, if the number of strides
            does not fit, or an argument is out of range.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 channels: int,
                 strides: Optional[Sequence[int]] = None,
                 kernel_size: int = 3,
                 init_cfg: Optional[dict] = None,
                 **step) -> None:
        super().__init__(init_cfg)
        if len(in_channels) < 2:
            raise ValueError('in_channels must name at least two maps, the '
                             f'ends of one step, but got {in_channels}')
        if strides is not None:
            if len(strides) != len(in_channels) - 1:
                raise ValueError(
                    f'strides must have one entry for each of the '
                    f'{len(in_channels) - 1} steps between '
                    f'{len(in_channels)} maps, but got {list(strides)}')
            for stride in strides:
                upsampling_kernel(kernel_size, stride)  # refuses what is bad
        self.in_channels = tuple(in_channels)
        self.channels = channels
        self.strides = strides
        self.kernel_size = kernel_size
        self.steps = ModuleList(
            DecodingStep(
                fine,
                coarse,
                channels,
                kernel_size,
                depth=len(in_channels) - 1,
                **step)
            for fine, coarse in zip(in_channels, in_channels[1:]))

    def _stride(self, level: int, fine: Sequence[int],
                coarse: Sequence[int]) -> int:
        """The stride of step ``level`` between maps of these sizes: the given
        one, or the smallest that fits."""

        def fits(stride: int) -> bool:
            return all(-(-a // stride) == b for a, b in zip(fine, coarse))

        given = self.strides is not None
        choices = [self.strides[level]] if given else range(
            1, self.kernel_size + 1)
        for stride in choices:
            if fits(stride):
                return stride
        allowed = f'strides[{level}]={self.strides[level]}' if given else \
            f'any stride up to kernel_size={self.kernel_size}'
        raise ValueError(
            f'maps {level} and {level + 1} are {tuple(fine)} and '
            f'{tuple(coarse)}, which does not fit {allowed}: a step makes '
            'ceil(size / stride) of the size, finest map first')

    def votes(self, maps: Sequence[Tensor]) -> List[Tensor]:
        """The votes of all steps.

        Args:
            maps (Sequence[Tensor]): z_0 … z_L, (N, C_l, H_l, W_l).

        Returns:
            list[Tensor]: L maps of votes, (N, G·k², H_{l+1}, W_{l+1}).

        Raises:
            ValueError: If the maps don't fit ``in_channels`` or the strides.
        """
        found = tuple(z.size(1) for z in maps)
        if found != self.in_channels:
            raise ValueError(f'in_channels={list(self.in_channels)} do not '
                             f'fit maps of {list(found)} channels')
        return [
            step.votes(fine, coarse,
                       self._stride(level, sizes_of(fine)[2:], sizes_of(coarse)[2:]))
            for level, (step, fine, coarse) in enumerate(
                zip(self.steps, maps, maps[1:]))
        ]

    def decode(self, maps: Sequence[Tensor], votes: Sequence[Tensor],
               top: Tensor, size: Tuple[int, int]) -> List[Tensor]:
        """Decode y_L by votes that are there already.

        Args:
            maps (Sequence[Tensor]): z_1 … z_L, without the finest: the maps
                that are fused, whole or cropped.
            votes (Sequence[Tensor]): The votes of the L steps, of the sizes
                of z_1 … z_L.
            top (Tensor): y_L, (N, C_obj, H_L, W_L).
            size (tuple[int, int]): (H_0, W_0).

        Returns:
            list[Tensor]: y_0 … y_L, (N, C_obj, H_l, W_l), finest first.
        """
        sizes = [tuple(size), *(sizes_of(z)[2:] for z in maps)]
        decoded = [top]
        for level in reversed(range(len(self.steps))):
            stride = self._stride(level, sizes[level], sizes[level + 1])
            decoded.insert(
                0, self.steps[level].decode(maps[level], decoded[0],
                                            votes[level], sizes[level],
                                            stride))
        return decoded

    def forward(self, maps: Sequence[Tensor], top: Tensor) -> List[Tensor]:
        """Decode y_L to the size of z_0.

        Args:
            maps (Sequence[Tensor]): z_0 … z_L, (N, C_l, H_l, W_l).
            top (Tensor): y_L, (N, C_obj, H_L, W_L).

        Returns:
            list[Tensor]: y_0 … y_L, (N, C_obj, H_l, W_l), finest first.
        """
        return self.decode(maps[1:], self.votes(maps), top,
                           sizes_of(maps[0])[2:])
