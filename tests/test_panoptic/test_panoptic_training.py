# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The shipped street config, made narrow, trained and tested on drawn scenes."""

import pytest
from mmengine.config import Config

from helpers.commands import losses, tool
from helpers.small_detectors import narrow

TEXT = """
_base_ = {base!r}
model = {model}
scale = dict(type='Resize', scale=(128, 96), keep_ratio=True)
train_dataloader = dict(
    num_workers=0, persistent_workers=False, sampler=dict(shuffle=False),
    dataset=dict(pipeline=[
        dict(type='LoadImageFromFile'),
        dict(type='LoadCheckedPanopticAnnotations'), scale,
        dict(type='RandomFlip', prob=0.0), dict(type='PackDetInputs')],
        data_root={root!r}))
val_dataloader = dict(num_workers=0, persistent_workers=False)
test_dataloader = val_dataloader
train_cfg = dict(max_iters=12, val_interval=12)
param_scheduler = [dict(type='ConstantLR', factor=1.0)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=12))
log_processor = dict(window_size=1)
randomness = dict(seed=1)
"""


@pytest.fixture(scope='module')
def trained(panoptic, tmp_path_factory):
    folder = tmp_path_factory.mktemp('train')
    model = narrow('pvd-panoptic_r18-fpn')
    for head in (model['roi_head']['bbox_head'], model['roi_head']['mask_head']):
        head['num_classes'] = 8
    for head in (model['semantic_head'], model['panoptic_fusion_head']):
        head.update(num_things_classes=8, num_stuff_classes=11)
    maps = model['roi_head']['mask_head']['in_channels']
    model['semantic_head']['in_channels'] = maps
    root = Config.fromfile(panoptic.config).test_dataloader.dataset.data_root
    config = folder / 'config.py'
    config.write_text(TEXT.format(base=panoptic.config, model=model, root=root))
    said = tool('train', config, '--work-dir', folder / 'work')
    return config, folder / 'work', said


def test_the_losses_fall_and_all_metrics_are_told(trained):
    _, work, said = trained
    found = losses(work)
    assert len(found) == 12
    first, last = (sum(found[i] for i in steps) for steps in ((1, 2), (11, 12)))
    assert last < 0.9 * first
    for metric in ('coco_panoptic/PQ_th', 'coco/segm_mAP', 'mIoU'):
        assert f' {metric}: ' in said


def test_a_test_leaves_a_record_and_files_of_coco(trained):
    import json

    config, work, _ = trained
    prefix = work / 'results'
    tool(
        'test',
        config,
        work / 'iter_12.pth',
        '--work-dir',
        work / 'test',
        '--cfg-options',
        f'test_evaluator.0.outfile_prefix={prefix}',
    )
    (record,) = (work / 'test/records').glob('*.json')
    result = json.loads(record.read_text())['result']
    assert {'coco_panoptic/PQ', 'coco/segm_mAP', 'mIoU'} <= set(result)
    written = json.loads((work / 'results.panoptic.json').read_text())['annotations']
    assert len(written) == len(list((work / 'results.panoptic').glob('*.png'))) == 3
