# Copyright (c) PVD-MM contributors. Apache-2.0.
import pytest
import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule

from pvd_mm.apis.complexity import count_macs
from pvd_mm.decoder.layers import CONV_1X1, Conv1x1, conv2d


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def operators(action) -> set[str]:
    """Names of the operators that a call runs."""
    with torch.profiler.profile() as profile:
        action()
    return {event.key for event in profile.key_averages()}


LAYOUTS = dict(
    contiguous=lambda x: x,
    channels_last=lambda x: x.to(memory_format=torch.channels_last),
    every_other_pixel=lambda x: x[..., ::2, ::2],
    of_channels_last=lambda x: x.to(memory_format=torch.channels_last)[..., ::2, ::2],
    some_channels=lambda x: x[:, 1:4],
    without_images=lambda x: x[:0],
    of_one_channel=lambda x: x[:, :1],
)


@pytest.mark.parametrize('bias', (True, False))
@pytest.mark.parametrize('dtype', (torch.float, torch.double, torch.bfloat16))
@pytest.mark.parametrize('layout', LAYOUTS)
def test_against_torch(layout, dtype, bias):
    x = LAYOUTS[layout](torch.randn(2, 5, 6, 7)).to(dtype)
    weight = torch.randn(3, x.size(1), 1, 1, dtype=dtype)
    bias = torch.randn(3, dtype=dtype) if bias else None
    inputs = [x.detach().requires_grad_(), weight.requires_grad_()]
    if bias is not None:
        inputs.append(bias.requires_grad_())
    results = []
    for function in (conv2d, F.conv2d):
        y = function(*inputs)
        results.append([y, *torch.autograd.grad(y.square().sum(), inputs)])
    torch.testing.assert_close(*results)


@pytest.mark.parametrize('kernel_size, stride', ((3, 1), (3, 2), (1, 2)))
def test_other_convolutions_are_torchs(kernel_size, stride):
    x, bias = torch.randn(2, 5, 6, 7), torch.randn(3)
    weight = torch.randn(3, 5, kernel_size, kernel_size)
    arguments = (x, weight, bias, stride, kernel_size // 2)
    assert torch.equal(conv2d(*arguments), F.conv2d(*arguments))


def test_gradients():
    inputs = [
        torch.randn(*shape, dtype=torch.double, requires_grad=True)
        for shape in ((2, 3, 2, 3), (4, 3, 1, 1), (4,))
    ]
    assert torch.autograd.gradcheck(conv2d, inputs, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(conv2d, inputs)


def test_vmap():
    x, weight, bias = (
        torch.randn(4, 2, 3, 5, 6),
        torch.randn(7, 3, 1, 1),
        torch.randn(7),
    )
    expected = torch.stack([F.conv2d(y, weight, bias) for y in x])
    torch.testing.assert_close(
        torch.vmap(conv2d, (0, None, None))(x, weight, bias), expected
    )


def test_what_computes_it():
    """A product on a dense map; the convolution for channels_last, in bfloat16
    and in a traced graph."""
    layer, x = Conv1x1(4, 8, 1), torch.randn(2, 4, 16, 16)
    assert 'aten::convolution' not in operators(lambda: layer(x))
    last = x.to(memory_format=torch.channels_last)
    assert 'aten::convolution' in operators(lambda: layer(last))
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    half = Conv1x1(4, 8, 1).bfloat16()
    assert 'aten::convolution' in operators(lambda: half(x.bfloat16()))
    traced = torch.jit.trace(layer, x)
    assert 'aten::_convolution' in str(traced.inlined_graph)
    torch.testing.assert_close(traced(x[..., :5]), layer(x[..., :5]))


def test_autocast_and_counts_are_those_of_a_convolution():
    own, other = Conv1x1(4, 8, 1), torch.nn.Conv2d(4, 8, 1)
    other.load_state_dict(own.state_dict())
    x = torch.randn(2, 4, 16, 16)
    with torch.autocast('cpu', torch.bfloat16):
        assert own(x).dtype == other(x).dtype == torch.bfloat16
    assert count_macs(lambda: own(x)) == count_macs(lambda: other(x)) == 2 * 256 * 32


def test_in_a_conv_module():
    """It has the weights and the start of the layer that it stands for."""
    modules = []
    for conv_cfg in (CONV_1X1, None):
        torch.manual_seed(0)
        modules.append(ConvModule(4, 8, 1, conv_cfg=conv_cfg))
    own, other = (module.state_dict() for module in modules)
    assert list(own) == list(other)
    assert all(torch.equal(own[name], other[name]) for name in own)
