# Copyright (c) PVD-MM contributors. Apache-2.0.
"""mmdet's ResNets, which take other arguments than mmseg's."""

import pytest
import torch
from mmdet.models.backbones import ResNet
from mmdet.registry import MODELS

from pvd_mm.decoder import IntermediateMaps
from pvd_mm.instance import PVDResNet

NARROW = dict(depth=18, base_channels=8, stem_channels=8)


@pytest.mark.parametrize('kind', ('PVDResNet', 'PVDResNetV1d'))
@pytest.mark.parametrize('number', (1, 2, 3))
def test_fewer_stages(kind, number):
    model = MODELS.build(dict(NARROW, type=kind, num_stages=number))
    maps = model(torch.randn(1, 3, 32, 32))
    assert [z.size(-1) for z in maps] == [8, 8, 4, 2][: number + 1]


def test_arguments_by_position():
    assert PVDResNet(18, 3, 8, 8, 2).out_channels == [8, 8, 16]
    with pytest.raises(ValueError, match=r'out_indices must have .* got \(0, 1\)'):
        PVDResNet(18, 3, 64, 64, 4, (1, 2, 2, 2), (1, 1, 1, 1), (0, 1))


def test_a_resnet_of_one_s_own():
    """Its own defaults count, and only what it takes is given to it."""

    class Fixed(ResNet):
        def __init__(self):
            super().__init__(**NARROW)

    class Dilated(ResNet):
        def __init__(self, strides=(1, 2, 1, 1), dilations=(1, 1, 2, 4), **kwargs):
            super().__init__(strides=strides, dilations=dilations, **kwargs)

    class Mine(IntermediateMaps, Fixed):
        pass

    class MineDilated(IntermediateMaps, Dilated):
        pass

    image = torch.randn(2, 3, 32, 32)
    assert [z.size(-1) for z in Mine()(image)] == [8, 8, 4, 2, 1]
    maps = MineDilated(num_stages=3, **NARROW)(image)
    assert [z.size(-1) for z in maps] == [8, 8, 4, 4]
