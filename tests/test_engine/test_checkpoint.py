# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Checkpoints are whole or not there, and a broken one is named: by killing, by
cutting, and with a full disk."""

import os
import resource
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend

from helpers.commands import ROOT, losses
from pvd_mm.engine.checkpoint import is_readable, latest_checkpoint

pytest.importorskip('mmseg')

NINE = ('--cfg-options', 'train_cfg.max_iters=9')

#: Kill the process while a checkpoint is written: when half of it is in its file, or
#: when it has its name, and ``last_checkpoint`` and the old ones are as before.
KILLED = """
import os, signal, sys
from pvd_mm.engine.train import train
sync, synced = os.fsync, []
def fsync(file):
    name = os.readlink(f'/proc/self/fd/{file}')
    synced.append(name)
    if len(synced) == MOMENT:
        if os.path.isfile(name):
            os.ftruncate(file, os.fstat(file).st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    sync(file)
os.fsync = fsync
train(sys.argv[1], sys.argv[2], cfg_options={
    'train_cfg.max_iters': 9, 'default_hooks.checkpoint.max_keep_ckpts': 1})
"""


@pytest.fixture
def run_dir(trained, tmp_path):
    """A copy of a training's work dir, with iter_3.pth, iter_6.pth and a
    ``last_checkpoint`` that names the latter where it came from."""
    return shutil.copytree(trained, tmp_path / 'moved')


def cut(path):
    os.truncate(path, path.stat().st_size // 2)
    return path


def same_training(found, expected):
    """To the last bit: weights, optimizer and schedules."""
    found, expected = torch.load(found), torch.load(expected)
    for key in ('state_dict', 'optimizer', 'param_schedulers'):
        assert repr(_plain(found[key])) == repr(_plain(expected[key])), key


def _plain(value):
    if isinstance(value, torch.Tensor):
        return value.shape, value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(entry) for key, entry in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


@pytest.fixture(scope='module')
def uninterrupted(tiny_config, tmp_path_factory):
    from pvd_mm.engine.train import train

    work_dir = tmp_path_factory.mktemp('uninterrupted')
    train(str(tiny_config), str(work_dir), cfg_options={'train_cfg.max_iters': 9})
    return work_dir


# Of iter_3.pth its file and its folder are synced, then iter_6.pth's file, its folder.
@pytest.mark.parametrize(
    'moment, files, resumed',
    [(3, ['iter_3.pth'], 3), (4, ['iter_3.pth', 'iter_6.pth'], 6)],
)
def test_killed_while_a_checkpoint_is_written(
    tiny_config, uninterrupted, run_tool, tmp_path, moment, files, resumed
):
    code = KILLED.replace('MOMENT', str(moment))
    command = [sys.executable, '-W', 'ignore', '-c', code, tiny_config, tmp_path]
    env = dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT))
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    # max_keep_ckpts=1, and yet there is a whole one
    assert sorted(path.name for path in tmp_path.glob('*.pth')) == files
    assert all(map(is_readable, tmp_path.glob('*.pth')))
    assert (tmp_path / 'last_checkpoint').read_text().endswith('iter_3.pth')
    options = (*NINE, 'default_hooks.checkpoint.max_keep_ckpts=1')
    words = (tiny_config, '--work-dir', tmp_path, '--resume', *options)
    said = run_tool('train', *words)
    assert f'Resuming from {tmp_path}/iter_{resumed}.pth.' in said
    assert f'resumed epoch: 0, iter: {resumed}' in said
    same_training(tmp_path / 'iter_9.pth', uninterrupted / 'iter_9.pth')
    found, expected = losses(tmp_path), losses(uninterrupted)
    assert found == expected
    # what the killed process has left is gone
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_9.pth']
    assert list(tmp_path.glob('.*')) == []


def test_old_checkpoints_stay_until_the_new_one_is_written(
    tiny_config, run_tool, tmp_path, monkeypatch
):
    removed = []
    remove = LocalBackend.remove

    def note(self, path):
        removed.append(os.path.basename(path))
        kind = removed[-1].split('_')[0]
        others = [p for p in tmp_path.glob(f'{kind}_*.pth') if p.name != removed[-1]]
        assert others and all(map(is_readable, others))
        remove(self, path)

    monkeypatch.setattr(LocalBackend, 'remove', note)
    rising = iter(range(1, 10))
    result = 'mmseg.evaluation.IoUMetric.compute_metrics'
    monkeypatch.setattr(result, lambda self, results: dict(mIoU=next(rising)))
    run_tool(
        *('train', tiny_config, '--work-dir', tmp_path, '--cfg-options'),
        *('default_hooks.checkpoint.max_keep_ckpts=1', 'train_cfg.val_interval=3'),
        *('default_hooks.checkpoint.save_best=mIoU', 'train_cfg.max_iters=9'),
    )
    # at 6 and at 9 the last but one, and the best but one
    assert sorted(removed) == [
        *('best_mIoU_iter_3.pth', 'best_mIoU_iter_6.pth', 'iter_3.pth', 'iter_6.pth')
    ]
    left = sorted(path.name for path in tmp_path.glob('*.pth'))
    assert left == ['best_mIoU_iter_9.pth', 'iter_9.pth']


def test_a_full_disk(tiny_config, run_tool, tmp_path):
    limit, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        said = run_tool('train', tiny_config, '--work-dir', tmp_path, ok=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    last = said.splitlines()[-1]
    assert last == f'error: cannot write {tmp_path}/iter_3.pth: File too large'
    assert list(tmp_path.glob('*.pth')) == list(tmp_path.glob('.*')) == []


def test_the_newest_whole_one_is_resumed_from(tiny_config, run_dir, run_tool):
    broken = cut(run_dir / 'iter_6.pth')
    said = run_tool('train', tiny_config, '--work-dir', run_dir, '--resume')
    assert f'Passed over: {broken} is no checkpoint that can be read' in said
    assert f'Resuming from {run_dir}/iter_3.pth.' in said
    assert is_readable(broken)  # it was written again


def test_which_one_is_the_newest(run_dir):
    def newest():
        found = latest_checkpoint(run_dir)
        return found and os.path.relpath(found, run_dir)

    assert newest() == 'iter_6.pth'  # not the one that it was copied from
    for name in ('best_mIoU_iter_9.pth', 'iter_9-1234abcd.pth'):
        shutil.copy(run_dir / 'iter_3.pth', run_dir / name)
    torch.save(dict(weight=torch.ones(3)), run_dir / 'resnet18.pth')
    pointer = run_dir / 'last_checkpoint'
    for text in ('', '/gone/iter_5.pth'):  # cut off, and removed
        pointer.write_text(text)
        assert newest() == 'iter_6.pth'
    pointer.write_text('/gone/iter_3.pth')
    said = pointer.stat().st_mtime
    os.utime(run_dir / 'iter_6.pth', (said - 60, said - 60))
    assert newest() == 'iter_3.pth'  # the other is an earlier run's
    os.utime(run_dir / 'iter_6.pth', (said + 60, said + 60))
    assert newest() == 'iter_6.pth'  # killed before the pointer was written
    cut(run_dir / 'iter_6.pth')
    assert newest() == 'iter_3.pth'
    pointer.unlink()
    assert newest() == 'iter_3.pth'
    cut(run_dir / 'iter_3.pth')
    assert newest() is None


def test_checkpoints_in_another_folder(trained, tmp_path):
    """CheckpointHook's ``out_dir``."""
    (tmp_path / 'last_checkpoint').write_text(str(trained / 'iter_6.pth'))
    assert latest_checkpoint(tmp_path) == str(trained / 'iter_6.pth')
    (tmp_path / 'last_checkpoint').write_text('s3://bucket/iter_6.pth')
    assert latest_checkpoint(tmp_path / 'none') is None


def test_a_broken_file_is_named_in_one_line(tiny_config, run_dir, run_tool, tmp_path):
    broken = cut(run_dir / 'iter_6.pth')
    image = Config.fromfile(tiny_config).data_root + '/img/0.png'
    work_dir = ('--work-dir', tmp_path / 'work')
    options = ('train', tiny_config, *work_dir, '--cfg-options')
    pretrained = tmp_path / 'pretrained.py'
    pretrained.write_text(
        f'_base_ = {str(tiny_config)!r}\nmodel = dict(backbone=dict('
        f"init_cfg=dict(type='Pretrained', checkpoint={str(broken)!r})))"
    )
    for words in (
        ('test', tiny_config, broken, *work_dir),
        ('predict', tiny_config, broken, image, '--out', tmp_path / 'predicted'),
        ('compare', '--run', 'a', tiny_config, broken, '--out', tmp_path / 'compared'),
        ('train', tiny_config, *work_dir, '--resume', broken),
        (*options, f'load_from={broken}'),
        ('train', pretrained, *work_dir),
    ):
        last = run_tool(*words, ok=False).splitlines()[-1]
        assert f'{broken} is no checkpoint that can be read: ' in last, words
        assert last.endswith('It was cut off while it was written.')


def test_nothing_to_resume_from(tiny_config, run_tool, tmp_path):
    """Training starts as without ``--resume``: with the weights of ``load_from``."""
    said = run_tool(
        *('train', tiny_config, '--work-dir', tmp_path, '--resume'),
        *('--cfg-options', 'train_cfg.max_iters=1', f'load_from={tmp_path}/none.pth'),
        ok=False,
    )
    assert f'No checkpoint to resume from in {tmp_path}' in said
    assert f'load_from of the config not found: {tmp_path}/none.pth' in said
