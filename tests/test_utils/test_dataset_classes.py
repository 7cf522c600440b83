# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Heads of mmseg and mmdet against the classes of their data."""

from types import SimpleNamespace

import pytest
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import pvd_mm
from pvd_mm.utils.dataset_classes import compare_classes

pvd_mm.register_all_modules()

NAMES = ('disc', 'ring', 'frame')


def data(classes=NAMES, **attributes):
    metainfo = dict(classes=classes) if classes else {}
    metainfo.update(attributes.pop('metainfo', {}))
    return SimpleNamespace(metainfo=metainfo, **attributes)


def model(scope, **heads):
    """A module with these heads, of their registry."""
    with DefaultScope.overwrite_default_scope(scope):
        parts = {
            name: nn.ModuleList(map(MODELS.build, head))
            if isinstance(head, list)
            else MODELS.build(head)
            for name, head in heads.items()
        }
    return nn.ModuleDict(parts)


def fcn(num_classes, **options):
    return dict(
        type='FCNHead', in_channels=4, channels=4, num_classes=num_classes, **options
    )


def box(num_classes):
    return dict(type='Shared2FCBBoxHead', fc_out_channels=4, num_classes=num_classes)


def mask(num_classes, **options):
    return dict(
        type='FCNMaskHead', num_convs=1, conv_out_channels=4, num_classes=num_classes
    ) | dict(options)


def fewer(*args):
    return [text.split(' ')[0] for text in compare_classes(*args)[0]]


def test_semantic_heads():
    segmentor = model(
        'mmseg', decode_head=fcn(2), auxiliary_head=[fcn(3), fcn(1, out_channels=1)]
    )
    wrong, other = compare_classes(segmentor, data())
    assert wrong == [
        'decode_head (FCNHead) has num_classes=2, but SimpleNamespace has 3 classes '
        '(disc, ring, frame)',
        'auxiliary_head.1 (FCNHead) has num_classes=1, but SimpleNamespace has 3 '
        'classes (disc, ring, frame)',
    ]
    assert not other
    cascade = model('mmseg', decode_head=[fcn(3), fcn(2)])
    assert fewer(cascade, data()) == ['decode_head.1']


def test_instance_heads():
    detector = model(
        'mmdet', bbox_head=[box(3), box(2), box(3)], mask_head=[mask(2), mask(3)]
    )
    assert fewer(detector, data()) == ['bbox_head.1', 'mask_head.0']


def test_what_may_differ():
    rpn = dict(type='RPNHead', in_channels=4, feat_channels=4)
    agnostic = mask(1, class_agnostic=True)
    stuff = dict(type='FusedSemanticHead', num_ins=1, fusion_level=0, num_classes=2)
    detector = model('mmdet', rpn_head=rpn, mask_head=agnostic, semantic_head=stuff)
    assert compare_classes(detector, data()) == ([], [])
    assert compare_classes(model('mmdet', bbox_head=rpn), data()) == ([], [])
    edges = dict(fcn(2), type='STDCHead', boundary_threshold=0.1)
    segmentor = model('mmseg', decode_head=fcn(3), auxiliary_head=edges)
    assert compare_classes(segmentor, data()) == ([], [])
    binary = model('mmseg', decode_head=fcn(2, out_channels=1, threshold=0.5))
    assert compare_classes(binary, data(('sound', 'crack'))) == ([], [])
    assert compare_classes(binary, data(None)) == ([], [])
    single = model('mmseg', decode_head=fcn(1, out_channels=1))
    assert compare_classes(single, data(('sound', 'crack'))) == ([], [])
    assert fewer(single, data()) == ['decode_head']
    panoptic = data(metainfo=dict(thing_classes=NAMES[:2]))
    assert compare_classes(model('mmdet', bbox_head=box(2)), panoptic) == ([], [])


def test_what_is_said_of_and_allowed():
    wrong, other = compare_classes(model('mmseg', decode_head=fcn(4)), data())
    assert not wrong and 'decode_head (FCNHead) has num_classes=4' in other[0]
    wrong, other = compare_classes(
        model('mmseg', decode_head=fcn(3)), data(ignore_index=254)
    )
    assert not wrong and other == [
        'decode_head (FCNHead) has ignore_index=255, but SimpleNamespace has 254'
    ]


@pytest.mark.parametrize(
    'wrap',
    [
        lambda part: SimpleNamespace(dataset=part),
        lambda part: SimpleNamespace(datasets=[data(NAMES[:2]), part]),
    ],
)
def test_wrapped_data(wrap):
    """As mmengine's wrappers name what they hold."""
    segmentor = model('mmseg', decode_head=fcn(2))
    assert fewer(segmentor, wrap(wrap(data()))) == ['decode_head']
    assert {'dataset'} <= set(RepeatDataset.__init__.__annotations__)
    assert {'datasets'} <= set(ConcatDataset.__init__.__annotations__)
