# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The RoI head: what it hands from the box head and the maps to the masks."""

import pytest
import torch
from mmcv.ops import roi_align
from mmdet.models.detectors import MaskRCNN
from mmdet.models.roi_heads import CascadeRoIHead, StandardRoIHead
from mmdet.structures.bbox import bbox2roi
from mmengine.structures import InstanceData
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.small_detectors import (
    BOXES,
    BY_SIZE,
    CLASSES,
    PER_CLASS,
    PVD,
    batch,
    detector,
    losses,
    sample,
)
from pvd_mm.instance import class_activation
from pvd_mm.instance.roi_head import RoIFeatures

C4, FPN = PVD


def maps_of(model, data=None):
    data = model.data_preprocessor(data or batch(), training=False)
    return model.extract_feat(data['inputs']), data['data_samples']


def stir(model):
    """Random weights where training starts at zero."""
    torch.manual_seed(1)
    for parameter in model.roi_head.mask_head.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


# smaller than 24 pixels: C2; than 48: C3; than 96: C4; else C5
SIZES = torch.tensor(
    [
        [3.0, 5, 20, 21],
        [30, 40, 65, 75],
        [9, 9, 80, 77],
        [0, 0, 112, 96],
        [50, 60, 66, 68],
    ]
)


@pytest.mark.parametrize(
    'changes',
    [
        dict(),
        {'roi_head.mask_head.class_agnostic': True},
        {
            'roi_head.mask_head.feature_channels': None,
            'roi_head.mask_head.num_convs': 0,
        },
        PER_CLASS,
        {**PER_CLASS, 'roi_head.mask_head.votes_from': 'roi'},
        {**PER_CLASS, 'roi_head.mask_head.class_agnostic': True},
    ],
)
@pytest.mark.parametrize('name', PVD)
def test_masks_are_decoded_features_or_class_activations(name, changes):
    model = stir(detector(name, **changes))
    head = model.roi_head
    x, _ = maps_of(model)
    rois = bbox2roi([SIZES, SIZES[:2] + 1])
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    with torch.no_grad():
        found = head._mask_forward(x, rois, labels)
        pooled = head.bbox_roi_extractor(x, rois)
        top = head.shared_head(pooled) if name == C4 else pooled
        agnostic = head.mask_head.class_agnostic
        primary = top
        if head.mask_head.feature_channels is None:
            primary = class_activation(
                head.bbox_head, top, labels if agnostic else None
            )
        starts = [2] * 7 if name == C4 else [3, 4, 5, 6, 3, 3, 4]
        expected = head.mask_head(
            primary,
            rois,
            torch.tensor(starts),
            x.encoder,
            (pooled, top) if name == C4 else None,
            labels,
        )
    assert [y.size(-1) for y in expected] == [56, 28, 14, 7]
    per_class = changes == dict(changes, **PER_CLASS) and not agnostic
    assert found['mask_preds'].shape == (7, CLASSES if per_class else 1, 56, 56)
    for y, again in zip(expected, found['all_preds']):
        torch.testing.assert_close(y, again)
    assert (expected[0][0] - expected[0][1]).abs().max() > 1e-3


