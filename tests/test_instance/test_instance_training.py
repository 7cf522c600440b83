# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Shipped detectors, made narrow, trained and tested on COCO files."""

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.commands import losses, python, tool
from helpers.real_data import COCO_TINY, needs_coco
from helpers.small_detectors import PVD, narrow
from pvd_mm.engine import test as testing
from pvd_mm.engine import train as training
from pvd_mm.utils.errors import UsageError

CONFIG = """
_base_ = 'pvd_mm::{family}/{name}_1x_coco.py'
model = {model}
randomness = dict(seed=3)
root = {root!r}
size = dict(type='Resize', scale=(96, 64), keep_ratio=True)
load = [dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=True)]
meta = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
data = dict(data_root=root, metainfo=dict(classes=('a', 'b', 'c')),
            ann_file='annotations.json', data_prefix=dict(img='images/'))
train_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(data, pipeline=[
        *load, size, dict(type='RandomFlip', prob=0.5),
        dict(type='PackDetInputs')]))
val_dataloader = dict(
    num_workers=0, persistent_workers=False,
    dataset=dict(data, pipeline=[
        load[0], size, load[1],
        dict(type='PackDetInputs', meta_keys=meta)]))
test_dataloader = val_dataloader
val_evaluator = [
    dict(type='CocoMetric', ann_file=root + '/annotations.json',
         metric=['bbox', 'segm']),
    dict(type='BoundaryAPMetric', ann_file=root + '/annotations.json')]
test_evaluator = val_evaluator
train_cfg = dict(max_epochs=2, val_begin=9)
optim_wrapper = dict(optimizer=dict(lr=0.002))
default_hooks = dict(logger=dict(interval=1))
log_processor = dict(type='LogProcessor', window_size=1, by_epoch=True)
tta_model = dict(type='DetTTAModel', tta_cfg=dict(
    nms=dict(type='nms', iou_threshold=0.5), max_per_img=9))
tta_pipeline = [load[0], dict(type='TestTimeAug', transforms=[
    [size], [dict(type='RandomFlip', prob=p) for p in (0., 1.)], [load[1]],
    [dict(type='PackDetInputs',
          meta_keys=(*meta, 'flip', 'flip_direction'))]])]
"""


def fresh():
    """Runners of one process share mmengine's global state."""
    from mmdet.visualization import DetLocalVisualizer
    from mmengine.logging import MessageHub, MMLogger
    from mmengine.registry import DefaultScope

    for kind in (DefaultScope, DetLocalVisualizer, MessageHub, MMLogger):
        kind._instance_dict.clear()
    return SimpleNamespace(train=training.train, test=testing.test)


@pytest.fixture(scope='session')
def coco(tmp_path_factory):
    """Six images of 64 x 96; one has nothing but a crowd."""
    root = tmp_path_factory.mktemp('coco')
    (root / 'images').mkdir()
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:64, :96]
    images, annotations = [], []
    for i in range(6):
        image = rng.integers(0, 60, (64, 96, 3))
        for category in range(1, 3 if i else 2):
            cx, cy = rng.uniform(25, 70), rng.uniform(20, 44)
            rx, ry = rng.uniform(9, 24), rng.uniform(9, 19)
            image[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1] += 60 * category
            turn = np.linspace(0, 2 * np.pi, 30)
            outline = np.stack([cx + rx * np.cos(turn), cy + ry * np.sin(turn)])
            crowd = dict(size=[64, 96], counts=[3000, 300, 2844])
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i,
                    category_id=category,
                    bbox=[cx - rx, cy - ry, 2 * rx, 2 * ry],
                    area=3 * rx * ry,
                    iscrowd=int(not i),
                    segmentation=[outline.T.ravel().tolist()] if i else crowd,
                )
            )
        name = f'{i}.png'
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
            root / 'images' / name
        )
        images.append(dict(id=i, file_name=name, width=96, height=64))
    (root / 'annotations.json').write_text(
        json.dumps(
            dict(
                images=images,
                annotations=annotations,
                categories=[dict(id=i, name=n) for i, n in enumerate('abc', 1)],
            )
        )
    )
    return root


@pytest.fixture(scope='session')
def config(coco, tmp_path_factory):
    """Write a user's config for the tiny data, in a folder of its own."""
    folder = tmp_path_factory.mktemp('configs')

    def write(name, more=''):
        path = folder / f'{name}.py'
        path.write_text(
            CONFIG.format(
                family='pvd_mask_rcnn' if 'pvd' in name else 'mask_rcnn',
                name=name,
                model=narrow(name),
                root=str(coco),
            )
            + more
        )
        return str(path)

    return write


