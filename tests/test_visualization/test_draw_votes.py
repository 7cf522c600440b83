# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Following votes: the gradient through the op is the oracle."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from helpers.commands import tool
from helpers.untrained import SEGMENTOR, make
from pvd_mm.apis.images import read_image
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.ops import dynamic_deconv2d
from pvd_mm.utils.errors import UserError
from pvd_mm.visualization.draw_votes import Level, _draw, draw_votes
from pvd_mm.visualization.follow_votes import follow_votes


def chain_gradients(votes, pixel, sizes, strides, k, groups, formulation, channel):
    """The gradient of one value of y_0 by M_1 … M_L, through the op alone."""
    top = torch.randn(1, 2 * groups, *sizes[-1], dtype=torch.double)
    maps = [top.requires_grad_()]
    for level in reversed(range(len(votes))):
        # where the encoder has rounded down
        grow = [0, 0]
        for fine, coarse in zip(sizes[level], sizes[level + 1]):
            grow[:0] = [0, max(0, -(-fine // strides[level]) - coarse)]
        maps.insert(
            0,
            dynamic_deconv2d(
                F.pad(maps[0], grow[:4], mode='replicate'),
                F.pad(votes[level].double(), grow[:4], mode='replicate'),
                k,
                strides[level],
                output_size=sizes[level],
                groups=groups,
                formulation=formulation,
            ),
        )
    return torch.autograd.grad(maps[0][(0, channel, *pixel)], maps[1:])


def check(votes, pixel, sizes, strides, k, groups, formulation):
    found = follow_votes(votes, pixel, sizes[0], strides, k, groups, formulation)
    for channel in range(2 * groups):
        expected = chain_gradients(
            votes, pixel, sizes, strides, k, groups, formulation, channel
        )
        for gradient, weights in zip(expected, found, strict=True):
            assert weights.shape == (groups, *gradient.shape[2:])
            wanted = torch.zeros_like(gradient[0])
            wanted[channel] = weights[channel // 2]
            assert torch.allclose(gradient[0], wanted, rtol=1e-10, atol=1e-12)
    return found


@pytest.mark.parametrize('formulation', ['exact', 'factored'])
@pytest.mark.parametrize('groups', [1, 2])
@pytest.mark.parametrize('up', [True, False])
@pytest.mark.parametrize(
    'size, strides, k',
    [
        ((13, 17), (2, 1, 2), 3),  # odd sizes
        ((12, 18), (1, 2, 2), 3),
        ((9, 10), (3, 1), 3),  # a stride as large as the window
        ((7, 5), (2, 2, 2, 2), 3),  # down to one pixel
        ((11, 8), (2, 4), 5),
        ((4, 3), (1,), 1),
    ],
)
def test_weights_are_the_gradient_of_the_chain(
    size, strides, k, up, groups, formulation
):
    torch.manual_seed(0)
    sizes = [size]
    for stride in strides:
        sizes.append(
            tuple(
                -(-side // stride) if up else max(1, side // stride)
                for side in sizes[-1]
            )
        )
    votes = [torch.randn(1, groups * k * k, *side) for side in sizes[1:]]
    for pixel in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, 1)):
        found = check(votes, pixel, sizes, strides, k, groups, formulation)
    assert all(weights.abs().sum() > 0 for weights in found)


def test_steps_of_their_own():
    """Windows, groups and formulations that differ from step to step."""
    torch.manual_seed(0)
    sizes, strides = [(22, 13), (6, 4), (3, 2)], [4, 2]
    sides, groups = [5, 3], [6, 2]
    votes = [
        torch.randn(1, g * k * k, *size)
        for g, k, size in zip(groups, sides, sizes[1:], strict=True)
    ]
    forms = ['exact', 'factored']
    found = follow_votes(votes, (9, 5), sizes[0], strides, sides, groups, forms)
    top = torch.randn(1, 6, *sizes[2], dtype=torch.double, requires_grad=True)
    middle = dynamic_deconv2d(
        top,
        votes[1].double(),
        3,
        2,
        output_size=sizes[1],
        groups=2,
        formulation='factored',
    )
    finest = dynamic_deconv2d(
        middle, votes[0].double(), 5, 4, output_size=sizes[0], groups=6
    )
    for channel in range(6):
        gradients = torch.autograd.grad(
            finest[0, channel, 9, 5], [middle, top], retain_graph=True
        )
        for gradient, weights in zip(gradients, found, strict=True):
            assert torch.allclose(gradient[0, channel], weights[channel], rtol=1e-10)


def test_what_does_not_fit():
    votes = [torch.rand(1, 9, 4, 4)]
    for arguments, message in (
        ((votes, (8, 0), (8, 8), [2]), 'not in a map'),
        ((votes, (0, 0), (8, 8), [1]), 'do not fit'),
        ((votes, (0, 0), (8, 8), [2, 1]), r'strides=\[2, 1\]'),
        ((votes, (0, 0), (8, 8), [2], 3, 2), '2 groups'),
        ((votes, (0, 0), (8, 8), [2], 3, 1, 'approximate'), 'formulation'),
    ):
        with pytest.raises(ValueError, match=message):
            follow_votes(*arguments)


@pytest.fixture(scope='module')
def scene(street):
    return str(sorted(street.glob('leftImg8bit/val/*/*.png'))[0])


def votes_of(trained, scene):
    """The votes that a model casts while it runs, and the sizes of its maps."""
    inferencer = load_inferencer(*trained, 'cpu')
    decoder = inferencer.model.decode_head.decoder
    caught = []
    hook = decoder.register_forward_hook(
        lambda module, args, result: caught.append((args[0], result))
    )
    inferencer.predict(scene)
    hook.remove()
    ((maps, decoded),) = caught
    return decoder, decoder.votes(maps), [tuple(y.shape[2:]) for y in decoded]


@pytest.mark.parametrize(
    'head', ['', "decoder=dict(groups=19, formulation='factored')"]
)
def test_votes_of_a_model(head, street, scene, tmp_path):
    base = 'pvd/pvd_r18-stage-c32_1xb2-600_street-192x256.py'
    text = SEGMENTOR.format(base=base, head=head, root=str(street))
    trained = make(tmp_path, 'model', text)
    out = tmp_path / 'votes.png'
    x, y = 50, 33
    result = draw_votes(*trained, scene, (x, y), str(out), device='cpu')
    height, width, _ = read_image(out).shape
    assert width > 900 and read_image(out).std() > 10

    decoder, votes, sizes = votes_of(trained, scene)
    factor = 64 // sizes[0][0]
    assert result['output'] == (y // factor, x // factor)
    strides = [
        2 if fine[0] > coarse[0] else 1 for fine, coarse in zip(sizes, sizes[1:])
    ]
    step = decoder.steps[0]
    expected = chain_gradients(
        votes,
        result['output'],
        sizes,
        strides,
        step.kernel_size,
        step.groups,
        step.formulation,
        2 * result['group'],  # the first of two channels of its group
    )
    labels = load_inferencer(*trained, 'cpu').predict(scene).pred_sem_seg.data[0]
    label = int(labels[y, x])
    assert result['group'] == (label if 'groups' in head else 0)
    assert len(result['levels']) == len(decoder.steps)
    stride = 1
    for (level, total, weights), gradient, one in zip(
        result['levels'], expected, strides, strict=True
    ):
        stride *= one
        assert (total, level) == (stride, level)
        wanted = gradient[0, 2 * result['group']].numpy()
        assert weights == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_padding_is_no_part_of_the_image(street, scene, tmp_path):
    """The network's input may be padded, on the right and below."""
    base = 'pvd/pvd_r18-stage-c32_1xb2-600_street-192x256.py'
    text = SEGMENTOR.format(base=base, head='', root=str(street))
    trained = make(
        tmp_path,
        'padded',
        text + 'model["data_preprocessor"]["test_cfg"] = dict(size=(96, 256))\n',
    )
    out = tmp_path / 'votes.png'
    result = draw_votes(*trained, scene, (127, 63), str(out), device='cpu')
    _, _, sizes = votes_of(trained, scene)
    assert sizes[0] == (96 // 4, 256 // 4)
    assert result['output'] == (63 // 4, 127 // 4)


def test_a_pixel_that_nobody_votes_for(tmp_path):
    """With a stride as large as the window there are some at the border."""
    votes = [torch.rand(1, 9, 3, 3), torch.rand(1, 9, 3, 3)]
    found = follow_votes(votes, (8, 8), (9, 9), [3, 1])
    levels = [Level(i, 3, weights[0].numpy()) for i, weights in enumerate(found, 1)]
    assert not any(level.weights.any() for level in levels)
    out = tmp_path / 'none.png'
    _draw(np.zeros((36, 36, 3)), (9, 9), (33, 33), 'road', (8, 8), levels, out)
    assert read_image(out).shape[0] > 100


def test_the_tool(segmentor, scene, tmp_path):
    out = tmp_path / 'votes.png'
    options = ('--out', out, '--device', 'cpu')
    words = ('draw_votes', *segmentor, scene, '--pixel', 9, 9, *options)
    said = tool(*words)
    assert out.is_file() and said.endswith(f'Picture: {out}\n')
    assert 'Pixel 9 9 is predicted as ' in said and 'M_4' not in said
    said = tool(*words, '--force', '--verbose')
    assert 'row 2, column 2' in said
    assert re.search(r'^\| M_4 +\| +2x4 \| +8 \| ', said, re.M)
    said = tool('draw_votes', *segmentor, scene, '--pixel', 9, 9, *options, ok=False)
    assert 'exists already' in said and 'Traceback' not in said


def test_mistakes(segmentor, baseline, detector, scene, tmp_path):
    out = str(tmp_path / 'votes.png')
    for trained, pixel, message, options in (
        (segmentor, (128, 0), '128 pixels wide and 64 high', {}),
        (segmentor, (0, -1), 'the pixel is 0 -1', {}),
        (segmentor, (0, 0), 'group is 1; the decoder has 1', dict(group=1)),
        (baseline, (0, 0), 'has no PVDHead', {}),
        (detector, (0, 0), 'is a detector', {}),
    ):
        with pytest.raises(UserError, match=message):
            draw_votes(*trained, scene, pixel, out, device='cpu', **options)
    with pytest.raises(UserError, match='has to end in .png'):
        draw_votes(*segmentor, scene, (0, 0), str(tmp_path / 'votes'))
    with pytest.raises(UserError, match='is no image'):
        draw_votes(*segmentor, segmentor.config, (0, 0), out)
    Image.new('RGB', (4, 4)).save(out)
    with pytest.raises(UserError, match='exists already'):
        draw_votes(*segmentor, scene, (0, 0), out)
    draw_votes(*segmentor, scene, (0, 0), out, force=True, device='cpu')
    assert read_image(out).shape[0] > 100
