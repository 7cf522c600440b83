# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Every shipped panoptic config, and what its pipeline makes of an image."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from pvd_mm.data.samples import make_street_panoptic_sample
from pvd_mm.utils.shipped_configs import mim_root, shipped_configs

FOLDERS = ('panoptic_fpn', 'pvd_panoptic')
CONFIGS = [p for p in shipped_configs() if p.split('/')[0] in FOLDERS]
SETTINGS = (
    'train_dataloader', 'val_dataloader', 'test_evaluator', 'train_cfg',
    'optim_wrapper', 'param_scheduler', 'default_hooks', 'randomness',
)  # fmt: skip
STREET = 'pvd_panoptic/pvd-panoptic_r18-fpn-c32_1xb2-600_street-panoptic-192x256.py'


def load(path):
    cfg = Config.fromfile(mim_root() / 'configs' / path)
    init_default_scope(cfg.default_scope)
    return cfg


def outside(config):
    """What both methods have in common: all but the heads that are compared and the
    maps that these need."""
    model = deepcopy(config.model.to_dict())
    for key in ('type', 'backbone', 'semantic_head'):
        model.pop(key)
    for key in ('type', 'mask_head', 'mask_roi_extractor', 'start_level'):
        model['roi_head'].pop(key, None)
    model['train_cfg']['rcnn'].pop('mask_size')
    settings = {key: config.get(key) for key in SETTINGS}
    return {**settings, 'model': model}


@pytest.mark.parametrize('path', CONFIGS)
def test_it_can_be_built(path):
    """On no memory: the model, and the metrics that need no file."""
    cfg = load(path)
    with torch.device('meta'):
        model = MODELS.build(cfg.model)
    dataset = DATASETS.build(dict(cfg.train_dataloader.dataset, lazy_init=True))
    things = dataset.metainfo['thing_classes']
    assert model.num_things_classes == len(things)
    assert model.num_classes == len(dataset.metainfo['classes'])
    types = [metric['type'] for metric in cfg.test_evaluator]
    assert 'PanopticQualityMetric' in types
    assert all(METRICS.get(name) is not None for name in types)


@pytest.mark.parametrize('path', [p for p in CONFIGS if p.startswith('pvd')])
def test_the_baseline_differs_in_its_heads_alone(path):
    folder, name = path.replace('pvd-panoptic', 'panoptic-fpn').split('/')
    baseline = 'panoptic_fpn/' + name.replace('-fpn-c32', '-c32').replace(
        '18-fpn_', '18_'
    ).replace('50-fpn_', '50_')
    assert outside(load(path)) == outside(load(baseline))


def test_crops_keep_no_object_without_pixels(tmp_path):
    """Their boxes have no size, and the logarithm of that is the loss."""
    root = tmp_path / 'street'
    make_street_panoptic_sample(str(root), train=6, val=1)
    cfg = load(STREET).train_dataloader.dataset
    dataset = DATASETS.build(dict(cfg, data_root=f'{root}/'))
    np.random.seed(0)
    objects = 0
    for _ in range(20):
        for item in dataset:
            found = item['data_samples'].gt_instances
            sides = found.bboxes.tensor[:, 2:] - found.bboxes.tensor[:, :2]
            assert (sides > 0).all()
            assert (found.masks.areas > 0).all()
            objects += len(found)
    assert objects > 100
