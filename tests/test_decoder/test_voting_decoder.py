# Copyright (c) PVD-MM contributors. Apache-2.0.
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import MODELS

from pvd_mm.decoder import DecodingStep, PixelVotingDecoder
from pvd_mm.ops import dynamic_deconv2d


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pyramid(sizes, channels, **kwargs):
    return [torch.randn(2, c, *size, **kwargs) for c, size in zip(channels, sizes)]


@pytest.mark.parametrize('formulation', ('exact', 'factored'))
def test_one_step_by_hand(formulation):
    """Fig. 3 (d) with torch's own parts: votes that are the same everywhere
    make the step a concatenation, a 1×1 convolution and a transposed
    convolution."""
    step = DecodingStep(4, 6, 5, formulation=formulation).double()
    torch.nn.init.normal_(step.fuse.weight)
    fine, coarse = pyramid([(7, 7), (4, 4)], [4, 6], dtype=torch.float64)
    decoded = torch.randn(2, 5, 4, 4, dtype=torch.float64)
    output = step(fine, coarse, decoded, 2)
    gains = torch.tensor([1.0] * 6 + [5**-0.5] * 5, dtype=torch.float64)
    fused = decoded + F.conv2d(
        torch.cat([coarse, decoded], 1),
        step.fuse.weight * gains[:, None, None],
        step.fuse.bias,
    )
    kernel = step.association.starts[1].reshape(3, 3)
    if formulation == 'exact':
        expected = F.conv_transpose2d(
            fused, kernel.expand(5, 1, 3, 3), stride=2, padding=1, groups=5
        )
    else:
        vote_sum = F.conv_transpose2d(
            torch.ones(1, 1, 4, 4).double(), kernel[None, None], stride=2, padding=1
        )
        expected = (
            fused.repeat_interleave(2, 2).repeat_interleave(2, 3)[..., :7, :7]
            * vote_sum
        )
    assert output.shape == (2, 5, 7, 7)
    torch.testing.assert_close(output, expected)


@pytest.mark.parametrize('norm', ('none', 'softmax', 'sigmoid', 'tanh'))
def test_a_chain_of_16_starts_as_upsampling(norm):
    """Without what is fused in, the paper's chain of 16 blocks starts as
    bilinear interpolation and neither dies nor blows up."""
    channels = [4] * 17
    sizes = [(33, 33)] * 4 + [(17, 17)] * 4 + [(9, 9)] * 6 + [(5, 5)] * 3
    decoder = PixelVotingDecoder(channels, 3, vote_norm=norm)
    maps = pyramid(sizes, channels)
    for step in decoder.steps:
        step.fuse.weight.data[:, :4] = 0
    top = torch.randn(2, 3, 5, 5)
    decoded = decoder(maps, top)
    assert [tuple(y.shape[2:]) for y in decoded] == sizes
    expected = top
    for side in (9, 17, 33):
        expected = F.interpolate(
            expected, (side, side), mode='bilinear', align_corners=True
        )
    if norm == 'none':
        torch.testing.assert_close(decoded[0], expected)
    else:  # as near as bounded votes come
        cosine = F.cosine_similarity(decoded[0].flatten(), expected.flatten(), dim=0)
        assert cosine > 0.97
        assert 0.5 < decoded[0].norm() / expected.norm() < 2


@pytest.mark.parametrize('norm', ('none', 'softmax', 'tanh'))
def test_gradients_reach_every_parameter(norm):
    channels, sizes = [3, 4, 8], [(15, 12), (8, 6), (8, 6)]
    decoder = PixelVotingDecoder(channels, 4, vote_norm=norm, groups=2)
    for step in decoder.steps:
        torch.nn.init.normal_(step.association.conv_votes.weight)
    maps = pyramid(sizes, channels)
    top = torch.randn(2, 4, 8, 6, requires_grad=True)
    decoder(maps, top)[0].square().sum().backward()
    assert top.grad.abs().sum() > 0
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name