@pytest.fixture(scope='session')
def trained(config, tmp_path_factory):
    """Work dirs of uninterrupted trainings."""
    done = {}

    def train(name):
        if name not in done:
            done[name] = tmp_path_factory.mktemp(name)
            fresh().train(config(name), str(done[name]))
            assert len(losses(done[name])) == 6
        return done[name]

    return train


def log_of(work_dir):
    return '\n'.join(p.read_text() for p in Path(work_dir).glob('2*/2*.log'))


@pytest.mark.parametrize('name', PVD)
def test_resume_continues_to_the_same_losses(name, config, trained, tmp_path):
    whole = losses(trained(name))
    fresh().train(config(name), str(tmp_path), cfg_options={'train_cfg.max_epochs': 1})
    assert sorted(losses(tmp_path)) == [1, 2, 3]
    fresh().train(config(name), str(tmp_path), resume='auto')
    assert 'resumed epoch: 1, iter: 3' in log_of(tmp_path)
    assert losses(tmp_path) == whole
    assert len(set(whole.values())) == 6


def test_resume_by_iterations(config, tmp_path):
    path = config(
        PVD[1],
        """
train_cfg = dict(_delete_=True, type='IterBasedTrainLoop', max_iters=5,
                 val_begin=99)
default_hooks['checkpoint'] = dict(by_epoch=False, interval=4)
default_hooks['logger']['log_metric_by_epoch'] = False
log_processor['by_epoch'] = False
""",
    )
    fresh().train(path, str(tmp_path / 'whole'))
    shutil.copytree(tmp_path / 'whole', tmp_path / 'cut')
    shutil.rmtree(next((tmp_path / 'cut').glob('2*')))
    fresh().train(path, str(tmp_path / 'cut'), resume=str(tmp_path / 'cut/iter_4.pth'))
    whole = losses(tmp_path / 'whole')
    assert sorted(whole) == [1, 2, 3, 4, 5]
    assert losses(tmp_path / 'cut') == {5: whole[5]}


@pytest.mark.parametrize('kind', ['c4', 'fpn'])
def test_from_a_trained_mask_rcnn(kind, config, trained, tmp_path):
    """What both have is taken; what is not is told, by module."""
    source, target = f'mask-rcnn_r18-{kind}', f'pvd-mask-rcnn_r18-{kind}'
    checkpoint = trained(source) / 'epoch_2.pth'
    assert 'start anew' not in log_of(trained(source))
    runner = fresh().train(
        config(target),
        str(tmp_path),
        cfg_options={
            'load_from': str(checkpoint),
            'train_cfg.max_epochs': 1,
            'optim_wrapper.optimizer.lr': 0.0,
        },
    )
    weights = torch.load(checkpoint)['state_dict']
    own = runner.model.state_dict()
    shared = [k for k in own if k in weights]
    new = [k for k in own if k not in weights]
    left = [k for k in weights if k not in own]
    assert all(k.startswith('roi_head.mask_head.') for k in new + left)
    assert all(
        torch.equal(own[k], weights[k])
        for k in shared
        if 'running' not in k and 'tracked' not in k
    )
    log = log_of(tmp_path)
    assert (
        f'{checkpoint}: {len(shared)} of the {len(weights)} tensors of '
        f"the file are among the model's {len(own)}."
    ) in log
    for what, keys in (
        ('not in the file, start anew', new),
        ('of the file, left out', left),
    ):
        assert f'{what}: {modules_of(keys, kind)}\n' in log


def modules_of(keys, kind):
    """As the log names them: with FPN the 3×3 convolutions of both mask heads are
    shared, so their other parts are named one by one."""
    depth = 3 if kind == 'fpn' else 2
    groups = {}
    for key in keys:
        *module, part = key.split('.')[: depth + 1]
        groups.setdefault('.'.join(module), []).append(part)
    return ', '.join(
        f'{module} ({", ".join(dict.fromkeys(parts))}; {len(parts)} tensors)'
        for module, parts in groups.items()
    )


def test_fine_tuning_for_other_classes(config, trained, tmp_path):
    fresh().train(
        config(PVD[0]),
        str(tmp_path),
        cfg_options={
            'load_from': str(trained(PVD[0]) / 'epoch_2.pth'),
            'train_cfg.max_epochs': 1,
            'model.roi_head.bbox_head.num_classes': 4,
            'model.roi_head.mask_head.num_classes': 4,
        },
    )
    log = log_of(tmp_path)
    assert (
        'of another shape, left out: roi_head.bbox_head.fc_cls.weight, '
        '(4, 64) in the file, (5, 64) in the model'
    ) in log
    assert 'start anew' not in log


