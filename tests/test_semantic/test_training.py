# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Shipped configs through the real Runner, on real files."""

from pathlib import Path

import pytest
import torch
from mmengine.runner import Runner

from helpers.real_data import CAMVID, needs_camvid
from pvd_mm.data.samples.street import make_street_sample
from pvd_mm.engine.config import load_config


def shorten(cfg, data_root, size, steps=2, images=2):
    """Nothing but paths, sizes and lengths."""
    cfg.merge_from_dict(
        {
            'train_cfg.max_iters': steps,
            'train_cfg.val_interval': steps,
            'default_hooks.logger.interval': 1,
            'model.data_preprocessor.size': size,
            'train_dataloader.dataset.pipeline.3.crop_size': size,
            'train_dataloader.batch_size': 2,
        }
    )
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        loader.dataset.data_root = str(data_root)
        loader.dataset.indices = images
        loader.num_workers = 0
        loader.persistent_workers = False
    return cfg


def run(cfg):
    """Train, then test the checkpoint; returns the test's metrics."""
    Runner.from_cfg(cfg).train()
    work_dir = Path(cfg.work_dir)
    checkpoint = work_dir / (work_dir / 'last_checkpoint').read_text()
    assert checkpoint.is_file()
    cfg.load_from = str(checkpoint)
    return Runner.from_cfg(cfg).test()


@pytest.fixture(autouse=True)
def _one_experiment(monkeypatch):
    torch.manual_seed(0)


@pytest.mark.parametrize(
    'name',
    [
        'pvd/pvd_r18-stage-c32_1xb2-600_street-192x256.py',
        'deeplabv3/deeplabv3_r18-d8-c32_1xb2-600_street-192x256.py',
    ],
)
def test_the_built_in_sample(name, tmp_path):
    make_street_sample(str(tmp_path / 'street'), train=2, val=2, size=(64, 128))
    cfg = load_config(name, str(tmp_path / 'work'))
    metrics = run(shorten(cfg, tmp_path / 'street', (48, 64)))
    assert 0 <= metrics['mIoU'] <= 100
    assert 0 <= metrics['mBoundaryIoU'] <= 100


@needs_camvid
@pytest.mark.parametrize(
    'name',
    [
        'pvd/pvd_r18-stage_1xb8-8k_camvid-360x480.py',
        'deeplabv3/deeplabv3_r18-d8_1xb8-8k_camvid-360x480.py',
    ],
)
def test_camvid(name, tmp_path):
    cfg = load_config(name, str(tmp_path / 'work'))
    metrics = run(shorten(cfg, CAMVID, (90, 120)))
    assert 0 <= metrics['mIoU'] <= 100
