# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The shipped detectors, made narrow; and batches for them."""

import copy
from pathlib import Path

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

ROOT = Path(__file__).resolve().parents[2]
CLASSES = 3

NARROW = dict(
    backbone=dict(base_channels=8, stem_channels=8, init_cfg=None, frozen_stages=-1),
    rpn_head=dict(feat_channels=16),
    roi_head=dict(
        bbox_head=dict(num_classes=CLASSES), mask_head=dict(num_classes=CLASSES)
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=32)),
        rpn_proposal=dict(nms_pre=100, max_per_img=30),
        rcnn=dict(sampler=dict(num=32)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=100, max_per_img=20), rcnn=dict(score_thr=0.0, max_per_img=6)
    ),
)

C4 = dict(
    rpn_head=dict(in_channels=32, anchor_generator=dict(scales=[1, 2, 4])),
    roi_head=dict(
        shared_head=dict(
            _delete_=True, type='NarrowResLayer', depth=18, base_channels=8
        ),
        bbox_roi_extractor=dict(out_channels=32),
        bbox_head=dict(in_channels=64),
    ),
)

FPN = dict(
    neck=dict(in_channels=[8, 16, 32, 64], out_channels=16),
    rpn_head=dict(in_channels=16, anchor_generator=dict(scales=[2])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=16, finest_scale=12),
        bbox_head=dict(in_channels=16, fc_out_channels=24),
    ),
)

STUFF = 2
PANOPTIC = dict(
    semantic_head=dict(num_things_classes=CLASSES, num_stuff_classes=STUFF),
    panoptic_fusion_head=dict(num_things_classes=CLASSES, num_stuff_classes=STUFF),
    test_cfg=dict(panoptic=dict(score_thr=0.0, stuff_area_limit=0)),
)

HEADS = {
    'pvd-mask-rcnn_r18-c4': dict(
        in_channels=[8, 16, 32, 64],
        finest_stride=4,
        decoder=dict(strides=[2, 2, 2], vote_channels=4),
        channels=6,
        feature_channels=64,
    ),
    'pvd-mask-rcnn_r18-fpn': dict(
        in_channels=[3, 8, 8, 8, 16, 32, 64],
        decoder=dict(vote_channels=4),
        channels=6,
        feature_channels=16,
    ),
    'mask-rcnn_r18-c4': dict(in_channels=64, conv_out_channels=8),
    'mask-rcnn_r18-fpn': dict(in_channels=16, conv_out_channels=16),
}
HEADS['pvd-panoptic_r18-fpn'] = HEADS['pvd-mask-rcnn_r18-fpn']
HEADS['panoptic-fpn_r18'] = HEADS['mask-rcnn_r18-fpn']
PVD = ['pvd-mask-rcnn_r18-c4', 'pvd-mask-rcnn_r18-fpn']
# Class activations are decoded, a mask per class
PER_CLASS = {
    'roi_head.mask_head.channels': None,
    'roi_head.mask_head.feature_channels': None,
    'roi_head.mask_head.num_convs': 0,
}
# RoIs that start where their size says; C4 needs maps down to the image for it
BY_SIZE = {
    PVD[0]: {
        'roi_head.start_level': 'size',
        'backbone.type': 'PVDResNet',
        'backbone.finest_stride': 1,
        'roi_head.mask_head.in_channels': [3, 8, 8, 8, 16, 32, 64],
        'roi_head.mask_head.decoder.strides': [2, 2, 1, 2, 2, 2],
        'roi_head.mask_head.finest_stride': 1,
    },
    PVD[1]: {'roi_head.start_level': 'size'},
}


