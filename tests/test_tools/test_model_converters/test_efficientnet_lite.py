# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Converted weights do what they did, by a forward pass that knows nothing of ours:
torch's functions on the original names."""

import importlib.util
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from model_converters.efficientnet_lite import PACKAGE, convert, packaged

from pvd_mm.semantic import EfficientNetLite
from pvd_mm.utils.errors import UsageError

# of lite0's 16 blocks
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)
SIDES = (3, 3, 3, 5, 5, 3, 3, 3, 5, 5, 5, 5, 5, 5, 5, 3)
WIDTHS = (32, 16, 24, 24, 40, 40, 80, 80, 80, 112, 112, 112, 192, 192, 192, 192, 320)

needs_weights = pytest.mark.skipif(
    importlib.util.find_spec(PACKAGE) is None,
    reason=f'the package {PACKAGE.replace("_", "-")} is not installed',
)


def random_weights():
    """Of the original names and shapes."""
    torch.manual_seed(0)
    weights = {}

    def add(conv, bn, out, *shape):
        weights[f'{conv}.weight'] = torch.randn(out, *shape) / (shape[1] * shape[2])
        for name in ('weight', 'running_var'):
            weights[f'{bn}.{name}'] = torch.rand(out) + 0.5
        for name in ('bias', 'running_mean'):
            weights[f'{bn}.{name}'] = torch.randn(out) / 5
        weights[f'{bn}.num_batches_tracked'] = torch.tensor(7)

    add('_conv_stem', '_bn0', 32, 3, 3, 3)
    for i, (side, width, out) in enumerate(zip(SIDES, WIDTHS, WIDTHS[1:])):
        middle = width * (6 if i else 1)
        block = f'_blocks.{i}'
        if i:
            add(f'{block}._expand_conv', f'{block}._bn0', middle, width, 1, 1)
        add(f'{block}._depthwise_conv', f'{block}._bn1', middle, 1, side, side)
        add(f'{block}._project_conv', f'{block}._bn2', out, middle, 1, 1)
    add('_conv_head', '_bn1', 1280, 320, 1, 1)
    weights['_fc.weight'] = torch.randn(1000, 1280)
    weights['_fc.bias'] = torch.randn(1000)
    return weights


def convolve(x, weight, stride=1):
    """TensorFlow's 'SAME'; depthwise where the weight has one input channel."""
    padding = []
    for side, kernel in ((x.size(3), weight.size(3)), (x.size(2), weight.size(2))):
        total = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        padding += [total // 2, total - total // 2]
    groups = weight.size(0) if weight.size(1) == 1 else 1
    return F.conv2d(F.pad(x, padding), weight, stride=stride, groups=groups)


def normalised(weights, x, conv, bn, stride=1):
    values = (f'{bn}.{n}' for n in ('running_mean', 'running_var', 'weight', 'bias'))
    x = convolve(x, weights[f'{conv}.weight'], stride)
    return F.batch_norm(x, *(weights[value] for value in values), eps=1e-3)


def original(weights, image):
    """The outputs of the stem and all blocks."""
    layer = partial(normalised, weights)
    maps = [layer(image, '_conv_stem', '_bn0', 2).clamp(0, 6)]
    for i, stride in enumerate(STRIDES):
        block, x = f'_blocks.{i}', maps[-1]
        if f'{block}._expand_conv.weight' in weights:
            x = layer(x, f'{block}._expand_conv', f'{block}._bn0').clamp(0, 6)
        x = layer(x, f'{block}._depthwise_conv', f'{block}._bn1', stride).clamp(0, 6)
        x = layer(x, f'{block}._project_conv', f'{block}._bn2')
        maps.append(x + maps[-1] if x.shape == maps[-1].shape else x)
    return maps


def classify(weights, top):
    """The logits, of the last block's output."""
    x = normalised(weights, top, '_conv_head', '_bn1').clamp(0, 6).mean((2, 3))
    return F.linear(x, weights['_fc.weight'], weights['_fc.bias'])


def assert_same(weights, path):
    """The encoder as a config loads it, with and without odd sides."""
    model = MODELS.build(
        dict(
            type='mmseg.EfficientNetLite',
            granularity='block',
            finest_stride=2,
            init_cfg=dict(type='Pretrained', checkpoint=str(path)),
        )
    )
    model.init_weights()
    model.eval()
    for size in ((64, 96), (53, 75)):
        image = torch.randn(2, 3, *size)
        with torch.no_grad():
            expected, maps = original(weights, image), model(image)
        assert len(expected) == len(maps) == 17
        for z, found in zip(expected, maps):
            torch.testing.assert_close(found, z, rtol=1e-3, atol=1e-4)


def test_random_weights(tmp_path, run_tool):
    weights, source, out = random_weights(), tmp_path / 'w.pth', tmp_path / 'out.pth'
    torch.save(weights, source)
    printed = run_tool('model_converters/efficientnet_lite', source, '--out', out)
    assert f'Written: {out}' in printed
    assert_same(weights, out)
    # not a second time
    printed = run_tool(
        'model_converters/efficientnet_lite', source, '--out', out, ok=False
    )
    assert 'would be replaced' in printed and '--force' in printed
    run_tool('model_converters/efficientnet_lite', source, '--out', out, '--force')


def test_other_weights():
    weights = random_weights()
    del weights['_blocks.3._bn1.bias']
    weights['_blocks.16._bn1.bias'] = torch.zeros(3)
    with pytest.raises(UsageError, match=r'lite0: 2 .*_blocks.16.*stage3.0.depthwise'):
        convert(weights)
    with pytest.raises(UsageError, match='not of EfficientNet-Lite, lite2'):
        convert(random_weights(), 'lite2')


@pytest.mark.parametrize('content', ([1], None))
def test_other_files(content, tmp_path, run_tool):
    path = tmp_path / 'w.pth'
    if content:
        torch.save(content, path)
    out = tmp_path / 'out.pth'
    printed = run_tool(
        'model_converters/efficientnet_lite', path, '--out', out, ok=False
    )
    assert str(path) in printed and not out.exists()
    assert ('holds a list' if content else 'there is no file') in printed


@needs_weights
def test_the_package_s_weights(tmp_path, run_tool):
    out = tmp_path / 'out.pth'
    run_tool('model_converters/efficientnet_lite', '--out', out)
    assert_same(torch.load(packaged(), weights_only=True), out)


@needs_weights
@pytest.mark.parametrize('padding', ('same', 'symmetric'))
def test_it_knows_a_cat(padding):
    """Scikit-image's, among ImageNet's 1000 classes, by our encoder and the original
    classifier; and with symmetric padding, which the weights were not trained with."""
    data = pytest.importorskip('skimage.data', reason='scikit-image is not installed')
    image = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float()
    image = F.interpolate(
        image[..., 75:375], (224, 224), mode='bicubic', antialias=True
    )
    image = (image - 127) / 128
    weights = torch.load(packaged(), weights_only=True)
    model = EfficientNetLite(padding=padding).eval()
    model.load_state_dict(convert(weights))
    with torch.no_grad():
        shares = classify(weights, model(image)[-1]).softmax(1)[0]
        if padding == 'same':
            expected = classify(weights, original(weights, image)[-1]).softmax(1)[0]
            torch.testing.assert_close(shares, expected, rtol=1e-3, atol=1e-5)
    # tabby, tiger cat, Persian, Siamese and Egyptian cat
    assert shares[281:286].sum() > 0.85
    assert shares.argmax() in (281, 282, 285)
