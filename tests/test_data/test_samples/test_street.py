# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The built-in street sample."""

import hashlib
import json
import subprocess
import sys

import cv2
import numpy as np
import pytest

from helpers.commands import ROOT
from pvd_mm.data.samples import CLASSES, make_street_sample, street_scene

SIZE = (96, 192)
TOOL = ROOT / 'tools' / 'make_sample.py'


def digests(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob('*.png'))
    }


def test_layout_is_that_of_cityscapes(tmp_path):
    from mmseg.datasets import CityscapesDataset

    assert make_street_sample(tmp_path / 's', 4, 3, SIZE)
    for split, count in (('train', 4), ('val', 3)):
        dataset = CityscapesDataset(
            data_root=str(tmp_path / 's'),
            data_prefix=dict(
                img_path=f'leftImg8bit/{split}', seg_map_path=f'gtFine/{split}'
            ),
        )
        assert len(dataset) == count
        for info in dataset:
            image = cv2.imread(info['img_path'], cv2.IMREAD_UNCHANGED)
            label = cv2.imread(info['seg_map_path'], cv2.IMREAD_UNCHANGED)
            assert image.shape == (*SIZE, 3) and image.dtype == np.uint8
            assert label.shape == SIZE and label.dtype == np.uint8
            assert set(np.unique(label)) <= {*range(19), 255}
    assert CLASSES == CityscapesDataset.METAINFO['classes']


def test_same_seed_same_bytes_and_counts_do_not_matter(tmp_path):
    make_street_sample(tmp_path / 'a', 3, 2, SIZE)
    make_street_sample(tmp_path / 'b', 3, 2, SIZE)
    make_street_sample(tmp_path / 'c', 5, 1, SIZE)
    a, b, c = (digests(tmp_path / name) for name in 'abc')
    assert a == b and len(a) == 10
    common = a.keys() & c.keys()
    assert len(common) == 8
    assert all(a[name] == c[name] for name in common)


def test_seeds_splits_and_indices_differ():
    scenes = [
        street_scene('train', 0, 0, SIZE),
        street_scene('train', 1, 0, SIZE),
        street_scene('val', 0, 0, SIZE),
        street_scene('train', 0, 1, SIZE),
    ]
    for i, (image, label) in enumerate(scenes):
        for other_image, other_label in scenes[:i]:
            assert (image != other_image).mean() > 0.3
            assert (label != other_label).any()


@pytest.mark.parametrize('split', ['train', 'val'])
def test_seven_scenes_show_every_class(split):
    count = np.zeros(256, int)
    for index in range(7):
        _, label = street_scene(split, index)
        count += np.bincount(label.ravel(), minlength=256)
    assert (count[:19] > 50).all(), count[:19]
    assert count[19:255].sum() == 0
    assert 0 < count[255] < 0.2 * count.sum()


def test_poles_are_thin_and_colour_alone_is_not_enough():
    widths, means = [], []
    for index in range(4):
        image, label = street_scene('train', index)
        for row in label[20:120]:
            padded = np.concatenate([[0], row == 5, [0]]).astype(np.int8)
            edges = np.flatnonzero(np.diff(padded))
            widths += (edges[1::2] - edges[::2]).tolist()
        means.append(
            [image[label == c].mean(0) for c in (0, 2, 8, 13) if (label == c).any()]
        )
    assert np.median(widths) <= 4
    # nearest class colour: far from solving it
    image, label = street_scene('val', 3)
    known = label < 19
    colors = np.array(
        [
            image[label == c].mean(0) if (label == c).any() else [1e4] * 3
            for c in range(19)
        ]
    )
    distance = np.linalg.norm(image[..., None, :] - colors, axis=-1)
    right = (distance.argmin(-1) == label)[known].mean()
    assert right < 0.75


def test_second_run_writes_nothing_and_interrupted_one_completes(tmp_path):
    make_street_sample(tmp_path, 3, 2, SIZE)
    before = digests(tmp_path)
    image = next(tmp_path.rglob('*train*/**/*_leftImg8bit.png'))
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file()}
    assert not make_street_sample(tmp_path, 3, 2, SIZE)
    assert times == {
        p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file()
    }
    image.unlink()
    assert make_street_sample(tmp_path, 3, 2, SIZE)
    assert digests(tmp_path) == before

    def stop_after_two(jobs):
        yield from jobs[:2]
        raise KeyboardInterrupt

    other = tmp_path.with_name(tmp_path.name + '_stopped')
    with pytest.raises(KeyboardInterrupt):
        make_street_sample(other, 3, 2, SIZE, progress=stop_after_two)
    assert make_street_sample(other, 3, 2, SIZE)
    assert digests(other) == before


def test_other_parameters_need_force(tmp_path):
    make_street_sample(tmp_path, 4, 2, SIZE)
    mine = tmp_path / 'gtFine' / 'note.txt'
    mine.write_text('kept')
    with pytest.raises(FileExistsError, match='train: 4 there, 3 asked.*--force'):
        make_street_sample(tmp_path, 3, 2, SIZE)
    assert make_street_sample(tmp_path, 3, 2, SIZE, force=True)
    assert len(digests(tmp_path)) == 10
    assert mine.read_text() == 'kept'
    assert json.loads((tmp_path / 'street.json').read_text())['train'] == 3


@pytest.mark.parametrize('marker', [None, 'no json', '[]', '{"sample": "x"}'])
def test_foreign_folder_is_left_alone(tmp_path, marker):
    (tmp_path / 'precious.txt').write_text('mine')
    if marker:
        (tmp_path / 'street.json').write_text(marker)
    before = sorted(tmp_path.rglob('*'))
    for force in (False, True):
        with pytest.raises(FileExistsError, match='no street sample'):
            make_street_sample(tmp_path, 1, 1, SIZE, force=force)
    assert sorted(tmp_path.rglob('*')) == before


def test_refuses_bad_arguments(tmp_path):
    for kwargs, text in (
        (dict(train=0), 'train is 0'),
        (dict(val=-1), 'val is -1'),
        (dict(seed=-1), 'seed is -1'),
        (dict(size=(8, 512)), r'size is \(8, 512\)'),
    ):
        with pytest.raises(ValueError, match=text):
            make_street_sample(tmp_path / 'x', **kwargs)
    with pytest.raises(ValueError, match='split'):
        street_scene('test', 0)
    (tmp_path / 'file').write_text('')
    with pytest.raises(NotADirectoryError):
        make_street_sample(tmp_path / 'file')
    assert not (tmp_path / 'x').exists()


def test_tool(tmp_path):
    command = [sys.executable, str(TOOL), '--out', str(tmp_path / 's')]
    command += ['--train', '1', '--val', '1', '--size', '96x192']
    root = str(TOOL.parents[1])
    for expected in ('1 train and 1 val scenes drawn', 'nothing to do'):
        done = subprocess.run(
            command, capture_output=True, text=True, env=_environment(root)
        )
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    done = subprocess.run(
        [*command, '--seed', '3'],
        capture_output=True,
        text=True,
        env=_environment(root),
    )
    assert done.returncode == 1
    assert '--force' in done.stderr and 'Traceback' not in done.stderr


def _environment(root):
    import os

    path = os.pathsep.join([root, os.environ.get('PYTHONPATH', '')])
    return dict(os.environ, PYTHONPATH=path.rstrip(os.pathsep))
