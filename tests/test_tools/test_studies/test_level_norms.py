# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The sizes of the decoded maps and their gradients, in a real training."""

import math
import subprocess
import sys

import pytest
from mmengine.config import Config

from helpers.commands import ROOT
from pvd_mm.data.samples import make_street_sample
from pvd_mm.decoder import PixelVotingDecoder
from pvd_mm.utils.errors import UserError
from studies.level_norms import LevelNorms, plot, record_level_norms, table

PVD = 'pvd_r18-stage-c32_1xb2-600_street-192x256'


@pytest.fixture(scope='module')
def street(tmp_path_factory):
    folder = tmp_path_factory.mktemp('street')
    make_street_sample(str(folder), train=4, val=1)
    return {
        'train_dataloader.dataset.data_root': str(folder),
        'val_dataloader.dataset.data_root': str(folder),
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False,
    }


def test_against_autograd(street, tmp_path, monkeypatch):
    """The last step's figures are those of the tensors themselves."""
    kept = []
    forward = PixelVotingDecoder.forward

    def keep(self, maps, top):
        decoded = forward(self, maps, top)
        kept[:] = decoded
        for y in decoded:
            y.retain_grad()
        return decoded

    monkeypatch.setattr(PixelVotingDecoder, 'forward', keep)
    norms = record_level_norms('plain', PVD, str(tmp_path), 2, street)
    assert len(norms.decoded) == len(norms.gradients) == 2
    assert not norms.diverged

    def rms(x):
        return (x.double().norm() / x.numel() ** 0.5).item()

    assert norms.decoded[-1] == pytest.approx([rms(y) for y in kept])
    assert norms.gradients[-1] == pytest.approx([rms(y.grad) for y in kept], rel=1e-4)


def test_table_and_plot(tmp_path):
    norms = LevelNorms('a', [[1.0, 2.0], [3.0, 4.0]], [[0.1, 0.2], [0.1, 0.4]])
    assert table([norms]).endswith('| a | 1 | 3 | 4 | 3 | 4 |')
    plot([norms, norms], str(tmp_path / 'a.png'))
    assert (tmp_path / 'a.png').read_bytes()[:4] == b'\x89PNG'
    assert LevelNorms('b', [[math.inf]], [[0.0]]).diverged


@pytest.mark.parametrize(
    'config,message',
    [
        ('deeplabv3_r18-d8-c32_1xb2-600_street-192x256', 'no PixelVotingDecoder'),
        ('pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256', 'is of mmdet'),
        ('pvd_r19', 'pvd_r19'),
    ],
)
def test_configs_without(street, tmp_path, config, message):
    with pytest.raises(UserError, match=message):
        record_level_norms('x', config, str(tmp_path), 1, street)


def test_the_tool(street, tmp_path):
    root = ROOT
    words = [f'{key}={value}' for key, value in street.items()]
    done = subprocess.run(
        [
            sys.executable,
            str(root / 'tools/level_norms.py'),
            PVD,
            '--out',
            str(tmp_path),
            '--steps',
            '1',
            '--vary',
            'model.decode_head.decoder.vote_norm=tanh;model.decode_head.decoder.groups=19',
            'narrow: model.decode_head.decoder.vote_channels=2',
            '--cfg-options',
            *words,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert '| plain | 4 |' in done.stdout
    assert '| vote_norm=tanh, groups=19 | 4 |' in done.stdout
    assert '| narrow | 4 |' in done.stdout
    assert (tmp_path / 'level_norms.png').is_file()
    head = Config.fromfile(next((tmp_path / '1').rglob('*.py'))).model.decode_head
    assert head.decoder == dict(vote_norm='tanh', groups=19)
