# Copyright (c) PVD-MM contributors. Apache-2.0.
"""tools/train.py and tools/test.py as users type them."""

import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from helpers.commands import ROOT, losses, run, tool
from pvd_mm.data.samples import make_street_sample
from pvd_mm.engine.config import load_config
from pvd_mm.utils.errors import UsageError


@pytest.mark.parametrize('workers', [0, 2])
def test_resume_continues_to_the_same_losses(tiny_config, trained, tmp_path, workers):
    options = (
        '--cfg-options',
        f'train_dataloader.num_workers={workers}',
        f'train_dataloader.persistent_workers={workers > 0}',
    )
    tool(
        'train', tiny_config, '--work-dir', tmp_path, *options, 'train_cfg.max_iters=3'
    )
    assert sorted(losses(tmp_path)) == [1, 2, 3]
    # torch warns of more workers than cores, as it should where there is one core
    hidden = dict(PYTHONWARNINGS='ignore:This DataLoader will create')
    out = tool(
        'train', tiny_config, '--work-dir', tmp_path, '--resume', *options, **hidden
    )
    assert 'resumed epoch: 0, iter: 3' in out
    assert 'UserWarning' not in out and 'will be deprecated' not in out
    assert losses(tmp_path) == losses(trained)


def test_resume_without_a_seed_in_the_config(tiny_config, tmp_path):
    """The seed that mmengine drew is in the checkpoint."""
    plain = tmp_path / 'plain.py'
    plain.write_text(tiny_config.read_text().replace('randomness = dict(seed=3)\n', ''))
    tool('train', plain, '--work-dir', tmp_path / 'full')
    shutil.copytree(tmp_path / 'full', tmp_path / 'cut')
    shutil.rmtree(next((tmp_path / 'cut').glob('2*')))
    tool(
        'train',
        plain,
        '--work-dir',
        tmp_path / 'cut',
        '--resume',
        tmp_path / 'cut' / 'iter_3.pth',
    )
    full = losses(tmp_path / 'full')
    assert losses(tmp_path / 'cut') == {i: full[i] for i in (4, 5, 6)}


def test_two_processes_on_a_cpu(tiny_config, tmp_path):
    if torch.cuda.is_available():
        pytest.skip('for machines without a GPU')
    out = run(
        'bash',
        ROOT / 'tools' / 'dist_train.sh',
        tiny_config,
        2,
        '--work-dir',
        tmp_path,
        PORT='29517',
        PYTHON=sys.executable,
    )
    assert 'SyncBN settings of the model become BN' in out
    assert sorted(losses(tmp_path)) == [1, 2, 3, 4, 5, 6]
    out = run(
        'bash',
        ROOT / 'tools' / 'dist_test.sh',
        tiny_config,
        tmp_path / 'iter_6.pth',
        2,
        '--work-dir',
        tmp_path / 'test',
        PORT='29518',
        PYTHON=sys.executable,
    )
    assert 'mIoU' in out
    assert len(list(tmp_path.glob('test/records/*.json'))) == 1  # not one each


def test_amp_and_cfg_options(tiny_config, tmp_path):
    tool(
        'train',
        tiny_config,
        '--work-dir',
        tmp_path,
        '--amp',
        '--auto-scale-lr',
        '--cfg-options',
        'train_cfg.max_iters=2',
        'optim_wrapper.optimizer.lr=0.004',
    )
    found = losses(tmp_path)
    assert sorted(found) == [1, 2]
    assert all(torch.isfinite(torch.tensor(v)) for v in found.values())
    text = next(tmp_path.glob('*.py')).read_text()
    assert 'lr=0.004' in text and 'AmpOptimWrapper' in text


def test_test_writes_metrics_predictions_and_pictures(tiny_config, trained, tmp_path):
    tool(
        'test',
        tiny_config,
        trained / 'iter_6.pth',
        '--work-dir',
        tmp_path,
        '--out',
        tmp_path / 'out',
        '--show-dir',
        tmp_path / 'show',
    )
    metrics = json.loads(next(tmp_path.glob('2*/2*.json')).read_text())
    assert 0 <= metrics['mIoU'] <= 100
    assert len(list((tmp_path / 'out').glob('*.png'))) == 7
    assert list((tmp_path / 'show').rglob('*.png'))


