# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The built-in shapes sample."""

import contextlib
import hashlib
import io
import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest

from helpers.commands import ROOT
from pvd_mm.data.samples import SHAPES_CLASSES, make_shapes_sample, shapes_scene
from pvd_mm.data.samples.shapes.figures import FIGURES
from pvd_mm.data.samples.shapes.masks import mask_outline, mask_runs
from pvd_mm.data.samples.shapes.scene import (
    LEAST_PIXELS,
    LEAST_SHARE,
    SceneObject,
    ShapesScene,
)

SIZE = (96, 128)
TOOL = ROOT / 'tools' / 'make_sample.py'


def digests(root):
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob('*'))
        if p.is_file()
    }


def index_of(image):
    """Number of the scene, from its image's id."""
    return (image['id'] - 1) % 1_000_000


@pytest.fixture(scope='module')
def sample(tmp_path_factory):
    out = tmp_path_factory.mktemp('sample') / 'shapes'
    assert make_shapes_sample(out, 24, 12)
    return out


@pytest.fixture(scope='module')
def load(sample):
    coco = pytest.importorskip('pycocotools.coco')

    def load(split):
        with contextlib.redirect_stdout(io.StringIO()):
            return coco.COCO(str(sample / f'annotations/instances_{split}2017.json'))

    return load


# -------------------------------------------------------------- the drawing
def test_scene():
    image, objects = shapes_scene('train', 0)
    assert image.shape == (192, 256, 3) and image.dtype == np.uint8
    assert len(objects) > 0
    seen = np.zeros((192, 256), int)
    for drawn in objects:
        assert isinstance(drawn, SceneObject) and drawn.category in SHAPES_CLASSES
        for mask in (drawn.mask, drawn.visible):
            assert mask.shape == (192, 256) and mask.dtype == bool
        assert not (drawn.visible & ~drawn.mask).any()
        seen += drawn.visible
    assert seen.max() == 1
    assert (objects[-1].mask == objects[-1].visible).all()


def test_seeds_splits_and_indices_differ():
    scenes = [('train', 0, 0), ('train', 1, 0), ('val', 0, 0), ('train', 0, 1)]
    images = [shapes_scene(*scene, SIZE)[0] for scene in scenes]
    for i, image in enumerate(images):
        assert (image == shapes_scene(*scenes[i], SIZE)[0]).all()
        for other in images[:i]:
            assert (image != other).mean() > 0.3


def test_what_a_sample_has():
    """Empty images, crowds, overlaps, holes, pieces, all sizes and classes."""
    counts, areas, classes = [], [], []
    empty = crowds = hidden = holes = pieces = 0
    for index in range(60):
        image, objects = shapes_scene('train', index)
        plain = [drawn for drawn in objects if not drawn.crowd]
        crowds += len(objects) - len(plain)
        empty += not objects
        assert bool(plain) == bool(objects)
        if plain:
            counts.append(len(plain))
        for drawn in plain:
            classes.append(drawn.category)
            areas.append(drawn.visible.sum())
            hidden += areas[-1] < 0.95 * drawn.mask.sum()
            _, tree = cv2.findContours(
                drawn.visible.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
            )
            holes += (tree[0][:, 3] >= 0).any()
            pieces += (tree[0][:, 3] < 0).sum() > 1
    assert 4 <= empty <= 6 and 4 <= crowds <= 6
    assert min(counts) == 1 and max(counts) == 7
    assert set(classes) == set(SHAPES_CLASSES)
    areas = np.array(areas)
    assert min(areas) >= LEAST_PIXELS
    for low, high, share in ((0, 32**2, 0.3), (32**2, 96**2, 0.3), (96**2, 1e9, 0.02)):
        assert ((areas >= low) & (areas < high)).mean() > share
    for count in (hidden, holes, pieces):
        assert count > 0.1 * len(areas)


def test_eight_scenes_show_every_class():
    for split in ('train', 'val'):
        shown = {
            drawn.category
            for index in range(8)
            for drawn in shapes_scene(split, index, 0, SIZE)[1]
        }
        assert shown == set(SHAPES_CLASSES)


