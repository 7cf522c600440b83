# Copyright (c) PVD-MM contributors. Apache-2.0.
"""``IntermediateMaps`` on the backbones of the other framework; mmseg's are in
tests/test_semantic."""

import pytest
import torch

from pvd_mm.decoder.intermediate_maps import IntermediateMaps


@pytest.mark.parametrize(
    'kind,depth', [('ResNet', 18), ('ResNet', 50), ('ResNetV1d', 18), ('ResNeXt', 50)]
)
@pytest.mark.parametrize('finest_stride', (4, 1))
def test_mmdet_s_resnets(kind, depth, finest_stride):
    backbones = pytest.importorskip('mmdet.models.backbones')
    original = getattr(backbones, kind)
    torch.manual_seed(0)
    encoder = type('WithMaps', (IntermediateMaps, original), {})(
        depth=depth, granularity='stage', finest_stride=finest_stride
    )
    plain = original(depth=depth)
    plain.load_state_dict(encoder.state_dict(), strict=True)
    plain.eval(), encoder.eval()
    x = torch.randn(1, 3, 65, 64)
    with torch.no_grad():
        maps, stages = encoder(x), plain(x)
    assert [z.size(1) for z in maps] == encoder.out_channels
    for found, expected in zip(maps[-4:], stages):
        assert torch.equal(found, expected)
    for fine, coarse in zip(maps, maps[1:]):
        assert coarse.size(2) in (fine.size(2), -(-fine.size(2) // 2))
