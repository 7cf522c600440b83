# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The street sample with instances: the same pictures, two layouts, and what
cityscapesscripts makes of one is the other."""

import json
import os
import sys

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle_ops

from helpers.commands import ROOT, tool
from pvd_mm.data.converters import convert_cityscapes_panoptic
from pvd_mm.data.samples import (
    CLASSES,
    make_street_panoptic_sample,
    make_street_sample,
    street_panoptic_scene,
    street_scene,
)
from pvd_mm.data.samples.street.sample import LEAST_PIXELS
from pvd_mm.utils.errors import LabelError, MissingDataError, UserError

labels = pytest.importorskip('cityscapesscripts.helpers.labels')
SIZE = (96, 192)


@pytest.fixture
def conversion(tmp_path, monkeypatch):
    """cityscapesscripts' conversion imports, for 3D boxes, what it does not use."""
    folder = tmp_path / 'modules'
    folder.mkdir()
    (folder / 'pyquaternion.py').write_text('class Quaternion: ...')
    monkeypatch.syspath_prepend(folder)
    return os.pathsep.join([str(folder), str(ROOT)])


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp('street') / 's'
    assert make_street_panoptic_sample(root, 4, 3, SIZE)
    return root


def read(path):
    return json.loads(path.read_text())


def test_images_and_labels_are_those_of_the_street_sample(root, tmp_path):
    make_street_sample(tmp_path, 4, 3, SIZE)
    paths = [path.relative_to(tmp_path) for path in tmp_path.rglob('*.png')]
    assert len(paths) == 14
    assert all(
        (root / path).read_bytes() == (tmp_path / path).read_bytes() for path in paths
    )