@pytest.mark.parametrize('category', SHAPES_CLASSES)
def test_figures(category):
    """In one piece, within the reach, with holes and thin parts as named."""
    make, least, _ = FIGURES[category]
    y, x = np.mgrid[-60:60, -60:60].astype(np.float32)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        r = float(rng.uniform(least, 50)) if seed % 2 else float(least)
        figure, (dx, dy) = make(rng, r), rng.uniform(0, 1, 2).tolist()
        cos, sin = np.float32(np.cos(seed)), np.float32(np.sin(seed))
        u = cos * (x - dx) + sin * (y - dy)
        v = cos * (y - dy) - sin * (x - dx)
        distance = figure(u, v)
        assert distance.dtype == np.float32
        mask = distance < 0
        assert mask.sum() >= LEAST_PIXELS
        assert np.hypot(u, v)[mask].max() < r + 0.5
        _, tree = cv2.findContours(
            mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE
        )
        assert (tree[0][:, 3] < 0).sum() == 1
        assert (tree[0][:, 3] >= 0).sum() == (category in ('ring', 'frame'))
        if category in ('lamp', 'comb', 'leaf'):
            # a thin part: opening with a small square takes pixels away
            side = 3 + round(0.2 * r)
            opened = cv2.morphologyEx(
                mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((side, side), np.uint8)
            )
            assert mask.sum() - opened.sum() > 0.5 * r


def test_what_can_hardly_be_seen_is_not_there():
    class Pile(ShapesScene):
        def plan(self):
            def disc(x, r):
                return 'disc', False, [self.part('disc', x, 60.0, r)]

            return [disc(64.0, 20.0), disc(30.0, 12.0), disc(30.0, 13.0),
                    disc(64.0, 45.0)]  # fmt: skip

    _, objects = Pile(np.random.default_rng(0), 120, 128, 'disc').render()
    assert len(objects) == 2
    for drawn in objects:
        assert drawn.visible.sum() >= LEAST_SHARE * drawn.mask.sum()


# ---------------------------------------------------------------- the files
def test_layout_is_that_of_coco(sample):
    assert json.loads((sample / 'shapes.json').read_text())['complete'] is True
    every = set()
    for split, count in (('train', 24), ('val', 12)):
        content = json.loads(
            (sample / f'annotations/instances_{split}2017.json').read_text()
        )
        assert set(content) == {
            'info', 'licenses', 'images', 'annotations', 'categories'
        }  # fmt: skip
        categories = {c['id']: c['name'] for c in content['categories']}
        assert categories == dict(enumerate(SHAPES_CLASSES, 1))
        images = {image['id']: image for image in content['images']}
        assert len(images) == len(content['images']) == count
        licenses = [entry['id'] for entry in content['licenses']]
        for image in images.values():
            assert image['file_name'] == f'{image["id"]:012d}.png'
            assert image['license'] in licenses
            pixels = cv2.imread(
                str(sample / f'{split}2017' / image['file_name']), cv2.IMREAD_UNCHANGED
            )
            assert pixels.shape == (image['height'], image['width'], 3)
            drawn, _ = shapes_scene(split, index_of(image))
            assert (pixels[..., ::-1] == drawn).all()
        for kind in ('images', 'annotations'):
            ids = [entry['id'] for entry in content[kind]]
            assert len(set(ids)) == len(ids) and min(ids) > 0 and max(ids) < 2**31
            assert ids == sorted(ids)
            ids = {(kind, i) for i in ids}
            assert not every & ids
            every |= ids
        for ann in content['annotations']:
            assert ann['image_id'] in images and ann['category_id'] in categories
            assert ann['iscrowd'] in (0, 1)
            if ann['iscrowd']:
                assert isinstance(ann['segmentation'], dict)
        empty = set(images) - {a['image_id'] for a in content['annotations']}
        assert len(empty) in (1, 2)
        assert any(a['iscrowd'] for a in content['annotations'])