def test_another_model_is_refused(config, trained, tmp_path):
    checkpoint = str(trained('mask-rcnn_r18-c4') / 'epoch_2.pth')
    for call in (
        lambda: fresh().test(config(PVD[0]), checkpoint, str(tmp_path)),
        lambda: fresh().train(config(PVD[0]), str(tmp_path), resume=checkpoint),
    ):
        with pytest.raises(UsageError, match='another model than PVDMaskRCNN') as error:
            call()
        assert 'missing from the file: roi_head.mask_head.embed' in str(error.value)


@pytest.mark.parametrize('name', [*PVD, 'mask-rcnn_r18-fpn'])
def test_amp(name, config, tmp_path):
    """bfloat16 where there is no accelerator; the baseline as well."""
    fresh().train(
        config(name),
        str(tmp_path),
        amp=True,
        cfg_options={'train_cfg.max_epochs': 1, 'train_cfg.val_begin': 1},
    )
    found = losses(tmp_path)
    assert len(found) == 3 and np.isfinite(list(found.values())).all()
    assert 'coco/segm_mAP' in log_of(tmp_path)


def test_test_writes_predictions_and_pictures(config, trained, coco, tmp_path):
    """As users type it."""
    out = tool(
        'test',
        config(PVD[0]),
        trained(PVD[0]) / 'epoch_2.pth',
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'out.pkl',
        '--show-dir',
        'pictures',
    )
    assert 'coco/segm_mAP' in out and 'Traceback' not in out
    metrics = json.loads(next(tmp_path.glob('2*/2*.json')).read_text())
    assert {'coco/bbox_mAP', 'coco/segm_mAP'} <= set(metrics)
    assert any('oundary' in key for key in metrics)
    results = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert len(results) == 6
    found = results[0]['pred_instances']
    assert len(found['masks']) == len(found['scores'])
    assert found['masks'][0]['size'] == [64, 96]
    assert len(list(tmp_path.glob('2*/pictures/*.png'))) == 6


def test_out_must_be_a_pickle(config, trained):
    with pytest.raises(UsageError, match=r'must be a \.pkl file'):
        fresh().test(config(PVD[0]), str(trained(PVD[0]) / 'epoch_2.pth'), out='folder')


def test_no_augmentation_when_testing(config, trained):
    """mmdet's own stops with an assertion in the middle of the test."""
    with pytest.raises(UsageError, match='merges boxes alone'):
        fresh().test(config(PVD[0]), str(trained(PVD[0]) / 'epoch_2.pth'), tta=True)


def test_the_wing_needs_no_mmseg():
    out = python(
        '-W',
        'ignore',
        '-c',
        'import sys, pvd_mm.instance\n'
        'assert not {"mmseg", "pvd_mm.semantic"} & set(sys.modules)\n'
        'from mmdet.registry import MODELS\n'
        'assert MODELS.get("PVDMaskHead") and MODELS.get("PVDMaskRCNN")\n'
        'print(pvd_mm.register_all_modules())',
    )
    assert 'pvd_mm.instance' in out


@needs_coco
@pytest.mark.parametrize('name', PVD)
def test_coco_with_a_shipped_config(name, tmp_path):
    """Trained, tested and drawn; nothing is overridden but where the data is,
    its size, the schedule, and what follows from so short a one: no weights
    to start with, and detections of any score."""
    root = str(COCO_TINY)
    options = {
        'train_cfg.max_epochs': 1,
        'train_cfg.val_begin': 9,
        'default_hooks.logger.interval': 1,
        'model.backbone.init_cfg': None,
        'model.test_cfg.rcnn.score_thr': 0.0,
    }
    for part in ('train', 'val', 'test'):
        options[f'{part}_dataloader.dataset.data_root'] = root
        options[f'{part}_dataloader.dataset.indices'] = 4 if part == 'train' else 2
        place = 2 if part == 'train' else 1  # of Resize
        options[f'{part}_dataloader.dataset.pipeline.{place}.scale'] = (64, 64)
        if part != 'train':
            for i in range(2):
                options[f'{part}_evaluator.{i}.ann_file'] = (
                    f'{root}/annotations/instances_val2017.json'
                )
    fresh().train(f'{name}_1x_coco', str(tmp_path), cfg_options=options)
    found = losses(tmp_path)
    assert len(found) == 2 and np.isfinite(list(found.values())).all()
    metrics = fresh().test(
        f'{name}_1x_coco',
        str(tmp_path / 'epoch_1.pth'),
        str(tmp_path),
        show_dir='pictures',
        cfg_options=options,
    )
    assert {'coco/bbox_mAP', 'coco/segm_mAP', 'coco/boundary_mAP'} <= set(metrics)
    assert len(list(tmp_path.glob('2*/pictures/*'))) == 2
