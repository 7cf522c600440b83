# Copyright (c) PVD-MM contributors. Apache-2.0.
import pytest
import torch
import torch.nn.functional as F

from pvd_mm.decoder import ConcatConv, PixelAssociation
from pvd_mm.ops import upsampling_kernel

NORMS = ('none', 'softmax', 'sigmoid', 'tanh')


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_concat_conv_is_the_convolution_of_the_concatenation():
    conv = ConcatConv([3, 5, 2], 7, gains=[1.0, 2.0, 3.0], bias_gain=4.0)
    gains = torch.tensor([1.0] * 3 + [2.0] * 5 + [3.0] * 2)
    maps = [torch.randn(2, c, 4, 6) for c in (3, 5, 2)]
    expected = F.conv2d(
        torch.cat(maps, 1), conv.weight * gains[:, None, None], 4 * conv.bias
    )
    torch.testing.assert_close(conv(*maps), expected)


@pytest.mark.parametrize('kernel_size', (1, 3, 5))
@pytest.mark.parametrize('groups', (1, 3))
def test_shapes_of_the_paper(kernel_size, groups):
    """7×7 and 4×4 with stride 2, at the paper's width and a narrow one."""
    stride = min(2, kernel_size)
    fine = torch.randn(2, 8, 7, 7)
    coarse = torch.randn(2, 16, *(2 * [-(-7 // stride)]))
    for width, widths in ((None, (8, 16)), (4, (4, 4))):
        module = PixelAssociation(8, 16, kernel_size, groups, width)
        votes = module(fine, coarse, stride)
        assert votes.shape == (2, groups * kernel_size**2, *coarse.shape[2:])
        assert module.conv_in.out_channels == widths[0]
        assert module.conv_out.out_channels == widths[1]


def test_a_is_convolved_with_the_stride():
    """Against a strided 1×1 convolution and a real concatenation."""
    module = PixelAssociation(4, 6, vote_start='random', act_cfg=None)
    fine, coarse = torch.randn(2, 4, 7, 9), torch.randn(2, 6, 4, 5)
    a = F.conv2d(fine, module.conv_in.conv.weight, module.conv_in.conv.bias, stride=2)
    b = F.conv2d(coarse, module.conv_out.conv.weight, module.conv_out.conv.bias)
    gains = torch.tensor([4**-0.5] * 4 + [6**-0.5] * 6)
    expected = F.conv2d(
        torch.cat([a, b], 1),
        module.conv_votes.weight * gains[:, None, None],
        module.conv_votes.bias,
    )
    torch.testing.assert_close(module(fine, coarse, 2), expected)


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('stride', (1, 2, 3))
def test_identity_start(norm, stride):
    """Votes start as the upsampling kernel, exactly where the bound allows
    it and closely elsewhere, in every group and again after init_weights."""
    module = PixelAssociation(4, 6, groups=2, vote_norm=norm)
    kernel = upsampling_kernel(3, stride).flatten().repeat(2)
    for _ in range(2):
        votes = module(
            torch.randn(1, 4, 3 * stride, 3 * stride), torch.randn(1, 6, 3, 3), stride
        )
        expected = kernel.reshape(1, -1, 1, 1).expand_as(votes)
        torch.testing.assert_close(votes, expected, atol=0.01, rtol=0.01)
        module.init_weights()


@pytest.mark.parametrize('norm', NORMS)
@pytest.mark.parametrize('stride', (1, 2))
def test_bounds(norm, stride):
    module = PixelAssociation(4, 6, groups=2, vote_norm=norm, vote_start='random')
    torch.nn.init.normal_(module.conv_votes.weight, std=10)
    votes = module(
        torch.randn(2, 4, 4 * stride, 4 * stride), torch.randn(2, 6, 4, 4), stride
    )
    low, high = votes.min(), votes.max()
    if norm == 'none':
        assert low < -2 and high > stride**2
    elif norm == 'softmax':
        assert low >= 0
        sums = votes.unflatten(1, (2, 9)).sum(2)
        torch.testing.assert_close(sums, torch.full_like(sums, stride**2))
    else:
        assert (0 if norm == 'sigmoid' else -2) <= low and high <= 2


def test_zero_and_random_starts():
    maps = torch.randn(1, 4, 4, 4), torch.randn(1, 6, 4, 4)
    assert not PixelAssociation(4, 6, vote_start='zero')(*maps, 1).any()
    assert PixelAssociation(4, 6, vote_start='random')(*maps, 1).std() > 0.1


def test_init_weights_keeps_what_was_trained():
    """mmengine calls it once; a second call must change nothing."""
    module = PixelAssociation(4, 6)
    module.init_weights()
    torch.nn.init.ones_(module.conv_votes.weight)
    module.init_weights()
    assert (module.conv_votes.weight == 1).all()


def test_image_as_a_in_channels_last():
    """The backward pass of a step that starts at the image."""
    module = PixelAssociation(3, 8, vote_start='random')
    fine = torch.randn(2, 3, 32, 32, requires_grad=True)
    coarse = torch.randn(2, 8, 16, 16)
    votes = module(
        fine.to(memory_format=torch.channels_last),
        coarse.to(memory_format=torch.channels_last),
        2,
    )
    votes.sum().backward()
    assert fine.grad[..., 1::2, :].eq(0).all() and fine.grad.any()


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(kernel_size=2), 'kernel_size must be odd'),
        (dict(vote_norm='relu'), "vote_norm must be one of .*'relu'"),
        (dict(vote_start='one'), "vote_start must be one of .*'one'"),
        (dict(groups=0), 'groups must be at least 1'),
    ],
)
def test_bad_arguments(change, message):
    with pytest.raises(ValueError, match=message):
        PixelAssociation(4, 6, **change)