def test_test_time_augmentation(tiny_config, trained, tmp_path):
    out = tool(
        'test', tiny_config, trained / 'iter_6.pth', '--tta', '--work-dir', tmp_path
    )
    assert 'mIoU' in out


def test_checkpoint_of_another_model(tiny_config, trained, tmp_path):
    out = tool(
        'test',
        tiny_config,
        trained / 'iter_6.pth',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'model.backbone.depth=34',
        'model.decode_head.num_classes=4',
        ok=False,
    )
    assert 'Traceback' not in out
    assert 'checkpoint of another model than EncoderDecoder' in out
    assert 'keys are missing from the file: backbone.layer1.2' in out
    assert '(3, 8, 1, 1) in the file, (4, 8, 1, 1) in the model' in out
    out = tool(
        'train',
        tiny_config,
        '--work-dir',
        tmp_path,
        '--resume',
        trained / 'iter_6.pth',
        '--cfg-options',
        'model.backbone.depth=34',
        ok=False,
    )
    assert 'checkpoint of another model' in out


def test_checkpoint_without_its_auxiliary_head(tiny_config, trained, tmp_path):
    out = tool(
        'test',
        tiny_config,
        trained / 'iter_6.pth',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'model.auxiliary_head=None',
    )
    assert 'mIoU' in out


def test_missing_checkpoint(tiny_config, trained, tmp_path):
    out = tool('test', tiny_config, trained / 'iter_7.pth', ok=False)
    assert 'Traceback' not in out
    assert 'iter_7.pth' in out and 'iter_6.pth' in out


def test_missing_config():
    out = tool('train', 'configs/pvd/pvd_r19-stage_1xb4-90k_cityscapes.py', ok=False)
    assert 'Traceback' not in out
    assert 'Config not found' in out
    assert 'pvd/pvd_r18-stage_1xb4-90k_cityscapes-512x1024.py' in out


def test_a_module_that_cannot_be_imported(tmp_path):
    """mmengine tells the name of the config's module alone."""
    config = tmp_path / 'mine.py'
    config.write_text("custom_imports = dict(imports=['nowhere'])\n")
    with pytest.raises(UsageError, match=r"mine\.py: No module named 'nowhere'"):
        load_config(str(config))


def test_amp_refused_with_another_wrapper(tiny_config, tmp_path):
    out = tool(
        'train',
        tiny_config,
        '--amp',
        '--work-dir',
        tmp_path,
        '--cfg-options',
        'optim_wrapper.type=ZeroWrapper',
        ok=False,
    )
    assert '--amp works with the optimizer wrapper' in out


def test_data_mistakes_are_told_without_a_traceback(tmp_path):
    """A missing folder, and a label that a worker process meets."""
    name = 'pvd_r18-stage-c32_1xb2-600_street-192x256'
    out = tool('train', name, '--work-dir', tmp_path / 'work', ok=False, cwd=tmp_path)
    assert 'leftImg8bit/train' in out and 'does not exist' in out
    assert 'Traceback' not in out
    make_street_sample(str(tmp_path / 'data/street'), train=2, val=1, size=(64, 128))
    for path in tmp_path.glob('data/street/gtFine/train/*/*.png'):
        Image.fromarray(np.full((64, 128), 33, np.uint8)).save(path)
    out = tool('train', name, '--work-dir', tmp_path / 'work', ok=False, cwd=tmp_path)
    assert 'holds the values 33' in out
    assert 'Traceback' not in out


@pytest.mark.parametrize('head', ['decode_head', 'auxiliary_head'])
def test_a_head_of_too_few_classes_is_told_before_the_first_step(
    tiny_config, tmp_path, run_tool, head
):
    out = run_tool(
        'train',
        tiny_config,
        '--work-dir',
        tmp_path,
        '--cfg-options',
        f'model.{head}.num_classes=2',
        ok=False,
    )
    assert f'{head} (FCNHead) has num_classes=2, but BaseSegDataset has 3' in out
    assert not losses(tmp_path)


def test_a_head_of_more_classes_is_trained_with_a_warning(
    tiny_config, tmp_path, run_tool
):
    options = ['train_cfg.max_iters=1', 'model.decode_head.num_classes=4']
    out = run_tool(
        'train', tiny_config, '--work-dir', tmp_path, '--cfg-options', *options
    )
    assert 'decode_head (FCNHead) has num_classes=4, but' in out
    assert list(losses(tmp_path)) == [1]
