# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Every shipped instance config, and that methods are compared under one
protocol."""

from pathlib import Path

import mmdet
import pytest
import torch
from mmdet.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope

from helpers.commands import ROOT
from helpers.small_detectors import batch, losses, sample, total
from pvd_mm.utils.shipped_configs import mim_root, shipped_configs

FOLDERS = ('mask_rcnn', 'pvd_mask_rcnn')
CONFIGS = [p for p in shipped_configs() if p.split('/')[0] in FOLDERS]
CLASSES = {'coco': 80, 'coco2014': 80, 'shapes-192x256': 8}


def load(path):
    cfg = Config.fromfile(mim_root() / 'configs' / path)
    init_default_scope(cfg.default_scope)
    return cfg


def baseline_of(name):
    return name.removeprefix('pvd-').replace('-literal', '')


def data_of(path):
    return path.rsplit('_', 1)[1].removesuffix('.py')


@pytest.mark.parametrize(
    'ours, theirs',
    [
        ('mask-rcnn_r50-c4', 'mask-rcnn_r50-caffe-c4'),
        ('mask-rcnn_r50-fpn', 'mask-rcnn_r50_fpn'),
    ],
)
def test_the_baseline_is_mmdet_s(ours, theirs):
    """Model for model the Mask R-CNN of mmdet's own configs, with its
    schedule."""
    folder = Path(mmdet.__file__).parent / '.mim/configs/mask_rcnn'
    if not folder.is_dir():
        pytest.skip('this mmdetection came without its configs')
    theirs = Config.fromfile(folder / f'{theirs}_1x_coco.py')
    ours = load(f'mask_rcnn/{ours}_1x_coco.py')
    for key in (
        'model',
        'train_cfg',
        'param_scheduler',
        'optim_wrapper',
        'auto_scale_lr',
    ):
        assert _plain(ours[key]) == _plain(theirs[key]), key
    for key in ('train', 'val'):
        a, b = (cfg[f'{key}_dataloader'].to_dict() for cfg in (ours, theirs))
        assert a['dataset'].pop('type') == 'CheckedCocoDataset'
        assert b['dataset'].pop('type') == 'CocoDataset'
        assert _plain(a) == _plain(b), key


def test_from_mmdet_s_own_config(tmp_path):
    """What the docs tell makes of mmdet's Mask R-CNN the shipped PVD one."""
    page = ROOT / 'docs/instance.md'
    source = next(
        text
        for text in page.read_text(encoding='utf-8').split('```python\n')
        if text.startswith("_base_ = 'mmdet::")
    ).partition('```')[0]
    path = tmp_path / 'mine.py'
    path.write_text(source)
    model = Config.fromfile(path).model
    ours = _plain(load('pvd_mask_rcnn/pvd-mask-rcnn_r50-fpn_1x_coco.py').model)
    assert ours['roi_head']['mask_head'].pop('coarse_loss_weight')
    assert ours['roi_head']['mask_head'].pop('loss_mask')
    assert _plain(model) == ours


def _plain(node):
    """Without what says the same in other words: tuples, and Nones."""
    if isinstance(node, dict):
        return {
            k: _plain(v) for k, v in node.items() if v is not None and k != '_scope_'
        }
    if isinstance(node, (list, tuple)):
        return [_plain(v) for v in node]
    return node


def test_the_shipped_configs():
    """Both methods with every backbone and neck, on the same data."""
    names = {baseline_of(path.split('/')[1]) for path in CONFIGS}
    for name in names:
        assert f'mask_rcnn/{name}' in CONFIGS
        assert f'pvd_mask_rcnn/pvd-{name}' in CONFIGS
    for model in ('r50-c4', 'r50-fpn', 'r18-c4', 'r18-fpn'):
        assert f'mask-rcnn_{model}_1x_coco.py' in names
    assert 'mask-rcnn_r50-c4_1x_coco2014.py' in names
    assert any('_shapes-' in name for name in names)


@pytest.mark.parametrize('path', CONFIGS)
def test_it_builds_and_trains(path):
    """Model, optimizer settings, transforms, data set class and metrics; one
    loss and its gradient on a small image."""
    cfg = load(path)
    classes = CLASSES[data_of(path)]
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        kind = DATASETS.get(loader.dataset.type)
        assert len(kind.METAINFO['classes']) == classes
        assert loader.dataset.data_root == cfg.data_root
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
    truth = cfg.data_root + cfg.test_dataloader.dataset.ann_file
    for metric in cfg.test_evaluator:
        assert metric.ann_file == truth
        METRICS.build(dict(metric, ann_file=None))
    torch.manual_seed(0)
    for settings in (cfg.train_cfg, cfg.optim_wrapper):
        assert settings.type
    # no weights are loaded: the model is built, but not initialized
    model = MODELS.build(cfg.model)
    heads = model.roi_head.bbox_head, model.roi_head.mask_head
    assert [head.num_classes for head in heads] == [classes] * 2
    build_optim_wrapper(model, cfg.optim_wrapper)
    size = (64, 96)
    boxes = [[8, 10, 56, 60], [50, 20, 90, 50]]
    model.train_cfg.rcnn.sampler.num = 8
    model.roi_head.bbox_sampler.num = 8
    result = losses(model, batch(sample(size, boxes)))
    assert {
        'loss_cls',
        'loss_bbox',
        'loss_mask',
        'loss_rpn_cls',
        'loss_rpn_bbox',
    } <= set(result)
    loss = total(result)
    loss.backward()
    assert torch.isfinite(loss)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name


def test_methods_are_compared_under_one_protocol():
    """Data, schedule, optimizer and evaluation are equal; the model alone
    differs."""
    protocols = {}
    for path in CONFIGS:
        cfg = load(path).to_dict()
        for key in ('model', 'norm_cfg'):
            cfg.pop(key, None)
        first = protocols.setdefault(data_of(path), (path, cfg))
        assert cfg == first[1], f'{path} differs from {first[0]}'
    assert set(protocols) == set(CLASSES)


@pytest.mark.parametrize('path', [p for p in CONFIGS if '/pvd' in p])
def test_pvd_changes_the_mask_branch_alone(path):
    """Backbone, RPN, box head, anchors, sampling and what is kept at test
    time are those of the baseline."""
    folder, name = path.split('/')
    ours = load(path).model.to_dict()
    theirs = load(f'mask_rcnn/{baseline_of(name)}').model.to_dict()
    for model in (ours, theirs):
        model.pop('type')
        for key in ('type', 'out_indices', 'finest_stride'):
            model['backbone'].pop(key, None)
        for key in ('type', 'start_level', 'mask_head', 'mask_roi_extractor'):
            model['roi_head'].pop(key, None)
        model['train_cfg']['rcnn'].pop('mask_size')
    assert ours == theirs


@pytest.mark.parametrize('path', [p for p in CONFIGS if '2014' in p])
def test_the_2014_configs_read_2014(path):
    cfg = load(path)
    text = cfg.pretty_text
    assert '2017' not in text
    for split, loader in (
        ('train', cfg.train_dataloader),
        ('val', cfg.val_dataloader),
        ('val', cfg.test_dataloader),
    ):
        assert loader.dataset.ann_file.endswith(f'instances_{split}2014.json')
        assert loader.dataset.data_prefix['img'] == f'{split}2014/'
    assert 'instances_val2014.json' in cfg.test_evaluator[0].ann_file