@pytest.mark.parametrize(
    'name,starts',
    [
        # cells of 14 a side: 16 pixels, 8, and less than 4
        (C4, [5, 4, 3]),
        # cells of 7 a side: 32 pixels, 16, and less than 8
        (FPN, [6, 5, 4]),
    ],
)
def test_rois_start_where_their_size_says(name, starts):
    model = stir(detector(name, **BY_SIZE[name], **PER_CLASS))
    head = model.roi_head
    x, _ = maps_of(model, batch(sample((256, 256), BOXES)))
    rois = bbox2roi(
        [torch.tensor([[10.0, 10, 230, 230], [3, 20, 113, 130], [40, 50, 60, 75]])]
    )
    with torch.no_grad():
        found = head._mask_forward(x, rois)['mask_preds']
        pooled = head.bbox_roi_extractor(x[: head.bbox_roi_extractor.num_inputs], rois)
        top = head.shared_head(pooled) if name == C4 else pooled
        expected = head.mask_head(
            class_activation(head.bbox_head, top),
            rois,
            torch.tensor(starts),
            x.encoder,
            (pooled, top) if name == C4 else None,
        )[0]
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize('changes', [dict(), PER_CLASS])
@pytest.mark.parametrize('name', PVD)
def test_rois_are_decoded_in_chunks(name, changes):
    """Never more at a time than the limit, with the same masks."""
    model = stir(detector(name, **changes))
    head = model.roi_head
    x, _ = maps_of(model)
    rois = bbox2roi([SIZES, SIZES[:2] + 1])
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    sizes = []
    head.mask_head.register_forward_pre_hook(lambda _, args: sizes.append(len(args[1])))
    with torch.no_grad():
        pooled = head.bbox_roi_extractor(x[: head.bbox_roi_extractor.num_inputs], rois)
        features = RoIFeatures(
            pooled, head.shared_head(pooled) if name == C4 else pooled
        )
        at_once = head._mask_forward(x, rois, labels)
        head.chunk_size = 3
        for given in ((labels, None), (labels, features), (None, None)):
            found = head._mask_forward(x, rois, *given)
            if given[0] is None:
                head.chunk_size = 7
                at_once = head._mask_forward(x, rois)
            assert len(found['all_preds']) == 4
            for part, whole in zip(found['all_preds'], at_once['all_preds']):
                torch.testing.assert_close(part, whole)
    assert sizes == [7, *[3, 3, 1] * 3, 7]
    head.chunk_size = 1  # not in training
    del sizes[:]
    losses(model.train())
    assert len(sizes) == 1 and sizes[0] > 1


def test_no_map_has_all_classes():
    """Not even of one RoI: what is held while RoIs are decoded."""
    classes = 500
    model = detector(
        C4,
        **{
            'roi_head.bbox_head.num_classes': classes,
            'roi_head.mask_head.num_classes': classes,
        },
    ).eval()

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.dim() > 1:
                assert classes not in result.shape[1:], func
            return result

    x, _ = maps_of(model)
    rois, labels = bbox2roi([SIZES]), torch.tensor([0, 1, 499, 2, 1])
    with torch.no_grad(), Sizes():
        masks = model.roi_head._mask_forward(x, rois, labels)['mask_preds']
    assert masks.shape == (5, 1, 56, 56)


@pytest.mark.parametrize('name', PVD)
def test_class_agnostic_starts_as_the_mask_of_the_label(name):
    per_class = detector(name, **PER_CLASS)
    agnostic = detector(
        name, **PER_CLASS, **{'roi_head.mask_head.class_agnostic': True}
    )
    agnostic.load_state_dict(
        {k: v for k, v in per_class.state_dict().items() if 'fuse' not in k},
        strict=False,
    )
    labels = torch.tensor([0, 1, 2, 2, 1])
    rois = bbox2roi([SIZES])
    masks = []
    for model in (per_class, agnostic):
        for step in model.roi_head.mask_head.decoder.steps:
            torch.nn.init.zeros_(step.fuse.weight)
        with torch.no_grad():
            masks.append(
                model.eval().roi_head._mask_forward(maps_of(model)[0], rois, labels)[
                    'mask_preds'
                ]
            )
    torch.testing.assert_close(masks[0][range(5), labels], masks[1][:, 0])


@pytest.mark.parametrize('train', (True, False))
@pytest.mark.parametrize('name', PVD)
def test_the_classifier_is_trained_by_the_masks_or_not(name, train):
    model = detector(name, **PER_CLASS, **{'roi_head.train_classifier': train})
    result = losses(model)
    assert {
        'loss_rpn_cls',
        'loss_rpn_bbox',
        'loss_cls',
        'loss_bbox',
        'acc',
        'loss_mask',
        'loss_mask_28',
        'loss_mask_14',
        'loss_mask_7',
    } == set(result)
    result['loss_mask'].backward()
    head = model.roi_head.bbox_head
    assert bool(head.fc_cls.weight.grad is not None) is train
    assert head.fc_reg.weight.grad is None
    assert model.backbone.conv1.weight.grad.any()
    if name == C4:
        assert model.roi_head.shared_head.layer4[0].conv1.weight.grad.any()


