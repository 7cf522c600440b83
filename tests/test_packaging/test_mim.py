# Copyright (c) PVD-MM contributors. Apache-2.0.
"""mim with the installed package, from a user's own folder."""

import importlib.metadata
import sys
from pathlib import Path

import pytest

from helpers.commands import losses, python, run
from pvd_mm.data.samples import make_shapes_sample
from pvd_mm.engine.records import read_records
from pvd_mm.utils.shipped_configs import mim_root

MIM = Path(sys.executable).with_name('mim')
NAME = 'pvd_r18-stage_1xb4-90k_cityscapes-512x1024'

MODEL = """
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(32, 48)),
    backbone=dict(base_channels=8, stem_channels=8),
    decode_head=dict(in_channels=[8, 8, 16, 32, 64], num_classes=3),
    auxiliary_head=dict(in_channels=32, channels=8, num_classes=3))
"""


def installed(*names):
    for name in names:
        try:
            importlib.metadata.distribution(name)
            return name
        except importlib.metadata.PackageNotFoundError:
            pass
    return None


needs_install = pytest.mark.skipif(
    not MIM.exists() or not installed('pvd_mm'),
    reason='pvd_mm and mim are not installed in this environment',
)


def mim(*arguments, cwd, **kwargs):
    # The installed package only, as a user has it.
    return run(MIM, *arguments, cwd=cwd, PYTHONPATH='', **kwargs)


@pytest.fixture(scope='module')
def project(tiny_config, tmp_path_factory):
    """A user's project: one config that inherits ours by ``pvd_mm::``."""
    root = tmp_path_factory.mktemp('project')
    text = tiny_config.read_text()
    before, after = text.index('norm_cfg ='), text.index('train_pipeline')
    (root / 'mine.py').write_text(
        "_base_ = 'pvd_mm::_base_/models/pvd_r18-stage.py'\n"
        + text[:before]
        + MODEL
        + text[after:]
    )
    return root


@needs_install
def test_search(tmp_path):
    out = mim('search', 'pvd_mm', '--valid-config', cwd=tmp_path)
    assert NAME in out
    assert 'deeplabv3_r18-d8_1xb4-90k_cityscapes-512x1024' in out


@needs_install
def test_config_by_name_from_anywhere(tmp_path):
    """The data are missing; that is as far as it can get."""
    out = mim('train', 'pvd_mm', f'{NAME}.py', '-y', cwd=tmp_path, ok=False)
    assert 'Training command is' in out
    assert 'data/cityscapes' in out and 'does not exist' in out


@pytest.fixture(scope='module')
def checkpoint(project):
    mim(
        'train',
        'pvd_mm',
        'mine.py',
        '-y',
        '--gpus',
        0,
        '--work-dir',
        'out',
        '--cfg-options',
        'train_cfg.max_iters=3',
        cwd=project,
    )
    mim(
        'train',
        'pvd_mm',
        'mine.py',
        '-y',
        '--gpus',
        0,
        '--work-dir',
        'out',
        '--resume',
        cwd=project,
    )
    assert sorted(losses(project / 'out')) == [1, 2, 3, 4, 5, 6]
    return project / 'out' / 'iter_6.pth'


@needs_install
def test_test_of_an_inheriting_project(project, checkpoint):
    out = mim(
        'test',
        'pvd_mm',
        'mine.py',
        '--checkpoint',
        checkpoint,
        '-y',
        '--work-dir',
        'test',
        cwd=project,
    )
    assert 'mIoU' in out and 'Testing finished successfully' in out


@needs_install
def test_inferencer(project, checkpoint, tiny_data):
    out = python(
        '-W',
        'ignore',
        '-c',
        'import sys, pvd_mm\n'
        'from mmseg.apis import MMSegInferencer\n'
        'import pvd_mm; pvd_mm.register_all_modules()\n'
        'model, weights, image = sys.argv[1:]\n'
        'infer = MMSegInferencer(model, weights, device="cpu",\n'
        '    classes=["a", "b", "c"], palette=[[0] * 3, [9] * 3, [99] * 3])\n'
        'print("shape", infer(image)["predictions"].shape)',
        project / 'mine.py',
        checkpoint,
        tiny_data / 'img' / '0.png',
        cwd=project,
    )
    assert 'shape (48, 64)' in out


@needs_install
def test_through_mmseg_s_own_train_py(project, checkpoint):
    """A config without ``pvd_mm::`` needs no tool of ours."""
    dumped = project / 'out' / 'mine.py'  # what the runner wrote: flat
    framework = installed('onedl-mmsegmentation', 'mmsegmentation')
    mim(
        'train',
        framework,
        dumped,
        '-y',
        '--gpus',
        0,
        '--work-dir',
        'own',
        '--cfg-options',
        'train_cfg.max_iters=2',
        'resume=False',
        cwd=project,
    )
    assert sorted(losses(project / 'own')) == [1, 2]


@needs_install
@pytest.mark.parametrize('by', ['pvd_mm', 'mmdet'])
def test_a_detector(by, tmp_path):
    """Shipped, trained and tested through mim; by its path mmdet takes it
    as well as we do."""
    config = (
        mim_root()
        / 'configs/pvd_mask_rcnn'
        / ('pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256.py')
    )
    make_shapes_sample(str(tmp_path / 'data/shapes'), train=12, val=2)
    if by == 'mmdet':
        by = installed('onedl-mmdetection', 'mmdet')
    options = (
        '--gpus',
        0,
        '--work-dir',
        'out',
        '--cfg-options',
        'default_hooks.logger.interval=1',
        'train_cfg.max_iters=2',
    )
    mim('train', by, config, '-y', *options, cwd=tmp_path)
    assert sorted(losses(tmp_path / 'out')) == [1, 2]
    out = mim(
        'test', by, config, '--checkpoint', 'out/iter_2.pth', *options, cwd=tmp_path
    )
    for metric in ('bbox_mAP', 'segm_mAP', 'boundary_mAP'):
        assert f'coco/{metric}' in out
    if by == 'pvd_mm':
        (record,), _ = read_records([str(tmp_path)])
        assert 'coco/segm_mAP' in record['result']
        assert record['data']['type'] == 'ShapesDataset'
        assert record['steps'] == 2