@pytest.mark.parametrize('strides', [(1, 2, 3), None])
def test_any_pyramid(strides):
    channels = [5, 6, 7, 8]
    sizes = [(25, 31), (25, 31), (13, 16), (5, 6)]
    decoder = PixelVotingDecoder(channels, 2, strides=strides)
    decoded = decoder(pyramid(sizes, channels), torch.randn(2, 2, 5, 6))
    assert [tuple(y.shape[2:]) for y in decoded] == sizes


# What makes a map of stride s of the one before: the layers of encoders
ROUNDING = {
    'padded': lambda s: torch.nn.Conv2d(1, 1, 3, s, 1),
    'pooled': lambda s: torch.nn.MaxPool2d(s),
    'patches': lambda s: torch.nn.Conv2d(1, 1, s, s),
    'pooled up': lambda s: torch.nn.AvgPool2d(s, ceil_mode=True),
}


@pytest.mark.parametrize('layer', ROUNDING)
@pytest.mark.parametrize('strides', [(2, 2, 2), (1, 2, 2), (2, 1, 2)])
def test_strides_are_the_encoders_at_every_size(layer, strides):
    decoder = PixelVotingDecoder([1] * 4, 2)
    layers = [ROUNDING[layer](s).to('meta') for s in strides]
    for height in range(8, 72):
        maps = [torch.empty(1, 1, height, 79 - height, device='meta')]
        for down in layers:
            maps.append(down(maps[-1]))
        assert tuple(decoder.strides_of(maps)) == strides, [z.shape for z in maps]


@pytest.mark.parametrize('layer', ROUNDING)
def test_a_stride_of_3_is_the_encoders_from_8_pixels_on(layer):
    decoder, down = PixelVotingDecoder([1, 1], 2), ROUNDING[layer](3).to('meta')
    for side in range(8, 72):
        fine = torch.empty(1, 1, side, side, device='meta')
        assert decoder.strides_of([fine, down(fine)]) == [3]


def upsampled(top, size, **arguments):
    """The row y_0 of an untrained decoder, without what is fused in."""
    decoder = PixelVotingDecoder([4, 5], 1, **arguments).double()
    decoder.steps[0].fuse.weight.data.zero_()
    top = torch.tensor(top, dtype=torch.double)[None, None, None].expand(1, 1, 3, -1)
    maps = pyramid([(3 * size[0], size[1]), (3, top.size(3))], [4, 5], dtype=top.dtype)
    rows = decoder(maps, top)[0][0, 0]
    assert rows.shape == maps[0].shape[2:]
    return rows[0].tolist()


@pytest.mark.parametrize(
    'top, side, strides, row',
    [
        ([1, 3], 3, None, [1, 2, 3]),  # rounded up
        ([1, 3], 4, None, [1, 2, 3, 1.5]),  # half of the votes are missing
        ([1, 3], 5, None, [1, 2, 3, 3, 3]),  # rounded down
        ([5], 3, [2], [5, 5, 5]),
        ([1, 3], 8, [3], [1, 1, 3, 3, 3, 3, 3, 3]),
        ([1, 3, 5, 7], 10, [2], [1, 2, 3, 4, 5, 6, 7, 7, 7, 3.5]),  # 3×3, unpadded
        ([1, 3, 5, 7], 6, [2], [1, 2, 3, 4, 5, 6]),  # 2×2, padded by 1
        ([5], 1, [2], [5]),
    ],
)
def test_votes_land_where_the_encoder_came_from(top, side, strides, row):
    """Pixel i of B lies on pixel s·i of A, and the last one goes on to the edge."""
    # rows as many as the stride makes of 3
    stride = (strides or [2])[0]
    assert upsampled(top, (stride, side), strides=strides) == row


