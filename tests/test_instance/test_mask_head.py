# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The mask head against the decoder on slices, and on mmdet's contracts."""

from types import SimpleNamespace

import mmdet.models  # noqa: F401 - registers mmdet's models
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmcv.ops import roi_align
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.registry import MODELS
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from helpers.commands import ROOT
from pvd_mm.decoder import PixelVotingDecoder
from pvd_mm.instance import PVDMaskHead
from pvd_mm.ops import upsampling_kernel

CLASSES = 3
C4 = dict(in_channels=[4, 5, 6, 7])
# from the stem's convolution on: the strides are 2, 4, 4, 8, 16, 32
FPN = dict(
    in_channels=[4, 5, 5, 6, 7, 8],
    decoder=dict(strides=[2, 1, 2, 2, 2]),
    finest_stride=2,
)


@pytest.fixture(autouse=True)
def _scope():
    torch.manual_seed(0)
    init_default_scope('mmdet')


def mask_head(base=C4, start=False, dtype=torch.double, decoder=None, **kwargs):
    """At random weights, or as before training but for what is fused in."""
    decoder = {**dict(vote_channels=3), **base.get('decoder', {}), **(decoder or {})}
    head = PVDMaskHead(
        **{**dict(num_classes=CLASSES), **base, **kwargs, 'decoder': decoder}
    ).to(dtype)
    for name, parameter in head.named_parameters():
        if not start:
            torch.nn.init.normal_(parameter, std=0.3)
        elif 'fuse' in name:
            torch.nn.init.zeros_(parameter)
    return head


