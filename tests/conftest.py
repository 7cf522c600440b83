# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What tests of several folders share: a fresh mmengine for each test, programs
run in this process, small data sets, and models of shipped configs on them."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch.utils.data
from PIL import Image

from helpers.commands import ROOT, losses, tool
from helpers.untrained import DETECTOR, PANOPTIC, SEGMENTOR, make
from pvd_mm.data.samples import (
    make_shapes_sample,
    make_street_panoptic_sample,
    make_street_sample,
)

TINY = Path(__file__).parent / 'helpers/tiny_fcn.py'
# Seconds that a loader waits for each of its workers to end. Those of a runner that
# was replaced in this process never do: the garbage collector ends the queue that
# would tell them to before the loader, which then waits in vain (torch's are 5).
torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5
SCOPES = dict(test_semantic='mmseg', test_instance='mmdet', test_panoptic='mmdet')


def _forget_instances():
    from mmengine.utils import ManagerMixin

    kinds = [ManagerMixin]
    for kind in kinds:  # grows
        kinds += kind.__subclasses__()
        kind._instance_dict.clear()


@pytest.fixture(autouse=True)
def _fresh_mmengine(request):
    """mmengine keeps the default scope, the logger, the message hub and the
    visualizer of a process; a test must not find those of another test, for
    which test runs before it in a process depends on the machine."""
    from mmengine.registry import init_default_scope

    _forget_instances()
    scope = SCOPES.get(request.path.parent.name)
    if scope:
        init_default_scope(scope)


@pytest.fixture
def run_tool(monkeypatch, capsys):
    """Runs a tool in this process, which has imported everything, with a fresh
    mmengine, and gives what it prints. Arguments as of ``helpers.commands.tool``."""

    def run(name, *words, ok=True):
        path = str(ROOT / 'tools' / f'{name}.py')
        _forget_instances()
        monkeypatch.setattr(sys, 'argv', [path, *map(str, words)])
        try:
            runpy.run_path(path, run_name='__main__')
        except SystemExit as end:
            assert ok is not bool(end.code), end.code
            if isinstance(end.code, str):
                print(end.code)
        else:
            assert ok
        return ''.join(capsys.readouterr())

    return run


@pytest.fixture(scope='session')
def street(tmp_path_factory):
    """Three street scenes, in two folders."""
    root = tmp_path_factory.mktemp('street')
    make_street_sample(root, 1, 3, (64, 128))
    return root


@pytest.fixture(scope='session')
def segmentor(street, tmp_path_factory):
    base = 'pvd/pvd_r18-stage-c32_1xb2-600_street-192x256.py'
    text = SEGMENTOR.format(base=base, head='', root=str(street))
    return make(tmp_path_factory.mktemp('segmentor'), 'pvd', text)


@pytest.fixture(scope='session')
def baseline(street, tmp_path_factory):
    base = 'deeplabv3/deeplabv3_r18-d8-c32_1xb2-600_street-192x256.py'
    text = SEGMENTOR.format(base=base, head='', root=str(street))
    return make(tmp_path_factory.mktemp('baseline'), 'deeplabv3', text, seed=1)


@pytest.fixture(scope='session')
def shapes(tmp_path_factory):
    root = tmp_path_factory.mktemp('shapes')
    make_shapes_sample(root, 1, 3, (96, 128))
    return root


@pytest.fixture(scope='session')
def detector(shapes, tmp_path_factory):
    base = 'pvd_mask_rcnn/pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256.py'
    text = DETECTOR.format(base=base, root=str(shapes))
    return make(tmp_path_factory.mktemp('detector'), 'pvd-mask-rcnn', text)


@pytest.fixture(scope='session')
def street_panoptic(tmp_path_factory):
    """Five street scenes with instances."""
    root = tmp_path_factory.mktemp('street-panoptic')
    make_street_panoptic_sample(root / 's', 2, 3, (96, 128))
    return root / 's'


@pytest.fixture(scope='session')
def panoptic(street_panoptic, tmp_path_factory):
    base = 'pvd_panoptic/pvd-panoptic_r18-fpn-c32_1xb2-600_street-panoptic-192x256.py'
    text = PANOPTIC.format(base=base, root=str(street_panoptic))
    return make(tmp_path_factory.mktemp('panoptic'), 'pvd-panoptic', text)


@pytest.fixture(scope='session')
def panoptic_baseline(street_panoptic, tmp_path_factory):
    base = 'panoptic_fpn/panoptic-fpn_r18-c32_1xb2-600_street-panoptic-192x256.py'
    text = PANOPTIC.format(base=base, root=str(street_panoptic))
    return make(tmp_path_factory.mktemp('panoptic-fpn'), 'panoptic-fpn', text, seed=1)


@pytest.fixture(scope='session')
def tiny_data(tmp_path_factory):
    """Seven images of 48 x 64 with three classes."""
    root = tmp_path_factory.mktemp('tiny')
    rng = np.random.default_rng(0)
    for folder in ('img', 'ann'):
        (root / folder).mkdir()
    for i in range(7):
        label = np.zeros((48, 64), np.uint8)
        label[10:30, 5 + i * 4 : 25 + i * 4] = 1
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