def test_votes_are_of_the_pixels_that_they_lie_on():
    """A fifth row and column, from which the encoder made nothing, change no vote
    of 1×1 convolutions."""
    step = DecodingStep(4, 6, 5, norm_cfg=dict(type='BN'))
    torch.nn.init.normal_(step.association.conv_votes.weight)
    fine, coarse = pyramid([(5, 9), (2, 4)], [4, 6])
    votes = step.votes(fine, coarse, 2)
    assert votes.shape == (2, 9, 2, 4)
    torch.testing.assert_close(votes, step.votes(fine[..., :4, :8], coarse, 2))


@pytest.mark.parametrize('formulation', ('exact', 'factored'))
@pytest.mark.parametrize('upsampling', ('votes', 'bilinear', 'carafe', 'dysample'))
def test_a_chain_that_rounds_down(upsampling, formulation):
    """As one that rounds up, whose last rows and columns are those before."""
    sizes, channels = [(21, 23), (10, 11), (5, 5), (2, 2)], [4, 5, 6, 7]
    decoder = PixelVotingDecoder(
        channels, 3, upsampling=upsampling, formulation=formulation
    ).double()
    for step in decoder.steps:
        torch.nn.init.normal_(step.fuse.weight)
        if upsampling == 'votes':
            torch.nn.init.normal_(step.association.conv_votes.weight)
    maps = [z.requires_grad_() for z in pyramid(sizes, channels, dtype=torch.double)]
    top = torch.randn(2, 3, 2, 2, dtype=torch.double)
    decoded = decoder(maps, top)
    assert [tuple(y.shape[2:]) for y in decoded] == sizes
    for level, step in enumerate(decoder.steps):
        fine, coarse, y = maps[level], maps[level + 1], decoded[level + 1]
        missing = [-(-a // 2) - b for a, b in zip(sizes[level], sizes[level + 1])]
        grow = [0, missing[1], 0, missing[0]]
        context, votes = step.context(coarse), step.votes(fine, coarse, 2)
        context, y = (F.pad(x, grow, mode='replicate') for x in (context, y))
        if upsampling != 'bilinear':
            votes = F.pad(votes, grow, mode='replicate')
        pixels = step.decode(context, y, votes, sizes[level], 2)
        torch.testing.assert_close(decoded[level], pixels)
    decoded[0].square().sum().backward()
    used = maps if upsampling == 'votes' else maps[1:]
    assert all(z.grad.any() for z in used)


def test_votes_can_be_made_once_and_cropped():
    """What an instance head does: the votes of the whole image, cropped with
    the maps, decode a crop to the same values, away from its border."""
    channels, sizes = [4, 5, 6], [(32, 32), (16, 16), (8, 8)]
    decoder = PixelVotingDecoder(channels, 3)
    for step in decoder.steps:
        torch.nn.init.normal_(step.association.conv_votes.weight)
    maps, top = pyramid(sizes, channels), torch.randn(2, 3, 8, 8)
    votes = decoder.votes(maps)
    whole = decoder(maps, top)

    def crop(x, level):
        side = slice(8 // 2**level, 24 // 2**level)
        return x[..., side, side]

    contexts = decoder.contexts(maps[1:])
    contexts = [crop(contexts[0], 1), crop(contexts[1], 2)]
    votes = [crop(votes[0], 1), crop(votes[1], 2)]
    part = decoder.decode(contexts, votes, crop(top, 2), (16, 16))
    expected = crop(whole[0], 0)
    torch.testing.assert_close(part[0][..., 4:-4, 4:-4], expected[..., 4:-4, 4:-4])
    # the last steps alone, then the others from there
    upper = decoder.decode(contexts[1:], votes[1:], crop(top, 2), (8, 8), 1)
    lower = decoder.decode(contexts[:1], votes[:1], upper[0], (16, 16))
    torch.testing.assert_close(lower[0], part[0])
    later = decoder.votes(maps[1:], first=1)
    torch.testing.assert_close(crop(later[0], 2), votes[1])


def test_autocast_and_registry():
    decoder = MODELS.build(
        dict(
            type='PixelVotingDecoder',
            in_channels=[4, 8],
            channels=3,
            vote_channels=2,
            norm_cfg=dict(type='BN'),
        )
    )
    decoder.init_weights()
    maps = pyramid([(8, 8), (4, 4)], [4, 8])
    with torch.autocast('cpu', dtype=torch.bfloat16):
        output = decoder(maps, torch.randn(2, 3, 4, 4))[0]
    assert output.dtype == torch.bfloat16
    output.float().sum().backward()


def test_state_dict_holds_parameters_alone():
    names = PixelVotingDecoder([4, 8], 3).state_dict()
    assert not [name for name in names if 'starts' in name]


@pytest.mark.parametrize(
    'arguments,message',
    [
        (dict(in_channels=[4]), 'at least two maps'),
        (dict(strides=[2]), 'one entry for each of the 2 steps'),
        (dict(strides=[2, 4]), 'no vote reaches'),
        (dict(strides=[2, 0]), 'stride must be at least 1'),
        (dict(kernel_size=4), 'kernel_size must be odd'),
        (dict(vote_conv_size=2), 'vote_conv_size must be odd'),
        (dict(fuse_conv_size=0), 'fuse_conv_size must be at least 1'),
        (dict(fuse_channels=[8, 0]), 'fuse_channels must be at least 1'),
        (dict(vote_gain=0), 'vote_gain must be positive'),
        (dict(upsampling='nearest'), 'upsampling must be one of'),
        (dict(groups=2), 'groups must divide the 3 decoded channels'),
        (dict(formulation='quick'), "formulation must be one of .*'quick'"),
        (dict(vote_norm='max'), "vote_norm must be one of .*'max'"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PixelVotingDecoder(**{**dict(in_channels=[4, 5, 6], channels=3), **arguments})


def test_bad_maps():
    decoder = PixelVotingDecoder([4, 5], 3)
    top = torch.randn(2, 3, 4, 4)
    with pytest.raises(ValueError, match=r'in_channels=\[4, 5\].*\[4, 6\]'):
        decoder(pyramid([(8, 8), (4, 4)], [4, 6]), top)
    with pytest.raises(ValueError, match=r'\(20, 20\) and \(4, 4\)'):
        decoder(pyramid([(20, 20), (4, 4)], [4, 5]), top)
    given = PixelVotingDecoder([4, 5], 3, strides=[2])
    with pytest.raises(ValueError, match=r'does not fit strides\[0\]=2'):
        given(pyramid([(4, 4), (4, 4)], [4, 5]), top)
    with pytest.raises(ValueError, match='give the strides'):
        decoder(pyramid([(20, 20), (9, 9)], [4, 5]), top)


def test_it_can_be_traced():
    """As mmengine's complexity analysis does, and for other sizes."""
    for formulation in ('exact', 'factored'):
        decoder = PixelVotingDecoder([4, 5, 6], 3, formulation=formulation)
        inputs = (pyramid([(9, 9), (5, 5), (5, 5)], [4, 5, 6]), torch.randn(2, 3, 5, 5))
        decoder.eval()
        with torch.no_grad():
            traced = torch.jit.trace(decoder, inputs)
            torch.testing.assert_close(traced(*inputs), decoder(*inputs))
            others = pyramid([(11, 8), (6, 4), (6, 4)], [4, 5, 6])
            inputs = others, torch.randn(2, 3, 6, 4)
            torch.testing.assert_close(traced(*inputs), decoder(*inputs))


@pytest.mark.parametrize('sizes', [((7, 9), (4, 5)), ((8, 6), (8, 6))])
def test_sizes_of_convolutions_by_hand(sizes):
    """3×3 convolutions in both places, with torch's own on the
    concatenation."""
    stride = 1 if sizes[0] == sizes[1] else 2
    step = DecodingStep(
        4, 6, 5, vote_conv_size=3, fuse_conv_size=3, vote_start='zero'
    ).double()
    torch.nn.init.normal_(step.fuse.weight)
    votes = step.association
    torch.nn.init.normal_(votes.conv_votes.weight)
    fine, coarse = pyramid(sizes, [4, 6], dtype=torch.float64)
    decoded = torch.randn(2, 5, *sizes[1], dtype=torch.float64)
    a = F.conv2d(
        fine, votes.conv_in.conv.weight, votes.conv_in.conv.bias, stride, 1
    ).relu()
    b = F.conv2d(coarse, votes.conv_out.conv.weight, votes.conv_out.conv.bias).relu()
    gains = torch.tensor([4**-0.5] * 4 + [6**-0.5] * 6, dtype=torch.float64)
    expected = F.conv2d(
        torch.cat([a, b], 1),
        votes.conv_votes.weight * gains[:, None, None],
        votes.conv_votes.bias,
    )
    torch.testing.assert_close(step.votes(fine, coarse, stride), expected)
    gains = torch.tensor([1.0] * 6 + [5**-0.5] * 5, dtype=torch.float64)
    fused = decoded + F.conv2d(
        torch.cat([coarse, decoded], 1),
        step.fuse.weight * gains[:, None, None],
        step.fuse.bias,
        padding=1,
    )
    expected = dynamic_deconv2d(fused, expected, 3, stride, output_size=sizes[0])
    torch.testing.assert_close(step(fine, coarse, decoded, stride), expected)


@pytest.mark.parametrize('size', (1, 3))
def test_hidden_layer_of_the_fusion_by_hand(size):
    """M = C + conv(act(norm(conv(B, C)))), with torch's own."""
    step = DecodingStep(
        6, 6, 5, fuse_conv_size=size, fuse_channels=7, norm_cfg=dict(type='BN')
    ).double()
    step.init_weights()
    torch.nn.init.normal_(step.hidden.norm.weight)
    torch.nn.init.normal_(step.hidden.norm.bias)
    coarse, decoded = (torch.randn(2, c, 8, 6, dtype=torch.float64) for c in (6, 5))
    hidden = F.conv2d(
        torch.cat([coarse, decoded], 1),
        step.fuse.weight,
        step.fuse.bias,
        padding=size // 2,
    )
    hidden = F.batch_norm(
        hidden,
        None,
        None,
        step.hidden.norm.weight,
        step.hidden.norm.bias,
        training=True,
    )
    expected = decoded + F.conv2d(hidden.relu(), step.hidden.conv.weight)
    # votes start as the identity at stride 1
    torch.testing.assert_close(step(coarse, coarse, decoded, 1), expected)
    # little is added before training
    assert (expected - decoded).std() < 0.1


def test_bilinear_upsampler_is_interpolation():
    """The same decoder but for the votes, and none of their parameters."""
    channels, sizes = [4, 5, 6], [(15, 12), (8, 6), (8, 6)]
    decoder = PixelVotingDecoder(channels, 3, upsampling='bilinear')
    assert not [n for n, _ in decoder.named_parameters() if 'fuse' not in n]
    for step in decoder.steps:
        step.fuse.weight.data.zero_()
    top = torch.randn(2, 3, 8, 6)
    decoded = decoder(pyramid(sizes, channels), top)
    torch.testing.assert_close(decoded[1], top)
    torch.testing.assert_close(
        decoded[0], F.interpolate(top, (15, 12), mode='bilinear', align_corners=False)
    )


@pytest.mark.parametrize('stride', (1, 2))
def test_carafe_upsampler_gathers_with_a_softmax(stride):
    """Pixel by pixel as the CARAFE paper's eqs. 1 and 4 have it."""
    step = DecodingStep(4, 6, 3, upsampling='carafe').double()
    torch.nn.init.normal_(step.control.encode.weight)
    coarse = torch.randn(1, 6, 4, 3, dtype=torch.float64)
    fused = torch.randn(1, 3, 4, 3, dtype=torch.float64)
    size = (4 * stride - stride // 2, 3 * stride)
    kernels = step.votes(None, coarse, stride)
    output = step.control(fused, kernels, size, stride)
    padded = F.pad(fused, [2] * 4)
    for y in range(size[0]):
        for x in range(size[1]):
            i, j = y // stride, x // stride
            phase = (y % stride) * stride + x % stride
            weights = kernels[0, phase :: stride**2, i, j].softmax(0)
            window = padded[0, :, i : i + 5, j : j + 5].flatten(1)
            torch.testing.assert_close(output[0, :, y, x], window @ weights)


@pytest.mark.parametrize('size', ((14, 10), (13, 9)))
def test_dysample_upsampler_starts_as_interpolation(size):
    """Bilinear, by twice the size and cut, to a thousandth of what the map spans; in
    half precision too, of a map whose places half precision would not tell apart."""
    step = DecodingStep(4, 6, 3, upsampling='dysample')
    step.init_weights()
    coarse, fused = torch.randn(2, 6, 7, 5), torch.randn(2, 3, 7, 5)
    output = step.control(fused, step.votes(None, coarse, 2), size, 2)
    expected = F.interpolate(fused, scale_factor=2, mode='bilinear')
    expected = expected[..., : size[0], : size[1]]
    torch.testing.assert_close(output, expected, rtol=0, atol=1e-3 * 6)
    ramp = (torch.arange(600.0) / 600).bfloat16().expand(1, 1, 2, 600)
    zero = torch.zeros(1, 8, 2, 600, dtype=torch.bfloat16)
    found = step.control(ramp, zero, (4, 1200), 2)
    wanted = F.interpolate(ramp.float(), scale_factor=2, mode='bilinear')
    torch.testing.assert_close(found.float(), wanted, rtol=0, atol=0.002)


@pytest.mark.parametrize('stride', (1, 2))
def test_dysample_upsampler_samples_at_offsets(stride):
    """Pixel by pixel as the DySample paper's eqs. 1 to 4 have it; gradients by
    differences."""
    step = DecodingStep(4, 6, 3, upsampling='dysample').double()
    torch.nn.init.normal_(step.control.offset.weight, std=2)
    coarse = torch.randn(1, 6, 4, 3, dtype=torch.float64)
    fused = torch.randn(1, 3, 4, 3, dtype=torch.float64)
    size = (4 * stride - stride // 2, 3 * stride)
    offsets = step.votes(None, coarse, stride)
    assert offsets.shape == (1, 2 * stride**2, 4, 3)
    output = step.control(fused, offsets, size, stride)
    for y in range(size[0]):
        for x in range(size[1]):
            i, j = y // stride, x // stride
            phase = (y % stride) * stride + x % stride
            right, down = 0.25 * offsets[0, phase :: stride**2, i, j]
            # of the centres of M's pixels, from 0; beyond the last it stays the last
            v = ((y + 0.5) / stride - 0.5 + down).clamp(0, 3)
            u = ((x + 0.5) / stride - 0.5 + right).clamp(0, 2)
            expected = sum(
                (1 - (v - a).abs()) * (1 - (u - b).abs()) * fused[0, :, a, b]
                for a in range(4)
                for b in range(3)
                if (v - a).abs() < 1 and (u - b).abs() < 1
            )
            torch.testing.assert_close(output[0, :, y, x], expected)
    inputs = fused.requires_grad_(), offsets.detach().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda m, o: step.control(m, o, size, stride), inputs
    )


def test_strides_that_upsamplers_have_no_weights_for():
    for name in ('carafe', 'dysample'):
        step = DecodingStep(4, 6, 3, kernel_size=5, upsampling=name)
        with pytest.raises(ValueError, match=f"'{name}' goes up to stride 2.* has 3"):
            step.votes(None, torch.randn(1, 6, 4, 3), 3)


def test_arguments_of_single_steps():
    """A list has one value for each step, finest first: here a step of stride
    4 with a wide window and votes for every channel."""
    channels, sizes = [3, 4, 8], [(30, 24), (8, 6), (4, 3)]
    decoder = PixelVotingDecoder(
        channels,
        6,
        kernel_size=[5, 3],
        groups=[6, 1],
        vote_channels=[7, None],
        vote_conv_size=(7, 1),
    )
    maps = pyramid(sizes, channels)
    votes = decoder.votes(maps)
    assert [v.shape[1:] for v in votes] == [(6 * 25, 8, 6), (9, 4, 3)]
    assert decoder.steps[0].association.conv_in.conv.weight.shape == (7, 3, 7, 7)
    assert decoder.steps[1].association.conv_in.conv.weight.shape == (4, 4, 1, 1)
    decoded = decoder(maps, torch.randn(2, 6, 4, 3))
    assert [y.shape[2:] for y in decoded] == [torch.Size(s) for s in sizes]
    # the steps by themselves
    y = decoder.steps[1](maps[1], maps[2], decoded[2], 2)
    torch.testing.assert_close(y, decoded[1])
    torch.testing.assert_close(decoder.steps[0](maps[0], maps[1], y, 4), decoded[0])


@pytest.mark.parametrize('name', ('kernel_size', 'strides', 'vote_channels'))
def test_refuses_a_list_of_another_length(name):
    with pytest.raises(
        ValueError,
        match=f'{name} must have one entry for each '
        r'of the 2 steps .* got \[3, 3, 3\]',
    ):
        PixelVotingDecoder([3, 4, 8], 5, **{name: [3, 3, 3]})


def test_decoders_share_votes():
    """The shorter one has no modules for votes, and decodes by the other's."""
    torch.manual_seed(0)
    own = PixelVotingDecoder([3, 4, 5, 6], channels=2, vote_channels=4)
    other = PixelVotingDecoder([4, 5, 6], channels=3, vote_channels=4)
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    count = sum(p.numel() for p in other.steps[0].association.parameters())
    before = sum(p.numel() for p in other.parameters())
    other.use_votes_of(own)
    assert not any('association' in name for name in other.state_dict())
    assert sum(p.numel() for p in other.parameters()) <= before - count
    maps = [torch.randn(1, c, n, n) for c, n in ((3, 16), (4, 8), (5, 4), (6, 2))]
    top = torch.randn(1, 3, 2, 2)
    shared = own.votes(maps)[-2:]
    result = other.decode(other.contexts(maps[2:]), shared, top, (8, 8))
    twin = PixelVotingDecoder([4, 5, 6], channels=3, vote_channels=4)
    twin.load_state_dict(other.state_dict(), strict=False)
    votes = [step.association for step in twin.steps]
    for mine, theirs in zip(votes, list(own.steps)[1:]):
        mine.load_state_dict(theirs.association.state_dict())
        # votes are damped by the length of the chain
        mine.conv_votes.weight.data *= (2 / 3) ** 0.5
        mine.conv_votes.bias.data *= (2 / 3) ** 0.5
    torch.testing.assert_close(result[0], twin(maps[1:], top)[0])
    with pytest.raises(TypeError, match='uses the votes of another one'):
        other.votes(maps[1:])


@pytest.mark.parametrize(
    'changes, name',
    [
        (dict(in_channels=[4, 5, 7]), 'in_channels'),
        (dict(strides=[2, 2]), 'strides'),
        (dict(kernel_size=5), 'votes'),
        (dict(vote_norm='softmax'), 'votes'),
        (dict(vote_channels=8), 'votes'),
        (dict(upsampling='bilinear'), 'votes'),
    ],
)
def test_other_votes_are_not_shared(changes, name):
    own = PixelVotingDecoder([3, 4, 5, 6], channels=2, vote_channels=4)
    arguments = dict(in_channels=[4, 5, 6], channels=3, vote_channels=4)
    other = PixelVotingDecoder(**{**arguments, **changes})
    with pytest.raises(ValueError, match=f'regress the same, but {name} of one is'):
        other.use_votes_of(own)