@pytest.mark.parametrize('name', PVD)
def test_an_extractor_of_its_own(name):
    """As configured for the boxes it gives the same as the shared one."""
    shared = detector(name).eval()
    extractor = dict(
        type='SingleRoIExtractor',
        out_channels=32,
        featmap_strides=[16],
        roi_layer=dict(type='RoIAlign', sampling_ratio=0, output_size=14),
    )
    if name == FPN:
        extractor.update(
            out_channels=16, featmap_strides=[4, 8, 16, 32], finest_scale=12
        )
        extractor['roi_layer']['output_size'] = 7
    own = detector(
        name, **{'roi_head.mask_roi_extractor': dict(extractor, _delete_=True)}
    ).eval()
    own.load_state_dict(shared.state_dict())
    assert not own.roi_head.share_roi_extractor
    found = []
    for model in (shared, own):
        torch.manual_seed(0)
        found.append(losses(model)['loss_mask'])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize('name', PVD)
def test_coarse_losses(name):
    model = detector(name, **{'roi_head.mask_head.coarse_loss_weight': 0.5})
    result = losses(model)
    assert {'loss_mask', 'loss_mask_28', 'loss_mask_14', 'loss_mask_7'} <= set(result)


@pytest.mark.parametrize(
    'changes,kind,message',
    [
        (
            {'roi_head.mask_head': dict(type='FCNMaskHead', num_classes=3)},
            TypeError,
            'must be a PVDMaskHead, but is a FCNMaskHead',
        ),
        ({'roi_head.bbox_head': None}, TypeError, 'needs a bbox_head'),
        (
            {'roi_head.mask_head.num_classes': 4},
            ValueError,
            'same num_classes, but got 3 and 4',
        ),
        (
            {
                **PER_CLASS,
                'roi_head.bbox_head': dict(
                    _delete_=True,
                    type='DoubleConvFCBBoxHead',
                    num_convs=1,
                    num_fcs=1,
                    in_channels=8,
                    num_classes=3,
                ),
            },
            TypeError,
            'DoubleConvFCBBoxHead',
        ),
        (
            {'roi_head.mask_head.feature_channels': 32},
            ValueError,
            'feature_channels=32 .* in_channels=64',
        ),
        ({'roi_head.chunk_size': 0}, ValueError, 'chunk_size .* 0'),
        (
            {'roi_head.mask_head.mask_size': 28},
            ValueError,
            r'mask_size=28 is reached before .* first 1 maps.*finest_stride=8',
        ),
        (
            {'roi_head.start_level': 'proposal'},
            ValueError,
            "start_level must be .*'source'.*'proposal'",
        ),
        (
            {'roi_head.start_level': 'size'},
            ValueError,
            r'several levels .* mask_size=56 .* \[4, 8, 16, 32\] have 1',
        ),
        (
            {'roi_head.mask_head.finest_stride': 8},
            ValueError,
            r'featmap_strides=\[32\], but has \[16\]',
        ),
    ],
)
def test_heads_that_do_not_fit(changes, kind, message):
    if 'roi_head.mask_head' in changes:
        changes['roi_head.mask_head']['_delete_'] = True
    with pytest.raises(kind, match=message):
        detector(C4, **changes)


def test_strides_that_do_not_fit():
    with pytest.raises(ValueError, match='stride 32, but the mask head'):
        detector(FPN, **{'roi_head.mask_head.decoder.strides': [2, 1, 1, 2, 2, 2]})


@pytest.mark.parametrize('name', PVD)
def test_a_detector_that_keeps_the_maps_to_itself(name):
    """When it is built: its neck or RPN would stumble over all the maps first."""
    with pytest.raises(TypeError, match="type='PVDMaskRCNN'"):
        detector(name, type='MaskRCNN')
    # boxes alone need none
    detector(name, type='MaskRCNN', **{'roi_head.mask_head': None})

    class Mine(MaskRCNN):
        """Hands out what it likes."""

        def extract_feat(self, batch_inputs):
            maps = self.backbone(batch_inputs)
            return self.neck(maps[-4:]) if self.with_neck else maps[-1:]

    with pytest.raises(TypeError, match="type='PVDMaskRCNN'"):
        losses(detector(name, type=Mine))


