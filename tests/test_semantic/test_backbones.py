# Copyright (c) PVD-MM contributors. Apache-2.0.
import mmseg.models  # noqa: F401 - registers mmseg's models
import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from pvd_mm.semantic import PVDResNet

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}


@pytest.fixture(autouse=True)
def _scope():
    torch.manual_seed(0)
    init_default_scope('mmseg')


def build(**cfg):
    narrow = dict(type='PVDResNet', base_channels=8, stem_channels=8)
    return MODELS.build({**narrow, **cfg})


@pytest.mark.parametrize('depth', BLOCKS)
@pytest.mark.parametrize('granularity', ('stage', 'block'))
@pytest.mark.parametrize('finest_stride', (4, 2, 1))
def test_maps(depth, granularity, finest_stride):
    backbone = build(depth=depth, granularity=granularity, finest_stride=finest_stride)
    maps = backbone(torch.randn(1, 3, 63, 70))
    steps = sum(BLOCKS[depth]) if granularity == 'block' else 4
    assert len(maps) == 1 + steps + {4: 0, 2: 1, 1: 2}[finest_stride]
    assert [z.size(1) for z in maps] == backbone.out_channels
    assert maps[0].shape[2:] == (-(-63 // finest_stride), -(-70 // finest_stride))
    for fine, coarse in zip(maps, maps[1:]):
        ratio = 1 if fine.shape[2:] == coarse.shape[2:] else 2
        assert coarse.shape[2:] == tuple(-(-s // ratio) for s in fine.shape[2:])


@pytest.mark.parametrize(
    'kind,depth',
    [
        ('ResNet', 18),
        ('ResNet', 50),
        ('ResNetV1c', 50),
        ('ResNetV1d', 18),
        ('ResNeXt', 50),
    ],
)
def test_weights_are_the_originals(kind, depth):
    """Same names, same shapes, and the same stage outputs."""
    original = MODELS.build(dict(type=kind, depth=depth))
    original.eval()
    for granularity in ('stage', 'block'):
        encoder = MODELS.build(
            dict(type=f'PVD{kind}', depth=depth, granularity=granularity)
        )
        encoder.eval()
        encoder.load_state_dict(original.state_dict(), strict=True)
        x = torch.randn(1, 3, 64, 64)
        with torch.no_grad():
            expected, maps = original(x), encoder(x)
        ends = (
            torch.tensor(BLOCKS[depth]).cumsum(0)
            if granularity == 'block'
            else range(1, 5)
        )
        for stage, end in zip(expected, ends):
            assert torch.equal(stage, maps[end])


def test_pretrained_checkpoint_of_the_original(tmp_path):
    """As ``init_cfg`` and as the older ``pretrained``."""
    original = MODELS.build(dict(type='ResNet', depth=18))
    path = str(tmp_path / 'resnet18.pth')
    torch.save(original.state_dict(), path)
    for how in (
        dict(pretrained=path),
        dict(init_cfg=dict(type='Pretrained', checkpoint=path)),
    ):
        encoder = MODELS.build(dict(type='PVDResNet', depth=18, **how))
        encoder.init_weights()
        assert torch.equal(
            encoder.layer4[1].conv2.weight, original.layer4[1].conv2.weight
        )


def test_handed_out_maps_are_not_changed_later():
    """ReLUs of later blocks work in place; not on these maps."""
    backbone = build(depth=18, granularity='block', finest_stride=1)
    backbone.eval()
    x = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        maps = backbone(x)
        z = x
        assert torch.equal(maps[0], z)
        z = backbone.relu(backbone.norm1(backbone.conv1(z)))
        assert torch.equal(maps[1], z)
        z = backbone.maxpool(z)
        for found, block in zip(
            maps[2:],
            [torch.nn.Identity()]
            + [b for name in backbone.res_layers for b in getattr(backbone, name)],
        ):
            z = block(z)
            assert torch.equal(found, z)


@pytest.mark.parametrize('kind', ('PVDResNet', 'PVDResNetV1c'))
@pytest.mark.parametrize('number', (1, 2, 3))
def test_fewer_stages(kind, number):
    """All that has an entry for each stage follows; given or not."""
    maps = build(type=kind, depth=18, num_stages=number)(torch.randn(1, 3, 32, 32))
    assert [z.size(-1) for z in maps] == [8, 8, 4, 2][: number + 1]
    maps = build(
        type=kind,
        depth=18,
        num_stages=number,
        strides=(2, 1, 1)[:number],
        dilations=[1] * number,
    )(torch.randn(1, 3, 32, 32))
    assert [z.size(-1) for z in maps] == [8, 4, 4, 4][: number + 1]


@pytest.mark.parametrize('granularity', ('block', 'stage'))
def test_which_maps_are_those_of_the_original(granularity):
    ours = build(depth=50, granularity=granularity)
    original = build(type='ResNet', depth=50)
    original.load_state_dict(ours.state_dict())
    ours.eval()
    original.eval()
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        maps, expected = ours(image), original(image)
    assert len(ours.stage_indices) == len(expected)
    for index, stage in zip(ours.stage_indices, expected):
        assert torch.equal(maps[index], stage)


def test_checkpointed_blocks_are_trained():
    gradients = []
    for with_cp in (False, True):
        torch.manual_seed(0)
        model = build(depth=18, granularity='block', with_cp=with_cp).double()
        image = torch.randn(2, 3, 32, 32, dtype=torch.double)
        sum(z.square().mean() for z in model(image)).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)


def test_bad_arguments():
    for arguments, message in (
        (dict(granularity='layer'), "granularity must be one of.*'layer'"),
        (dict(finest_stride=8), 'finest_stride must be one of.*8'),
        (dict(out_indices=(0, 2)), r'out_indices must have .*=4 .* \(0, 2\)'),
        (dict(out_indices=(0, 1, 3, 2)), r'out_indices must be \(0, 1, 2, 3\)'),
        (dict(num_stages=5), 'num_stages must be one of.*5'),
        (
            dict(num_stages=3, strides=(1, 2, 2, 2)),
            r'strides must have .* num_stages=3 .* got \(1, 2, 2, 2\)',
        ),
    ):
        with pytest.raises(ValueError, match=message):
            build(depth=18, **arguments)
    # by position as by keyword
    with pytest.raises(ValueError, match=r'out_indices must have .* but got \(0, 1\)'):
        PVDResNet(18, 3, 64, 64, 4, (1, 2, 2, 2), (1, 1, 1, 1), (0, 1))
    assert PVDResNet(18, 3, 8, 8, 2).out_channels == [8, 8, 16]