def test_every_outline_decodes_to_the_drawn_mask(load):
    from pycocotools import mask as rle_ops

    forms = set()
    for split in ('train', 'val'):
        coco = load(split)
        for image in coco.dataset['images']:
            _, objects = shapes_scene(split, index_of(image))
            annotations = coco.loadAnns(coco.getAnnIds(image['id']))
            assert len(annotations) == len(objects)
            for ann, drawn in zip(annotations, objects, strict=True):
                mask = coco.annToMask(ann)
                assert (mask == drawn.visible).all()
                assert ann['area'] == mask.sum()
                box = rle_ops.toBbox(coco.annToRLE(ann)).tolist()
                assert ann['bbox'] == box
                assert SHAPES_CLASSES[ann['category_id'] - 1] == drawn.category
                assert ann['iscrowd'] == drawn.crowd
                forms.add((type(ann['segmentation']), ann['iscrowd']))
    assert forms == {(list, 0), (dict, 0), (dict, 1)}


@pytest.mark.parametrize('fill', [0.1, 0.5, 0.9])
def test_outlines_of_any_mask(fill):
    rle_ops = pytest.importorskip('pycocotools.mask')
    rng = np.random.default_rng(0)
    traced = 0
    for size in [(1, 1), (1, 7), (6, 1), *[(5, 7)] * 40, *[(30, 20)] * 20]:
        mask = rng.random(size) < fill
        runs = rle_ops.frPyObjects(mask_runs(mask), *size)
        assert (rle_ops.decode(runs) == mask).all()
        # its largest piece, at the border of the image as well
        _, labels = cv2.connectedComponents(mask.astype(np.uint8))
        areas = np.bincount(labels[mask], minlength=2)
        piece = mask & (labels == areas[1:].argmax() + 1)
        outline = mask_outline(piece) if piece.any() else None
        if outline is not None:
            traced += 1
            decoded = rle_ops.decode(rle_ops.frPyObjects([outline], *size))
            assert (decoded[..., 0] == piece).all()
    assert traced > 5
    assert mask_outline(np.zeros((4, 4), bool)) is None
    assert mask_outline(np.bool_([[1, 0, 1]])) is None
    assert mask_outline(np.bool_([[1, 1, 1], [1, 0, 1], [1, 1, 1]])) is None
    assert mask_outline(np.bool_([[1, 0]])) == [0, 0, 0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize('kind', ['bbox', 'segm'])
def test_ground_truth_against_itself(load, kind):
    from pycocotools import mask as rle_ops
    from pycocotools.cocoeval import COCOeval

    truth = load('val')
    detections = []
    for ann in truth.dataset['annotations']:
        if not ann['iscrowd']:
            segmentation = truth.annToRLE(ann)
            detections.append(
                dict(
                    image_id=ann['image_id'],
                    bbox=ann['bbox'],
                    score=1.0,
                    category_id=ann['category_id'],
                    segmentation=segmentation,
                )
            )
            continue
        # single members of a crowd are neither right nor wrong
        _, labels = cv2.connectedComponents(truth.annToMask(ann))
        member = np.asfortranarray(labels == 1, np.uint8)
        segmentation = rle_ops.encode(member)
        detections.append(
            dict(
                image_id=ann['image_id'],
                score=1.0,
                bbox=rle_ops.toBbox(segmentation).tolist(),
                category_id=ann['category_id'],
                segmentation=segmentation,
            )
        )
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, truth.loadRes(detections), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # AP, AP50, AP75, small, medium; loadRes takes a mask's area, so all is 1
    assert evaluation.stats[:5].tolist() == pytest.approx([1] * 5)


def test_same_seed_same_bytes_and_counts_do_not_matter(tmp_path):
    make_shapes_sample(tmp_path / 'a', 5, 2, SIZE)
    make_shapes_sample(tmp_path / 'b', 5, 2, SIZE, progress=reversed)
    make_shapes_sample(tmp_path / 'c', 4, 3, SIZE)
    a, c = digests(tmp_path / 'a'), digests(tmp_path / 'c')
    b = digests(tmp_path / 'b')
    assert len(a) == 10
    assert a == b
    images = {name for name in a if name.endswith('.png')}
    assert {n: a[n] for n in images & c.keys()} == {n: c[n] for n in images & c.keys()}
    assert len(images & c.keys()) == 6

    def entries(name, key):
        path = tmp_path / name / 'annotations/instances_train2017.json'
        return {e['id']: e for e in json.loads(path.read_text())[key]}

    for key in ('images', 'annotations'):
        assert entries('c', key).items() <= entries('a', key).items()


# --------------------------------------------------------------- the manners
def test_second_run_writes_nothing_and_interrupted_one_completes(tmp_path):
    make_shapes_sample(tmp_path, 3, 2, SIZE)
    before = digests(tmp_path)
    times = {p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file()}
    assert not make_shapes_sample(tmp_path, 3, 2, SIZE)
    assert times == {
        p: p.stat().st_mtime_ns for p in tmp_path.rglob('*') if p.is_file()
    }
    for lost in ('train2017/000000000002.png', 'annotations/instances_val2017.json'):
        (tmp_path / lost).unlink()
        assert make_shapes_sample(tmp_path, 3, 2, SIZE)
        assert digests(tmp_path) == before

    def stop_after_two(jobs):
        yield from jobs[:2]
        raise KeyboardInterrupt

    other = tmp_path.with_name(tmp_path.name + '_stopped')
    with pytest.raises(KeyboardInterrupt):
        make_shapes_sample(other, 3, 2, SIZE, progress=stop_after_two)
    assert make_shapes_sample(other, 3, 2, SIZE)
    assert digests(other) == before


def test_other_parameters_need_force(tmp_path):
    make_shapes_sample(tmp_path, 3, 2, SIZE)
    mine = [tmp_path / 'train2017' / 'note.txt', tmp_path / 'val2017' / 'mine.png']
    for path in mine:
        path.write_text('kept')
    with pytest.raises(FileExistsError, match='train: 3 there, 2 asked.*--force'):
        make_shapes_sample(tmp_path, 2, 2, SIZE)
    assert make_shapes_sample(tmp_path, 2, 2, SIZE, force=True)
    assert len(digests(tmp_path)) == 1 + 2 + 4 + 2
    assert [path.read_text() for path in mine] == ['kept'] * 2
    assert json.loads((tmp_path / 'shapes.json').read_text())['train'] == 2


@pytest.mark.parametrize('marker', [None, 'no json', '[]', '{"sample": "street"}'])
def test_foreign_folder_is_left_alone(tmp_path, marker):
    (tmp_path / 'precious.txt').write_text('mine')
    if marker:
        (tmp_path / 'shapes.json').write_text(marker)
    before = sorted(tmp_path.rglob('*'))
    for force in (False, True):
        with pytest.raises(FileExistsError, match='no shapes sample'):
            make_shapes_sample(tmp_path, 1, 1, SIZE, force=force)
    assert sorted(tmp_path.rglob('*')) == before


def test_refuses_bad_arguments(tmp_path):
    for kwargs, text in (
        (dict(train=0), 'train is 0'),
        (dict(train=1_000_000), 'train is 1000000; expected at most'),
        (dict(val=-1), 'val is -1'),
        (dict(seed=-1), 'seed is -1'),
        (dict(size=(8, 512)), r'size is \(8, 512\)'),
    ):
        with pytest.raises(ValueError, match=text):
            make_shapes_sample(tmp_path / 'x', **kwargs)
    with pytest.raises(ValueError, match='split'):
        shapes_scene('test', 0)
    with pytest.raises(ValueError, match='index is -1'):
        shapes_scene('val', -1)
    (tmp_path / 'file').write_text('')
    with pytest.raises(NotADirectoryError):
        make_shapes_sample(tmp_path / 'file')
    assert not (tmp_path / 'x').exists()


@pytest.mark.parametrize('size', [(64, 64), (64, 200), (400, 300)])
def test_other_sizes(size):
    for index in (0, 3):
        image, objects = shapes_scene('train', index, size=size)
        assert image.shape == (*size, 3) and objects


def test_tool(tmp_path):
    command = [sys.executable, str(TOOL), '--kind', 'shapes']
    command += ['--train', '1', '--val', '1', '--size', '96x128']
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    env = dict(os.environ, PYTHONPATH=path.rstrip(os.pathsep))
    for more, expected in (
        ([], 'data/shapes: 1 train and 1 val scenes drawn'),
        ([], 'nothing to do'),
        (['--seed', '3'], '--force'),
        (['--kind', 'circles'], "invalid choice: 'circles'"),
    ):
        done = subprocess.run(
            [*command, *more], capture_output=True, text=True, env=env, cwd=tmp_path
        )
        assert (done.returncode != 0) == bool(more)
        assert expected in done.stdout + done.stderr
        assert 'Traceback' not in done.stderr