@pytest.mark.parametrize('kind', ('StandardRoIHead', 'CascadeRoIHead'))
def test_a_mask_head_in_another_roi_head(kind):
    model = detector(FPN, type='MaskRCNN', **{'roi_head.mask_head': None})
    mask_head = detector(FPN).roi_head.mask_head
    if kind == 'StandardRoIHead':
        head = StandardRoIHead.__new__(StandardRoIHead)
        call = lambda rois: StandardRoIHead._mask_forward(head, x, rois)  # noqa: E731
    else:
        head = CascadeRoIHead.__new__(CascadeRoIHead)
        call = lambda rois: CascadeRoIHead._mask_forward(head, 0, x, rois)  # noqa: E731
    torch.nn.Module.__init__(head)
    extractor = model.roi_head.bbox_roi_extractor
    wrap = torch.nn.ModuleList if kind == 'CascadeRoIHead' else lambda parts: parts[0]
    head.mask_roi_extractor, head.mask_head = wrap([extractor]), wrap([mask_head])
    head.share_roi_extractor = False
    x = [torch.randn(1, 16, s, s) for s in (24, 12, 6, 3)]
    with pytest.raises(TypeError, match="roi_head=dict\\(type='PVDRoIHead'"):
        call(bbox2roi([SIZES]))


def test_features_of_another_side():
    extractor = dict(
        _delete_=True,
        type='SingleRoIExtractor',
        out_channels=16,
        featmap_strides=[4, 8, 16, 32],
        roi_layer=dict(type='RoIAlign', sampling_ratio=0, output_size=14),
    )
    with pytest.raises(ValueError, match='roi_feat_size=7 .* output_size=7.* has 14'):
        detector(FPN, **{'roi_head.mask_roi_extractor': extractor})
    # the features of a C4 detector are halved inside the RoI
    extractor.update(out_channels=32, featmap_strides=[16])
    extractor['roi_layer'] = dict(extractor['roi_layer'], output_size=7)
    with pytest.raises(
        ValueError, match='7 .* after the shared head .* output_size=14.* has 7'
    ):
        detector(C4, **{'roi_head.mask_roi_extractor': extractor})
    extractor['roi_layer'] = dict(extractor['roi_layer'], output_size=(14, 7))
    with pytest.raises(ValueError, match=r'output_size .* square, but got \(14, 7\)'):
        detector(C4, **{'roi_head.mask_roi_extractor': extractor})
    # the boxes' one is shared
    with pytest.raises(ValueError, match='roi_feat_size=7 .* has 14'):
        detector(
            FPN,
            **{
                'roi_head.bbox_roi_extractor.roi_layer.output_size': 14,
                'roi_head.bbox_head.roi_feat_size': 14,
            },
        )
    model = detector(FPN)
    primary = torch.randn(5, CLASSES, 14, 14)
    with pytest.raises(ValueError, match=r'roi_feat_size=7 .* \(14, 14\)'):
        model.roi_head.mask_head(primary, bbox2roi([SIZES]), 6, maps_of(model)[0])


def test_sides_as_pairs():
    """As mmdet takes them."""
    model = detector(
        FPN,
        **{
            'roi_head.mask_head.roi_feat_size': (7, 7),
            'roi_head.mask_head.mask_size': (56, 56),
            'train_cfg.rcnn.mask_size': (56, 56),
        },
    )
    torch.manual_seed(0)
    found = losses(model)['loss_mask']
    model = detector(FPN)
    torch.manual_seed(0)
    assert found == losses(model)['loss_mask']
    with pytest.raises(ValueError, match=r'mask_size .* square, but got \(56, 28\)'):
        detector(FPN, **{'roi_head.mask_head.mask_size': (56, 28)})


