# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A mixin for the ResNet families of mmseg and mmdet."""

from torch import Tensor

from pvd_mm.ops.checks import check_choice

from .config import default_of, given_arguments


class IntermediateMaps:
    """Lets a ResNet of mmseg or mmdet hand out the maps z_0 … z_L (eq. 3).

    A mixin in front of the original class. It adds no parameter and renames
    none, so that checkpoints and ``init_cfg`` of the original fit.

    The maps come finest first: the stem's output at stride 4, then the output
    of every residual block or stage. With ``finest_stride`` 2 or 1 the stem's
    own steps are handed out as well: its convolution's output at stride 2
    and the image itself, which is eq. 3's z_0 = X. ``out_channels`` lists the
    channels of the maps.

    Args:
        granularity (str): 'block' for the map of every residual block, as
            the paper has it, or 'stage' for that of every stage.
            Defaults to 'stage'.
        finest_stride (int): 4, 2 or 1. Defaults to 4.
        **kwargs: Arguments of the original class. ``out_indices`` is all
            stages. With fewer ``num_stages``, ``strides``, ``dilations`` and
            ``out_indices`` are by default those of these stages.

    Raises:
        ValueError: If an argument is none of its choices, or there are not as
            many of them as stages.
    """

    def __init__(
        self, *args, granularity: str = 'stage', finest_stride: int = 4, **kwargs
    ) -> None:
        check_choice('granularity', granularity, ('block', 'stage'))
        check_choice('finest_stride', finest_stride, (4, 2, 1))
        given = given_arguments(super().__init__, args, kwargs)
        number = given.get('num_stages', 4)
        check_choice('num_stages', number, (1, 2, 3, 4))
        for name in ('strides', 'dilations', 'out_indices'):
            if name not in given and number < 4:
                kwargs[name] = default_of(type(self), name)[:number]
            elif len(given.get(name, range(number))) != number:
                raise ValueError(
                    f'{name} must have one entry for each of the num_stages={number} '
                    f'stages, but got {given[name]}'
                )
        super().__init__(*args, **kwargs)
        stages = tuple(range(self.num_stages))
        if tuple(self.out_indices) != stages:
            raise ValueError(
                f'out_indices must be {stages}, all stages, for a decoder '
                f'that follows every step; but got {tuple(self.out_indices)}. '
                'Use num_stages to leave out the last ones'
            )
        self.granularity = granularity
        self.finest_stride = finest_stride

    @property
    def stage_indices(self) -> list[int]:
        """Which of the maps, counted from the last, are those of whole stages
        that the original class hands out."""
        indices = [-1]
        for blocks in reversed(self.stage_blocks[1:]):
            steps = blocks if self.granularity == 'block' else 1
            indices.insert(0, indices[0] - steps)
        return indices

    @property
    def out_channels(self) -> list[int]:
        """Channels of the maps, finest first."""
        channels = [self.stem_channels]
        if self.finest_stride <= 2:
            channels.insert(0, self.stem_channels)
        if self.finest_stride == 1:
            stem = self.stem[0] if self.deep_stem else self.conv1
            channels.insert(0, stem.in_channels)
        for stage, blocks in enumerate(self.stage_blocks):
            width = self.base_channels * 2**stage * self.block.expansion
            channels += [width] * (blocks if self.granularity == 'block' else 1)
        return channels

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to maps z_0 … z_L, finest first."""
        maps = [x]
        if self.deep_stem:
            x = self.stem(x)
        else:
            x = self.relu(self.norm1(self.conv1(x)))
        maps.append(x)
        x = self.maxpool(x)
        maps.append(x)
        maps = maps[{1: 0, 2: 1, 4: 2}[self.finest_stride] :]
        for name in self.res_layers:
            stage = getattr(self, name)
            for block in stage:
                x = block(x)
                if self.granularity == 'block':
                    maps.append(x)
            if self.granularity == 'stage':
                maps.append(x)
        return tuple(maps)
