# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Untrained models of the shipped sample configs, as a user's files; on
pytest's path by pyproject.toml."""

from typing import NamedTuple

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, MODELS, init_default_scope

from pvd_mm import register_all_modules

SEGMENTOR = """
_base_ = 'pvd_mm::{base}'
model = dict(decode_head=dict({head}), data_preprocessor=dict(size=None))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 64), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs')]
val_dataloader = dict(dataset=dict(data_root={root!r}, pipeline=pipeline))
test_dataloader = val_dataloader
"""

DETECTOR = """
_base_ = 'pvd_mm::{base}'
model = dict(test_cfg=dict(
    rpn=dict(nms_pre=50, max_per_img=8),
    rcnn=dict(score_thr=0.0, max_per_img=4)))
val_dataloader = dict(dataset=dict(data_root={root!r}))
test_dataloader = val_dataloader
"""

PANOPTIC = """
_base_ = 'pvd_mm::{base}'
model = dict(test_cfg=dict(
    rpn=dict(nms_pre=50, max_per_img=8),
    rcnn=dict(score_thr=0.0, max_per_img=4),
    panoptic=dict(score_thr=0.0, stuff_area_limit=1)))
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(128, 96), keep_ratio=True),
    dict(type='LoadCheckedPanopticAnnotations'),
    dict(type='PackDetInputs', meta_keys=(
        'img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor',
        'seg_map_path', 'segments_info'))]
val_dataloader = dict(dataset=dict(data_root={root!r}, pipeline=pipeline))
test_dataloader = val_dataloader
ann_file = {root!r} + '/annotations/instances_val2017.json'
val_evaluator = [
    dict(type='PanopticQualityMetric'),
    dict(type='CocoMetric', ann_file=ann_file, metric=['bbox', 'segm']),
    dict(type='SemSegMetric', iou_metrics=['mIoU'])]
test_evaluator = val_evaluator
"""


class Trained(NamedTuple):
    """A config of a user's, which inherits a shipped one, and a checkpoint."""

    config: str
    checkpoint: str


def make(folder, name, text, seed=0, meta=True):
    """Write a config, and a checkpoint as a training leaves it."""
    register_all_modules()
    config, checkpoint = folder / f'{name}.py', folder / f'{name}.pth'
    config.write_text(text)
    cfg = Config.fromfile(config)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(seed)
    model = MODELS.build(cfg.model)
    # votes of an untrained decoder are those of plain upsampling
    for key, weight in model.named_parameters():
        if 'conv_votes' in key:
            torch.nn.init.normal_(weight, std=0.5)
    content = dict(meta={}, state_dict=model.state_dict())
    if meta:
        lazy = dict(cfg.test_dataloader.dataset, lazy_init=True)
        content['meta']['dataset_meta'] = DATASETS.build(lazy).metainfo
    torch.save(content, checkpoint)
    return Trained(str(config), str(checkpoint))