@pytest.mark.parametrize('shared', (True, False))
def test_an_extractor_that_adds_up_all_levels(shared):
    """RoIs start where their size says."""
    generic = dict(
        type='GenericRoIExtractor',
        out_channels=16,
        featmap_strides=[4, 8, 16, 32],
        roi_layer=dict(type='RoIAlign', sampling_ratio=0, output_size=7),
    )
    key = 'bbox_roi_extractor' if shared else 'mask_roi_extractor'
    changes = {f'roi_head.{key}': dict(generic, _delete_=True)}
    model = stir(detector(FPN, **PER_CLASS, **changes))
    head = model.roi_head
    x, _ = maps_of(model, batch(sample((256, 256), BOXES)))
    rois = bbox2roi(
        [torch.tensor([[10.0, 10, 230, 230], [3, 20, 113, 130], [40, 50, 70, 75]])]
    )
    with torch.no_grad():
        found = head._mask_forward(x, rois)['mask_preds']
        # the sum over the levels
        pooled = sum(
            roi_align(y, rois, 7, 1 / stride, 0, 'avg', True)
            for y, stride in zip(x, (4, 8, 16, 32))
        )
        expected = head.mask_head(
            class_activation(head.bbox_head, pooled),
            rois,
            torch.tensor([6, 5, 3]),  # cells of 31, 16 and 4 pixels
            x.encoder,
        )[0]
    torch.testing.assert_close(found, expected)
    result = losses(model.train())
    result['loss_mask'].backward()
    assert result['loss_mask'] > 0
    assert all(p.grad is not None for p in head.mask_head.parameters())


def test_boxes_alone():
    model = detector(C4, **{'roi_head.mask_head': None})
    assert 'loss_mask' not in losses(model)
    with torch.no_grad():
        found = model.eval().test_step(batch())
    assert 'masks' not in found[0].pred_instances


# of no area, a line, outside, over the border, the whole image
PROPOSALS = [
    [10.0, 10, 10, 10],
    [20, 20, 20, 60],
    [300, 300, 340, 350],
    [-20, 60, 30, 130],
    [0, 0, 96, 96],
]


@pytest.mark.parametrize('name', PVD)
def test_any_proposal(name):
    model = detector(name)
    data = model.data_preprocessor(batch(sample((96, 96), BOXES)), training=True)
    x = model.extract_feat(data['inputs'])
    proposals = InstanceData(bboxes=torch.tensor(PROPOSALS), scores=torch.ones(5))
    result = model.roi_head.loss(x, [proposals], data['data_samples'])
    total = sum(v for k, v in result.items() if 'loss' in k)
    assert total.isfinite()
    total.backward()
    assert all(p.grad.isfinite().all() for p in model.roi_head.parameters())
    model.eval()
    proposals = InstanceData(bboxes=torch.tensor(PROPOSALS))
    with torch.no_grad():
        found = model.roi_head.forward(x, [proposals])
        assert [len(y) for y in found] == [5, 5, 5]
        assert found[2].isfinite().all()
        # detected boxes are clipped to the image
        boxes = InstanceData(
            bboxes=torch.tensor(PROPOSALS).clamp(0, 96),
            scores=torch.ones(5),
            labels=torch.tensor([0, 1, 2, 0, 1]),
        )
        metas = [data['data_samples'][0].metainfo]
        masks = model.roi_head.predict_mask(x, metas, [boxes])[0].masks
    assert masks.shape == (5, 96, 96)


@pytest.mark.parametrize('name', PVD)
def test_predictions_of_a_batch_are_those_of_its_images(name):
    """Images without a box among them."""
    model = stir(detector(name))
    x, samples = maps_of(model)
    metas = [s.metainfo for s in samples]

    def instances(boxes):
        return InstanceData(
            bboxes=boxes.clone(),
            scores=torch.ones(len(boxes)),
            labels=torch.arange(len(boxes)) % CLASSES,
        )

    with torch.no_grad():
        both = model.roi_head.predict_mask(
            x, metas, [instances(SIZES[:3]), instances(SIZES[:2])]
        )
        one = model.roi_head.predict_mask(
            x, metas, [instances(SIZES[:0]), instances(SIZES[:2])]
        )
        none = model.roi_head.predict_mask(x, metas, [instances(SIZES[:0])] * 2)
    assert [r.masks.shape for r in both] == [(3, 96, 96), (2, 80, 112)]
    assert torch.equal(one[1].masks, both[1].masks)
    assert one[0].masks.shape == (0, 96, 96)
    assert [len(r.masks) for r in none] == [0, 0]