@pytest.mark.parametrize('index', range(4))
def test_instances_are_parts_of_their_class(index):
    image, label, ids = street_panoptic_scene('val', index)
    assert all(
        (a == b).all() for a, b in zip(street_scene('val', index), (image, label))
    )
    kinds = np.where(ids < 1000, ids, ids // 1000)
    expected = np.zeros(256, int)
    for name in CLASSES:
        expected[labels.name2label[name].trainId] = labels.name2label[name].id
    assert (kinds == expected[label]).all()
    values, counts = np.unique(ids, return_counts=True)
    numbered = values >= 1000
    has_instances = [labels.id2label[int(k)].hasInstances for k in values // 1000]
    assert all(np.array(has_instances)[numbered])
    assert numbered.sum() >= 5 and (counts[numbered] >= LEAST_PIXELS).all()


def test_each_object_has_a_number_of_its_own():
    """Objects that do not touch are not the same one, as a rule: a car behind a pole
    is in two parts, but most are in one."""
    parts = []
    for index in range(4):
        _, _, ids = street_panoptic_scene('train', index)
        for value in np.unique(ids[ids >= 1000]):
            mask = (ids == value).astype(np.uint8)
            parts.append(cv2.connectedComponents(mask, connectivity=8)[0] - 1)
    assert np.mean(np.array(parts) == 1) > 0.7


@pytest.mark.parametrize('split, count', [('train', 4), ('val', 3)])
def test_cityscapesscripts_makes_the_same_of_the_instance_ids(
    root, split, count, conversion
):
    """COCO's format by another's code: segments, boxes, areas, crowds, ids, PNGs."""
    own = read(root / f'annotations/panoptic_{split}2017.json')
    counts = convert_cityscapes_panoptic(str(root), splits=[split])
    assert counts == {split: count}
    made = read(root / f'annotations/panoptic_{split}.json')
    assert made['images'] == own['images']
    assert made['annotations'] == own['annotations']
    keys = ('id', 'name', 'isthing')
    kept = [{key: c[key] for key in keys} for c in made['categories']]
    assert kept == own['categories']
    assert [c['isthing'] for c in kept] == [1] * 8 + [0] * 11
    for entry in own['annotations']:
        ours = root / f'annotations/panoptic_{split}2017' / entry['file_name']
        theirs = root / f'gtFine/cityscapes_panoptic_{split}' / entry['file_name']
        assert (cv2.imread(str(ours)) == cv2.imread(str(theirs))).all()
    for image in own['images']:
        assert (root / 'leftImg8bit' / split / image['file_name']).is_file()
    # the things alone, one in run lengths and one encoded
    objects = read(root / f'annotations/instances_{split}2017.json')
    encoded = read(root / f'annotations/instances_{split}.json')
    things = {c['id'] for c in objects['categories']}
    found = [s for a in own['annotations'] for s in a['segments_info']]
    assert len(objects['annotations']) == sum(s['category_id'] in things for s in found)
    for one, two in zip(objects['annotations'], encoded['annotations'], strict=True):
        mask = one.pop('segmentation')
        mask = rle_ops.decode(rle_ops.frPyObjects(mask, *SIZE))
        assert (mask == rle_ops.decode(two.pop('segmentation'))).all()
        assert one == two and mask.sum() == one['area']


def test_a_second_run_writes_nothing(root):
    assert not make_street_panoptic_sample(root, 4, 3, SIZE)
    (root / 'annotations/panoptic_val2017.json').unlink()
    assert make_street_panoptic_sample(root, 4, 3, SIZE)
    with pytest.raises(FileExistsError, match='seed: 0 there, 5 asked'):
        make_street_panoptic_sample(root, 4, 3, SIZE, seed=5)


def test_replacing_leaves_nothing_of_the_old(tmp_path):
    make_street_panoptic_sample(tmp_path / 'a', 3, 2, SIZE)
    make_street_panoptic_sample(tmp_path / 'a', 1, 1, SIZE, seed=1, force=True)
    make_street_panoptic_sample(tmp_path / 'b', 1, 1, SIZE, seed=1)
    a, b = (
        {p.relative_to(tmp_path / n): p for p in (tmp_path / n).rglob('*.*')}
        for n in 'ab'
    )
    assert a.keys() == b.keys()
    assert all(a[p].read_bytes() == b[p].read_bytes() for p in a)


def test_the_converter_as_a_tool(root, tmp_path, conversion):
    env = dict(PYTHONPATH=conversion)
    said = tool('dataset_converters/cityscapes', root, '--panoptic', '--force', **env)
    assert all(
        line in said for line in ('train: 4 images\n', 'val: 3 images\n', 'Before a')
    )
    said = tool('dataset_converters/cityscapes', root, '--panoptic', **env)
    assert 'train: kept\nval: kept' in said
    empty = tmp_path / 'empty'
    said = tool('dataset_converters/cityscapes', empty, '--panoptic', ok=False, **env)
    assert 'instance ids are expected as gtFine/train/' in said
    assert 'Traceback' not in said


def test_what_cannot_be_converted(root, tmp_path, monkeypatch, conversion):
    with pytest.raises(MissingDataError, match='gtFine/val/.*instanceIds.png'):
        convert_cityscapes_panoptic(str(tmp_path), splits=['val'])
    folder = tmp_path / 'gtFine/val/ulm'
    folder.mkdir(parents=True)
    path = folder / 'ulm_000000_000019_gtFine_instanceIds.png'
    cv2.imwrite(str(path), np.full((4, 4), 777, np.uint16))
    with pytest.raises(LabelError, match='hold 777, which is no label id'):
        convert_cityscapes_panoptic(str(tmp_path), splits=['val'])
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(UserError, match='cannot be read'):
        convert_cityscapes_panoptic(str(tmp_path), splits=['val'])
    assert not (tmp_path / 'annotations').exists()
    monkeypatch.setitem(
        sys.modules, 'cityscapesscripts.preparation.createPanopticImgs', None
    )
    with pytest.raises(UserError, match='cannot be imported.*pip install'):
        convert_cityscapes_panoptic(str(tmp_path), splits=['val'])