def narrow(name):
    """What makes a shipped model narrow."""
    parts = dict(model={})
    # RoIs start at their own level, for BY_SIZE to change
    own_level = dict(roi_head=dict(start_level='source'))
    if 'c4' in name:
        own_level['backbone'] = dict(finest_stride=4)
    for part in (
        NARROW,
        C4 if 'c4' in name else FPN,
        own_level if name in PVD else {},
        dict(roi_head=dict(mask_head=HEADS[name])),
    ):
        parts = Config._merge_a_into_b(dict(model=copy.deepcopy(part)), parts)
    if name in ('mask-rcnn_r18-fpn', 'panoptic-fpn_r18'):
        parts['model']['roi_head']['mask_roi_extractor'] = dict(
            out_channels=16, finest_scale=12
        )
    if 'panoptic' in name:
        parts = Config._merge_a_into_b(dict(model=copy.deepcopy(PANOPTIC)), parts)
        parts['model']['semantic_head'].update(
            dict(in_channels=[8, 8, 16, 32, 64], decoder=dict(vote_channels=4))
            if 'pvd' in name
            else dict(in_channels=16, inner_channels=8, norm_cfg=dict(num_groups=2))
        )
    return parts['model']


def model_config(name, **changes):
    """The config of a shipped model, narrow; then further changes."""
    cfg = Config.fromfile(ROOT / f'configs/_base_/models/{name}.py')
    cfg.merge_from_dict(dict(model=narrow(name)))
    cfg.merge_from_dict({f'model.{k}': v for k, v in changes.items()})
    return cfg.model


def detector(name, seed=0, **changes):
    """A narrow shipped detector with started weights."""
    import mmdet.models  # noqa: F401 - registers mmdet's models
    from mmdet.registry import MODELS

    import pvd_mm.instance  # noqa: F401

    init_default_scope('mmdet')
    torch.manual_seed(seed)
    model = MODELS.build(model_config(name, **changes))
    model.init_weights()
    return model


def sample(size, boxes, labels=None, ignore=(), scale=1.0):
    """An image's annotations; the mask of a box is the ellipse in it."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    height, width = size
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    y, x = np.mgrid[:height, :width] + 0.5
    masks = [
        (
            ((x - (a + c) / 2) / max(c - a, 1)) ** 2
            + ((y - (b + d) / 2) / max(d - b, 1)) ** 2
            <= 0.25
        )
        for a, b, c, d in boxes
    ]
    result = DetDataSample()
    result.gt_instances = InstanceData(
        bboxes=torch.tensor(boxes),
        labels=torch.arange(len(boxes)) % CLASSES
        if labels is None
        else torch.tensor(labels),
        masks=BitmapMasks(np.array(masks, np.uint8).reshape(-1, *size), *size),
    )
    ignore = torch.tensor(ignore, dtype=torch.float32).reshape(-1, 4)
    result.ignored_instances = InstanceData(
        bboxes=ignore,
        labels=torch.zeros(len(ignore), dtype=torch.long),
        masks=BitmapMasks(np.zeros((len(ignore), *size), np.uint8), *size),
    )
    result.set_metainfo(
        dict(
            img_id=0,
            img_path='x.png',
            img_shape=size,
            ori_shape=(round(height / scale), round(width / scale)),
            scale_factor=(scale, scale),
            flip=False,
        )
    )
    return result


BOXES = [[8, 10, 60, 70], [50, 20, 90, 90], [4, 60, 30, 92]]


def batch(*samples):
    """What a data loader gives."""
    samples = samples or (sample((96, 96), BOXES), sample((80, 112), BOXES[:1]))
    generator = torch.Generator().manual_seed(1)
    return dict(
        inputs=[
            torch.randint(0, 255, (3, *s.img_shape), generator=generator).byte()
            for s in samples
        ],
        data_samples=list(samples),
    )


def losses(model, data=None):
    data = model.data_preprocessor(data or batch(), training=True)
    return model(**data, mode='loss')


def total(result):
    return sum(
        sum(v) if isinstance(v, list) else v for k, v in result.items() if 'loss' in k
    )


def predict(model, data=None):
    with torch.no_grad():
        return model.eval().test_step(data or batch())
