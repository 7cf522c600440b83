# Copyright (c) PVD-MM contributors. Apache-2.0.
import pytest
import torch
from mmseg.registry import MODELS

from pvd_mm.semantic import EfficientNetLite

CHANNELS = [32, 16, 24, 40, 80, 112, 192, 320]  # of lite0: the stem and the stages
STRIDES = [2, 2, 4, 8, 16, 16, 32, 32]
BLOCKS = [1, 2, 2, 3, 3, 4, 1]


def build(**cfg):
    """With statistics as if it were trained, so that no channel is cut off."""
    torch.manual_seed(0)
    model = MODELS.build(dict(type='EfficientNetLite', **cfg))
    model.init_weights()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize('padding', ('same', 'symmetric'))
@pytest.mark.parametrize('granularity', ('stage', 'block'))
@pytest.mark.parametrize('finest_stride', (4, 2, 1))
def test_maps(granularity, finest_stride, padding):
    model = build(granularity=granularity, finest_stride=finest_stride, padding=padding)
    image = torch.randn(1, 3, 61, 90)
    maps = model(image)
    times = [1, *(BLOCKS if granularity == 'block' else [1] * 7)]
    expected = [
        (channels, -(-61 // stride), -(-90 // stride))
        for channels, stride, number in zip(CHANNELS, STRIDES, times)
        if stride >= finest_stride
        for _ in range(number)
    ]
    if finest_stride == 1:
        expected.insert(0, (3, 61, 90))
        assert torch.equal(maps[0], image)
    assert [tuple(z.shape[1:]) for z in maps] == expected
    assert model.out_channels == [channels for channels, *_ in expected]


def test_handed_out_maps_are_not_changed_later():
    model, image = (
        build(granularity='block', finest_stride=2),
        torch.randn(1, 3, 32, 32),
    )
    maps = model(image)
    z = model.stem(image)
    assert torch.equal(maps[0], z)
    blocks = [block for name in model.stages for block in getattr(model, name)]
    for found, block in zip(maps[1:], blocks):
        z = block(z)
        assert torch.equal(found, z)


@pytest.mark.parametrize('arch, millions', enumerate((4.7, 5.4, 6.1, 8.2, 13.0)))
def test_parameters(arch, millions):
    """With a classifier of 1000 classes, as the authors' README counts them."""
    model = EfficientNetLite(f'lite{arch}')
    number = sum(p.numel() for p in model.parameters())
    number += model.out_channels[-1] * 1280 + 2 * 1280 + 1281 * 1000
    assert number / 1e6 == pytest.approx(millions, abs=0.05)


@pytest.mark.parametrize('output_stride', (16, 8))
def test_dilated_maps_hold_what_they_held(output_stride):
    """Every second pixel of a map that has kept its size, and so on, is the pixel of
    the strided network: of odd sides, and at the border."""
    image = torch.randn(1, 3, 75, 110)
    dilated = build(padding='symmetric', output_stride=output_stride)
    strided = build(padding='symmetric')
    strided.load_state_dict(dilated.state_dict())
    with torch.no_grad():
        pairs = list(zip(dilated(image), strided(image)))
    assert pairs[-1][0].shape[2:] == (-(-75 // output_stride), -(-110 // output_stride))
    for (fine, coarse), stride in zip(pairs, STRIDES[2:]):
        every = max(1, stride // output_stride)
        torch.testing.assert_close(
            fine[..., ::every, ::every], coarse, rtol=1e-4, atol=1e-5
        )


def test_where_a_pixel_lies():
    """With which pixel of the image a pixel of the stem's map moves most: 2i of
    symmetric padding, 2i + 1 of TensorFlow's."""
    for padding, offset in (('symmetric', 0), ('same', 1)):
        model = build(finest_stride=2, padding=padding)
        torch.nn.init.zeros_(model.stem.conv.weight)
        model.stem.conv.weight.data[:, :, 1, 1] = 1
        torch.nn.init.zeros_(model.stem.bn.running_mean)
        image = torch.zeros(1, 3, 16, 16)
        image[..., 6 + offset, 8 + offset] = 1
        where = model(image)[0][0, 0].nonzero().tolist()
        assert where == [[3, 4]]


def test_out_indices_and_norm_eval():
    model = build(finest_stride=2, out_indices=(2, 3, 5, 7), norm_eval=True)
    every = build(finest_stride=2)
    image = torch.randn(1, 3, 32, 32)
    assert model.out_channels == [24, 40, 112, 320]
    for found, index in zip(model(image), (2, 3, 5, 7)):
        assert torch.equal(found, every(image)[index])
    model.train()
    assert model.training and model.stem.training and not model.stem.bn.training
    before = model.stem.bn.running_mean.clone()
    model(image)
    assert torch.equal(model.stem.bn.running_mean, before)


@pytest.mark.parametrize(
    'arguments, message',
    [
        (dict(arch='b0'), "arch must be one of .* got 'b0'"),
        (dict(granularity='layer'), "granularity must be one of .* got 'layer'"),
        (dict(finest_stride=8), 'finest_stride must be one of .* got 8'),
        (dict(output_stride=4), 'output_stride must be one of .* got 4'),
        (dict(padding='valid'), "padding must be one of .* got 'valid'"),
        (dict(out_indices=(0, 6)), r'out_indices must .* 0 to 5 .* got \(0, 6\)'),
        (dict(out_indices=(1, 0)), r'out_indices must be ascending .* got \(1, 0\)'),
        (dict(out_indices=()), r'out_indices must be ascending .* got \(\)'),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        EfficientNetLite(**arguments)


@pytest.mark.parametrize('granularity', ('stage', 'block'))
def test_it_is_an_encoder_of_pvd(granularity):
    """Decoded to the image's own size, and trained: of odd sides."""
    model = MODELS.build(
        dict(
            type='EncoderDecoder',
            backbone=dict(
                type='EfficientNetLite',
                granularity=granularity,
                finest_stride=1,
                padding='symmetric',
            ),
            decode_head=dict(
                type='PVDHead',
                in_channels=EfficientNetLite(
                    granularity=granularity, finest_stride=1
                ).out_channels,
                num_classes=5,
                decoder=dict(vote_channels=8),
            ),
        )
    )
    logits = model(torch.randn(2, 3, 45, 64))
    assert logits.shape == (2, 5, 45, 64)
    logits.square().mean().backward()
    for parameter in model.backbone.parameters():
        assert parameter.grad.isfinite().all()
