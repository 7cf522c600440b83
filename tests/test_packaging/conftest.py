# Copyright (c) PVD-MM contributors. Apache-2.0.
from pathlib import Path

import numpy as np
import pytest
from packaging_helpers import losses, tool
from PIL import Image

TINY = Path(__file__).with_name('tiny_fcn.py')


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory):
    """Seven images of 48 x 64 with three classes."""
    root = tmp_path_factory.mktemp('tiny')
    rng = np.random.default_rng(0)
    for folder in ('img', 'ann'):
        (root / folder).mkdir()
    for i in range(7):
        label = np.zeros((48, 64), np.uint8)
        label[10:30, 5 + i * 4:25 + i * 4] = 1
        label[35:] = 2
        noise = rng.integers(0, 40, (48, 64, 3))
        image = (label[..., None] * 90 + noise).astype(np.uint8)
        Image.fromarray(image).save(root / 'img' / f'{i}.png')
        Image.fromarray(label).save(root / 'ann' / f'{i}.png')
    return root


@pytest.fixture(scope='session')
def tiny_config(tiny_data, tmp_path_factory):
    """A config for the tiny data, in a folder of its own."""
    path = tmp_path_factory.mktemp('config') / 'tiny_fcn.py'
    text = TINY.read_text().replace("'data/tiny'", repr(str(tiny_data)))
    path.write_text(text)
    return path


@pytest.fixture(scope='session')
def trained(tiny_config, tmp_path_factory):
    """Work dir of an uninterrupted run of six iterations."""
    work_dir = tmp_path_factory.mktemp('trained')
    tool('train', tiny_config, '--work-dir', work_dir)
    assert sorted(losses(work_dir)) == [1, 2, 3, 4, 5, 6]
    return work_dir