def image_maps(head, size=(256, 256), number=2, dtype=torch.double):
    return [
        torch.randn(
            number, channels, *(-(-side // stride) for side in size), dtype=dtype
        )
        for channels, stride in zip(head.decoder.in_channels, head.map_strides)
    ]


def boxes(*rows):
    """Image, corner, side."""
    return torch.tensor(
        [[i, x, y, x + side, y + side] for i, x, y, side in rows], dtype=torch.double
    )


def primary_of(rois, head):
    return torch.randn(len(rois), head.decoder.channels, 7, 7, dtype=torch.double)


def inside_of(rois, head):
    """What a shared head makes of RoIs."""
    return tuple(
        torch.randn(len(rois), channels, side, side, dtype=torch.double)
        for channels, side in zip(head.decoder.in_channels[-2:], (14, 7))
    )


def starts_at(rois, level):
    return torch.full((len(rois),), level)


def upsampled(mask, strides):
    """torch's own transposed convolution, step by step."""
    channels = mask.size(1)
    for stride in strides:
        kernel = upsampling_kernel(3, stride).to(mask)
        mask = F.conv_transpose2d(
            mask,
            kernel.reshape(1, 1, 3, 3).expand(channels, 1, 3, 3),
            stride=stride,
            padding=1,
            output_padding=stride - 1,
            groups=channels,
        )
    return mask


ANYWHERE = [
    (0, 3.3, 8.0, 31.0),
    (1, 100.2, 9.9, 140.0),
    (1, 0.0, 0.0, 256.0),
    (0, 239.0, 240.5, 15.0),
]


@pytest.mark.parametrize('votes_from', ('image', 'roi'))
def test_maps_that_were_rounded_down(votes_from):
    """Pixels that an encoder leaves out at the edge change nothing inside."""
    head = mask_head(votes_from=votes_from)
    maps = image_maps(head, (250, 250))
    assert [z.size(-1) for z in maps] == [63, 32, 16, 8]
    rois = boxes((0, 40.0, 50.0, 90.0), (1, 70.0, 33.0, 64.0))
    primary = primary_of(rois, head)
    expected = head(primary, rois, 3, maps)
    cut = [z[..., :side, :side] for z, side in zip(maps, (62, 31, 15, 7))]
    for found, mask in zip(head(primary, rois, 3, cut), expected):
        torch.testing.assert_close(found, mask)


@pytest.mark.parametrize('votes_from', ('image', 'roi'))
def test_starts_as_upsampling(votes_from):
    """Anywhere, of any size: a constant is cropped to itself."""
    rois = boxes(*ANYWHERE)
    head = mask_head(FPN, start=True, votes_from=votes_from)
    primary = primary_of(rois, head)
    maps = image_maps(head)
    for start, strides in {
        5: [(2, 2, 2), (2, 2), (2,)],
        4: [(2, 2, 1, 2), (2, 2, 1), (2,)],
        3: [None, (2, 1, 2), (2, 1)],
        2: [None, None, (1, 2)],
    }.items():
        masks = head(primary, rois, starts_at(rois, start), maps)
        assert [y.size(-1) for y in masks] == [56, 28, 14, 7]
        finest = masks[strides.count(None)]
        for mask, steps in zip(masks, strides):
            torch.testing.assert_close(
                mask,
                upsampled(primary, steps)
                if steps
                else F.interpolate(finest, mask.shape[2:], mode='bilinear'),
            )


def slices(maps, head, roi):
    """Maps at a RoI that lies on their pixels."""
    image, x, y, _, _ = roi.long().tolist()
    side = int(roi[3] - roi[1])
    return [
        z[image : image + 1, :, y // s : (y + side) // s, x // s : (x + side) // s]
        for z, s in zip(maps, head.map_strides)
    ]


@pytest.mark.parametrize('votes_from', ('image', 'roi'))
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(decoder=dict(groups=CLASSES, vote_norm='softmax')),
        dict(decoder=dict(kernel_size=5)),
        dict(decoder=dict(formulation='factored')),
        dict(class_agnostic=True),
        dict(decoder=dict(upsampling='bilinear')),
    ],
)
def test_on_the_pixel_grid_cropping_is_slicing(votes_from, options):
    """g = 1: the decoder of the semantic head, on a slice of the maps."""
    head = mask_head(FPN, votes_from=votes_from, sampling_ratio=1, **options)
    maps = image_maps(head)
    # sides of 7 pixels of C2, C3, C4 and C5, on whole pixels of theirs
    rois = boxes(
        (1, 64, 32, 28),
        (0, 8, 200, 28),
        (1, 104, 8, 56),
        (0, 32, 128, 112),
        (1, 32, 0, 224),
    )
    starts = torch.tensor([2, 2, 3, 4, 5])
    # which is where start_level='size' has them start
    assert torch.equal(head.levels_of_size(rois, [0, 2, 3, 4, 5], False), starts)
    first_maps = {5: 2, 4: 0, 3: 0, 2: 0}
    primary = primary_of(rois, head)
    masks = head(primary, rois, starts, maps)
    for i, (roi, start) in enumerate(zip(rois, starts)):
        cut = slices(maps, head, roi)
        first = first_maps[int(start)]
        cut = cut[first : start + 1]
        expected = head.decoder.decode(
            head.decoder.contexts(cut[1:], first),
            head.decoder.votes(cut, first),
            primary[i : i + 1],
            cut[0].shape[2:],
            first,
        )
        by_side = {}
        for y in expected:  # the finest of a side
            by_side.setdefault(y.size(-1), y)
        for mask in masks:
            if mask.size(-1) in by_side:
                torch.testing.assert_close(mask[i : i + 1], by_side[mask.size(-1)])
        assert max(by_side) == {2: 14, 3: 28, 4: 56, 5: 56}[int(start)]


# the same, and the image
FINE = dict(
    in_channels=[3, 4, 5, 5, 6, 7, 8],
    decoder=dict(strides=[2, 2, 1, 2, 2, 2]),
    finest_stride=1,
)


@pytest.mark.parametrize(
    'base,inside,mask_size,levels',
    [
        (FINE, False, 56, [4, 5, 6]),
        (FINE, False, 28, [3, 4, 5, 6]),
        (FINE, True, 56, [3, 4, 5]),
        (FPN, False, 56, [4, 5]),
        (C4, True, 56, [2]),
        (C4, False, 14, [1, 2, 3]),
    ],
)
def test_levels_that_rois_of_some_size_start_at(base, inside, mask_size, levels):
    """Cells and pixels differ by a root of two at most, where a level is
    there; larger and smaller RoIs take the last one."""
    head = mask_head(base, mask_size=mask_size)
    assert head.start_levels(inside) == levels
    strides = [head.map_strides[level] for level in levels]
    _, side = head.entry(inside)
    sizes = torch.tensor(
        [1e-3, 5.0, 20.0, 30.0, 45.0, 70.0, 110.0, 160.0, 230.0, 600.0]
    )
    x, zero = torch.tensor(7.3), torch.zeros(len(sizes))
    # twice as wide as high, of that area
    rois = torch.stack(
        [zero, x + zero, x + zero, x + sizes * 2**0.5, x + sizes * 0.5**0.5], 1
    )
    found = head.levels_of_size(rois, levels, inside).tolist()
    for size, level in zip(sizes.tolist(), found):
        ratio = size / side / head.map_strides[level]
        if strides[0] <= size / side <= strides[-1]:
            assert 0.5**0.5 <= ratio * 1.0001 and ratio <= 2**0.5 * 1.0001
        else:
            assert level == (levels[0] if ratio < 1 else levels[-1])
    assert found == sorted(found) and set(found) == set(levels)
    none = head.levels_of_size(rois[:0], levels, inside)
    assert none.shape == (0,) and none.dtype == torch.long


def test_one_level_for_all_or_for_each():
    head = mask_head(FPN)
    rois, maps = boxes(*ANYWHERE), image_maps(head)
    primary = primary_of(rois, head)
    for one, each in zip(
        head(primary, rois, 5, maps), head(primary, rois, starts_at(rois, 5), maps)
    ):
        assert torch.equal(one, each)


@pytest.mark.parametrize('votes_from', ('image', 'roi'))
@pytest.mark.parametrize(
    'mask_size,in_channels', [(56, [4, 5, 6, 7]), (28, [5, 6, 7]), (14, [6, 7])]
)
def test_the_last_step_inside_the_roi(votes_from, mask_size, in_channels):
    head = mask_head(
        in_channels=in_channels,
        mask_size=mask_size,
        votes_from=votes_from,
        finest_stride=4 * 56 // mask_size,
        sampling_ratio=1,
    )
    maps = image_maps(head)[:-1]
    rois = boxes((1, 32, 0, 224), (0, 16, 16, 224))
    inside = inside_of(rois, head)
    primary = primary_of(rois, head)
    masks = head(primary, rois, head.top - 1, maps, inside)
    assert [y.size(-1) for y in masks] == [
        side for side in (56, 28, 14, 7) if side <= mask_size
    ]
    for i, roi in enumerate(rois):
        cut = slices(maps, head, roi)
        votes = head.decoder.votes(cut) if cut[1:] else []
        votes += head.decoder.votes([z[i : i + 1] for z in inside], head.top - 1)
        expected = head.decoder.decode(
            head.decoder.contexts([*cut[1:], inside[1][i : i + 1]]),
            votes,
            primary[i : i + 1],
            (mask_size, mask_size),
        )
        for mask, y in zip(masks, expected):
            torch.testing.assert_close(mask[i : i + 1], y)


@pytest.mark.parametrize('base,level', [(C4, 3), (FPN, 4)])
def test_where_votes_come_from_does_not_matter_on_the_grid(base, level):
    heads = [
        mask_head(base, votes_from=choice, sampling_ratio=1)
        for choice in ('image', 'roi')
    ]
    heads[1].load_state_dict(heads[0].state_dict())
    side = 7 * heads[0].map_strides[level]
    maps = image_maps(heads[0])
    primary = primary_of([0], heads[0])

    def decode(*roi):
        rois = boxes(roi)
        return [head(primary, rois, starts_at(rois, level), maps)[0] for head in heads]

    torch.testing.assert_close(*decode(1, 32, 0, side))
    off_grid = decode(1, 30, 3, side / 1.7)
    assert (off_grid[0] - off_grid[1]).abs().max() > 1e-3


@pytest.mark.parametrize('votes_from', ('image', 'roi'))
@pytest.mark.parametrize('inside', (False, True))
def test_rois_are_on_their_own(votes_from, inside):
    """Order, other RoIs and other images change nothing."""
    head = mask_head(C4 if inside else FPN, votes_from=votes_from)
    maps = image_maps(head)[: -1 if inside else None]
    rois = boxes(*ANYWHERE, (0, 50.5, 60.5, 41.0))
    primary = primary_of(rois, head)
    starts = starts_at(rois, 2) if inside else torch.tensor([3, 5, 4, 3, 2])
    roi_maps = inside_of(rois, head) if inside else None

    def masks(which, maps=maps):
        return head(
            primary[which],
            rois[which],
            starts[which],
            maps,
            roi_maps and tuple(z[which] for z in roi_maps),
        )

    every = masks(torch.arange(5))
    order = torch.tensor([3, 0, 4, 2, 1])
    for y, permuted in zip(every, masks(order)):
        torch.testing.assert_close(permuted, y[order])
    for i in range(5):
        alone = torch.tensor([i])
        own = [z.clone() for z in maps]
        for z in own:
            z[1 - rois[i, 0].long()] = 99.0
        for y, single in zip(every, masks(alone, own)):
            torch.testing.assert_close(single, y[alone])


EXTENSIONS = [
    dict(vote_conv_size=3, fuse_conv_size=3),
    dict(upsampling='carafe'),
    dict(upsampling='dysample'),
    dict(fuse_channels=4),
    dict(upsampling='bilinear'),
    dict(norm_cfg=dict(type='GN', num_groups=1)),
]


@pytest.mark.parametrize('options', EXTENSIONS)
@pytest.mark.parametrize('inside', (False, True))
def test_extensions_of_the_decoder(options, inside):
    """A constant stays one as before training; every parameter learns."""
    head = mask_head(
        C4 if inside else FPN, start=True, dtype=torch.float, decoder=options
    )
    maps = [z.float() for z in image_maps(head)[: -1 if inside else None]]
    rois = boxes((0, 100.2, 9.9, 140.0)).float()
    roi_maps = inside_of(rois, head) if inside else None
    roi_maps = roi_maps and tuple(z.float() for z in roi_maps)
    for number in (1, 0):
        primary = torch.ones(number, CLASSES, 7, 7)
        starts = starts_at(rois[:number], 2 if inside else 5)
        masks = head(
            primary,
            rois[:number],
            starts,
            maps,
            roi_maps and tuple(z[:number] for z in roi_maps),
        )
        assert [y.shape for y in masks] == [
            (number, CLASSES, side, side) for side in (56, 28, 14, 7)
        ]
        for y in masks:
            assert y.isfinite().all()
            if options.get('upsampling') != 'carafe':  # it pads by zeros
                # not the last row and column, see fidelity.md
                y = y[..., : y.size(-1) // 2, : y.size(-1) // 2]
                torch.testing.assert_close(y, torch.ones_like(y))
        head.zero_grad()
        sum(y.square().sum() for y in masks).backward()
        assert all(p.grad is not None for p in head.parameters())


@pytest.mark.parametrize('votes_from', ('image', 'roi'))
@pytest.mark.parametrize(
    'rois',
    [
        boxes(*ANYWHERE),
        boxes(),
        boxes((0, 5, 5, 0.0)),
        boxes((1, 400, 0, 50)),
        boxes((1, -30, -20, 60)),
        boxes((0, 0, 0, 250), (0, 201, 0, 2)),
    ],
)
def test_any_roi_and_odd_sizes(rois, votes_from):
    rois = rois.reshape(-1, 5)
    head = mask_head(FPN, votes_from=votes_from, coarse_loss_weight=1.0)
    maps = image_maps(head, (250, 203))
    for training in (True, False):
        head.train(training)
        masks = head(primary_of(rois, head), rois, starts_at(rois, 4), maps)
        assert [y.shape for y in masks] == [
            (len(rois), CLASSES, side, side) for side in (56, 28, 14, 7)
        ]
        assert all(y.isfinite().all() for y in masks)


@pytest.mark.parametrize('votes_from', ('image', 'roi'))
@pytest.mark.parametrize('inside', (False, True))
@pytest.mark.parametrize('number', (0, 1))
def test_every_parameter_has_a_gradient(votes_from, inside, number):
    """Without any RoI as well, or processes would wait for each other."""
    head = mask_head(C4 if inside else FPN, votes_from=votes_from)
    maps = [z.requires_grad_() for z in image_maps(head)[: -1 if inside else None]]
    rois = boxes((0, 20.5, 30.0, 100.0), (0, 20.5, 30.0, 100.0))[: 2 * number]
    primary = primary_of(rois, head).requires_grad_()
    starts = torch.tensor([2, 2] if inside else [4, 5])[: 2 * number]
    masks = head(primary, rois, starts, maps, inside_of(rois, head) if inside else None)
    masks[0].square().sum().backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad is not None, name
        assert not number or parameter.grad.any(), name
    assert primary.grad is not None
    assert all(z.grad is not None for z in maps)


def test_gradients():
    head = mask_head(
        dict(in_channels=[2, 2, 2]),
        num_classes=2,
        mask_size=28,
        decoder=dict(vote_channels=2),
    )
    maps = [z.requires_grad_() for z in image_maps(head, (32, 24), 1)]
    rois = boxes((0, 2.3, 3.1, 20.0))
    primary = primary_of(rois, head).requires_grad_()
    weight = head.decoder.steps[1].association.conv_out.conv.weight

    def masks(primary, weight, *maps):
        return head(primary, rois, starts_at(rois, 2), maps)[0].sum((0, 2, 3))

    assert torch.autograd.gradcheck(masks, (primary, weight, *maps), fast_mode=True)


@pytest.mark.parametrize('channels', (None, CLASSES))
@pytest.mark.parametrize('low', (torch.float, torch.bfloat16))
def test_lower_precision(low, channels):
    """float, and bfloat16 as training under autocast has it."""
    head = mask_head(FPN, channels=channels)
    maps = image_maps(head)
    rois = boxes(*ANYWHERE)
    labels = torch.tensor([2, 0, 1, 1])
    primary = primary_of(rois, head)
    starts = torch.tensor([3, 5, 4, 2])
    expected = head(primary, rois, starts, maps, labels=labels)[0]
    with torch.autocast('cpu', torch.bfloat16, enabled=low == torch.bfloat16):
        masks = head.float()(
            primary.to(low),
            rois.float(),
            starts,
            [z.to(low) for z in maps],
            labels=labels,
        )[0]
    assert masks.dtype == torch.float
    error = (masks - expected).abs().max() / expected.abs().max()
    assert error < (1e-5 if low == torch.float else 0.05)
    masks.sum().backward()


@pytest.mark.parametrize(
    'changes,message',
    [
        (
            dict(mask_size=48),
            r'mask_size must be a side .* roi_feat_size=7 by the '
            r'strides \[2, 2, 2\] lead to, at most 56, but got 48',
        ),
        (dict(mask_size=112), 'at most 56, but got 112'),
        (dict(roi_feat_size=8), 'at most 64, but got 56'),
        (dict(decoder=dict(strides=[2, 2])), 'one entry for each of the 3 steps'),
        (dict(decoder=dict(strides=[2, 4, 2])), 'stride'),
        (dict(in_channels=[4]), 'at least two maps'),
        (dict(finest_stride=0), 'finest_stride must be .* but got 0'),
        (dict(votes_from='images'), "votes_from must be .*'image'.*'images'"),
        (dict(channels=0), 'channels must be .* 0'),
        (dict(feature_channels=9), 'set channels, too, or .* feature_channels=9'),
        (dict(channels=4, num_convs=2), 'num_convs=2 .* set feature_channels, too'),
        (dict(num_convs=-1), 'num_convs must be at least 0, but got -1'),
        (dict(coarse_loss_weight=-1), 'coarse_loss_weight must not be negative'),
        (dict(decoder=dict(formulation='exactly')), 'formulation'),
    ],
)
def test_arguments_that_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        mask_head(**changes)


def test_an_old_config_is_told_the_new_one():
    old = dict(strides=[2, 1, 2], norm_cfg=dict(type='BN'))
    with pytest.raises(TypeError) as error:
        PVDMaskHead([4, 5, 6, 7], **old, decoder=dict(groups=3))
    assert str(error.value) == (
        'PVDMaskHead takes the arguments of its decoder in one dict. In place of\n'
        "    strides=[2, 1, 2], norm_cfg={'type': 'BN'}\n"
        'write\n'
        "    decoder=dict(groups=3, strides=[2, 1, 2], norm_cfg={'type': 'BN'})"
    )
    with pytest.raises(TypeError, match='PVDMaskHead got .* arguments: roi_feat, x'):
        PVDMaskHead([4, 5, 6, 7], roi_feat=7, x=1)
    with pytest.raises(ValueError, match='decoder must not name channels'):
        PVDMaskHead([4, 5, 6, 7], decoder=dict(channels=3))


@pytest.mark.parametrize('strides', (None, [2, 2, 2]))
def test_strides_are_2_unless_they_are_given(strides):
    assert mask_head(decoder=dict(strides=strides)).map_strides == [4, 8, 16, 32]


def test_a_decoder_of_ones_own():
    @MODELS.register_module(force=True)
    class Mine(PixelVotingDecoder):
        pass

    assert type(mask_head(decoder=dict(type='Mine')).decoder) is Mine


def test_a_checkpoint_of_before_the_decoder_had_a_dict():
    """Written by PVDMaskHead with these arguments, with random weights in all."""
    old = torch.load(ROOT / 'tests/data/pvd_mask_head.pth')
    head = PVDMaskHead(
        [4, 5, 6, 7],
        num_classes=3,
        mask_size=14,
        finest_stride=8,
        decoder=dict(
            strides=[1, 1, 2],
            vote_channels=3,
            vote_norm='softmax',
            norm_cfg=dict(type='GN', num_groups=1),
        ),
    )
    head.load_state_dict(old['state_dict'])
    generator = torch.Generator().manual_seed(old['seed'])
    sizes = [(16, 12)] * 3 + [(8, 6)]
    maps = [
        torch.randn(2, channels, *size, generator=generator)
        for channels, size in zip(head.decoder.in_channels, sizes)
    ]
    primary = torch.randn(2, 3, 7, 7, generator=torch.Generator().manual_seed(3))
    rois = torch.tensor([[0, 3.3, 8.0, 60.0, 81.0], [1, 20.0, 9.9, 90.0, 120.0]])
    with torch.no_grad():
        masks = head(primary, rois, 3, maps)
    torch.testing.assert_close(masks[0], old['output'])


def test_maps_that_are_refused():
    head, rois = mask_head(), boxes(*ANYWHERE)
    maps = image_maps(head)
    arguments = primary_of(rois, head), rois, starts_at(rois, 3)
    for wrong in (maps[1:], maps[::-1]):
        with pytest.raises(
            ValueError,
            match=r'in_channels=\[4, 5, 6, 7\] .*'
            r'have \[.*\] channels',
        ):
            head(*arguments, wrong)
    with pytest.raises(ValueError, match=r'maps, which have \[5, 6, 7\]'):
        head(*arguments, maps[1:], inside_of(rois, head))
    with pytest.raises(ValueError, match=r'and that of the RoI, .*\[4, 5, 6, 6\]'):
        head(*arguments, maps[:-1], inside_of(rois, head)[::-1])
    finer = [torch.randn(2, 9, 512, 512), *maps]
    assert torch.equal(head(*arguments, finer)[0], head(*arguments, maps)[0])
    with pytest.raises(ValueError, match=r'stride 5.*\[4, 8, 16, 32\]'):
        head.level_of(5)


def sampled(*positives):
    """Sampling results as far as mask heads read them, and annotations."""
    results, truths = [], []
    y, x = np.mgrid[:64, :80]
    masks = np.stack([(x < 40), (y < 40)]).astype(np.uint8)
    for rows in positives:
        rows = torch.tensor(rows, dtype=torch.float).reshape(-1, 6)
        results.append(
            SimpleNamespace(
                pos_priors=rows[:, :4],
                pos_assigned_gt_inds=rows[:, 4].long(),
                pos_gt_labels=rows[:, 5].long(),
            )
        )
        truths.append(InstanceData(masks=BitmapMasks(masks, 64, 80)))
    return results, truths


POSITIVES = [[0, 0, 80, 64, 0, 2], [20, 20, 60, 60, 1, 0]], []


# What makes a mask per class, and what one per RoI
DECODED = [
    dict(),
    dict(class_agnostic=True),
    dict(channels=5),
    dict(channels=5, class_agnostic=True),
]


@pytest.mark.parametrize('inside', (False, True))
@pytest.mark.parametrize('agnostic', (False, True))
@pytest.mark.parametrize('features,convs', [(None, 0), (9, 0), (9, 2)])
def test_an_embedding_is_classified_for_the_label(features, convs, agnostic, inside):
    """The convolutions of all classes, of which the label's is taken."""
    head = mask_head(
        C4 if inside else FPN,
        channels=4,
        feature_channels=features,
        num_convs=convs,
        class_agnostic=agnostic,
    )
    # what decodes as many classes, by the same votes
    plain = mask_head(C4 if inside else FPN, num_classes=4)
    plain.decoder.load_state_dict(head.decoder.state_dict())
    rois = boxes(*ANYWHERE)
    labels = torch.tensor([2, 0, 1, 2])
    maps = image_maps(head)
    roi_maps = inside_of(rois, head) if inside else None
    if inside:
        maps = maps[:-1]
    starts = starts_at(rois, len(maps) - 1)
    width = features or (1 if agnostic else CLASSES)
    primary = torch.randn(4, width, 7, 7, dtype=torch.double)
    found = head(primary, rois, starts, maps, roi_maps, labels)
    layers = [module.conv for module in (*head.convs, head.embed)]
    assert [conv.kernel_size for conv in layers] == [(3, 3)] * convs + [(1, 1)]
    embedded = primary
    for conv in layers:
        padding = conv.kernel_size[0] // 2
        embedded = F.conv2d(embedded, conv.weight, conv.bias, padding=padding).relu()
    decoded = plain(embedded, rois, starts, maps, roi_maps)
    weight, bias = head.classifier.weight, head.classifier.bias
    assert weight.shape == (1 if agnostic else CLASSES, 4, 1, 1)
    for masks, y in zip(found, decoded, strict=True):
        logits = F.conv2d(y, weight, bias)
        rows = torch.zeros_like(labels) if agnostic else labels
        torch.testing.assert_close(masks, logits[range(4), rows][:, None])
    images = head.image_features(maps, inside)
    again = head(primary, rois, starts, images, roi_maps, labels)
    for masks, other in zip(found, again, strict=True):
        assert torch.equal(masks, other)
    if not agnostic:
        with pytest.raises(TypeError, match='give it labels'):
            head(primary, rois, starts, maps, roi_maps)


@pytest.mark.parametrize('channels', DECODED)
def test_losses(channels):
    head = mask_head(**channels, coarse_loss_weight=0.25, dtype=torch.float)
    results, truths = sampled(*POSITIVES)
    agnostic = bool(channels)
    channels = 1 if agnostic else CLASSES
    masks = [torch.randn(2, channels, side, side) for side in (56, 28, 14, 7)]
    found = head.loss_and_target(masks, results, truths, ConfigDict())
    losses = found['loss_mask']
    assert list(losses) == ['loss_mask', 'loss_mask_28', 'loss_mask_14', 'loss_mask_7']
    assert found['mask_targets'].shape == (2, 56, 56)
    # the left half; the upper half of the second box
    assert found['mask_targets'][0, :, :28].all()
    assert not found['mask_targets'][0, :, 28:].any()
    assert found['mask_targets'][1, :28].all()
    for y, name, weight in zip(masks, losses, (1, 0.25, 0.25, 0.25)):
        # boxes that edges of cells divide: mmdet's own targets of that side
        cfg = ConfigDict(mask_size=y.size(-1))
        targets = head.get_targets(results, truths, cfg)
        if y.size(-1) == 7:  # an edge in the middle of a cell: mmdet samples it
            targets = F.avg_pool2d(found['mask_targets'], 8).ge(0.5).float()
        chosen = y[:, 0] if agnostic else y[[0, 1], [2, 0]]
        torch.testing.assert_close(
            losses[name].squeeze(),
            weight * F.binary_cross_entropy_with_logits(chosen, targets),
        )
    # the finest alone, as FCNMaskHead takes it
    plain = head.loss_and_target(masks[0], results, truths, ConfigDict(mask_size=56))[
        'loss_mask'
    ]
    assert plain == dict(loss_mask=losses['loss_mask'])


def test_targets_are_mmdets():
    """However many RoIs there are, of whichever image; cropped a few at a time."""
    head = mask_head(dtype=torch.float)
    x, y = torch.rand(2, 30) * 40
    corners = torch.stack([x, y, x + 5 + 20 * torch.rand(30), y + 20], 1)
    about = torch.randint(0, 2, (30, 2)).float()
    rows = torch.cat([corners, about], 1).tolist()
    arguments = *sampled(rows[:19], [], rows[19:]), ConfigDict(mask_size=28)
    expected = FCNMaskHead.get_targets(head, *arguments)
    assert expected.shape == (30, 28, 28) and 0 < expected.mean() < 1
    assert torch.equal(head.get_targets(*arguments), expected)


def test_losses_without_positives():
    head = mask_head(coarse_loss_weight=1.0, dtype=torch.float)
    results, truths = sampled([], [])
    masks = [
        torch.zeros(0, CLASSES, side, side, requires_grad=True)
        for side in (56, 28, 14, 7)
    ]
    losses = head.loss_and_target(masks, results, truths, ConfigDict())['loss_mask']
    assert len(losses) == 4 and all(v == 0 for v in losses.values())
    sum(losses.values()).backward()


def test_targets_of_another_size_are_refused():
    head = mask_head(dtype=torch.float)
    with pytest.raises(ValueError, match='mask_size=28 .* mask_size=56'):
        head.loss_and_target(
            torch.zeros(2, CLASSES, 56, 56),
            *sampled(*POSITIVES),
            ConfigDict(mask_size=28),
        )


@pytest.mark.parametrize('rescale', (False, True))
@pytest.mark.parametrize('channels', DECODED)
def test_masks_are_pasted_into_the_image(rescale, channels):
    """The left half of every box, of its label."""
    head = mask_head(**channels, dtype=torch.float)
    agnostic = bool(channels)
    labels = torch.tensor([2, 0])
    masks = torch.full((2, 1 if agnostic else CLASSES, 56, 56), -9.0)
    masks[[0, 1], 0 if agnostic else labels, :, :28] = 9.0
    found = [
        InstanceData(
            bboxes=torch.tensor([[8.0, 8.0, 40.0, 24.0], [0.0, 0.0, 80.0, 60.0]]),
            scores=torch.ones(2),
            labels=labels,
        ),
        InstanceData(
            bboxes=torch.zeros(0, 4),
            scores=torch.zeros(0),
            labels=torch.zeros(0, dtype=torch.long),
        ),
    ]
    metas = [dict(ori_shape=(30, 40), img_shape=(60, 80), scale_factor=(2.0, 2.0))] * 2
    result = head.predict_by_feat(
        (masks, masks[:0]), found, metas, ConfigDict(mask_thr_binary=0.5), rescale
    )
    scale = 1 if rescale else 2
    assert result[0].masks.shape == (2, 30 * scale, 40 * scale)
    assert len(result[1].masks) == 0
    expected = torch.zeros(2, 30 * scale, 40 * scale, dtype=torch.bool)
    expected[0, 4 * scale : 12 * scale, 4 * scale : 12 * scale] = True
    expected[1, :, : 20 * scale] = True
    assert torch.equal(result[0].masks, expected)


@pytest.mark.parametrize('images', (1, 3))
def test_cells_are_sampled_as_roi_align_does(images):
    """One sample for each cell on a CPU, mmcv's operator as the oracle, with the
    gradients of maps; RoIs of any order, and an image without one."""
    head = mask_head(sampling_ratio=1, dtype=torch.float)
    x = torch.randn(images, 5, 20, 24, requires_grad=True)
    x1, y1 = torch.rand(9) * 40, torch.rand(9) * 30
    boxes = torch.stack([x1, y1, x1 + 10 + 30 * torch.rand(9), y1 + 45], 1)
    owner = torch.tensor([2, 0, 2, 0, 0, 2, 2, 0, 2]).clamp(max=images - 1)
    rois = torch.cat([owner[:, None], boxes], 1)
    level, side = 1, 14
    scale = 1 / head.map_strides[level]
    found = head._crop(x, rois, level, side)
    expected = roi_align(x, rois, (side, side), scale, 1, 'avg', True)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    weight = torch.randn_like(found)
    gradients = [torch.autograd.grad((y * weight).sum(), x) for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)
