# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Boundary AP against hand counts, the definition and whole-image erosion."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import METRICS
from mmdet.structures import DetDataSample
from mmdet.utils import register_all_modules
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from pycocotools import mask as rle_ops

from helpers.real_data import COCO_TINY, needs_coco
from pvd_mm.instance import boundary_ap
from pvd_mm.instance.boundary_ap import (
    BoundaryAPMetric,
    BoundaryCOCOeval,
    mask_boundary,
)

register_all_modules(init_default_scope=False)

SIX = ['mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m', 'mAP_l']


@pytest.fixture(autouse=True)
def scope():
    """Names are mmdet's, whatever other tests have set."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def rle(mask):
    code = rle_ops.encode(np.asfortranarray(mask, np.uint8))
    return dict(code, counts=code['counts'].decode())


def box_mask(top, left, height, width, size=(30, 30)):
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = True
    return mask


def truth(images, names=('a', 'b')):
    """COCO's dict from [[(mask, label[, iscrowd]), ...] per image]."""
    annotations = []
    for i, objects in enumerate(images):
        for mask, label, *crowd in objects:
            code = rle(mask)
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=i,
                    category_id=label + 1,
                    iscrowd=int(bool(crowd and crowd[0])),
                    area=float(mask.sum()),
                    bbox=rle_ops.toBbox(code).tolist(),
                    segmentation=code,
                )
            )
    size = next((o[0].shape for objects in images for o in objects), (30, 30))
    return dict(
        images=[
            dict(id=i, file_name=f'{i}.jpg', height=size[0], width=size[1])
            for i in range(len(images))
        ],
        categories=[dict(id=k + 1, name=n) for k, n in enumerate(names)],
        annotations=annotations,
    )


def samples(found, size=(30, 30), **meta):
    """Data samples from [[(mask, label, score), ...] per image]."""
    for i, objects in enumerate(found):
        masks = np.array([o[0] for o in objects], bool).reshape(-1, *size)
        boxes = [rle_ops.toBbox(rle(m)) for m in masks]
        boxes = torch.tensor(np.array(boxes), dtype=torch.float32).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        sample = DetDataSample(
            metainfo=dict(
                img_id=i, ori_shape=size, **{k: v[i] for k, v in meta.items()}
            )
        )
        sample.pred_instances = InstanceData(
            bboxes=boxes,
            labels=torch.tensor([o[1] for o in objects], dtype=torch.long),
            scores=torch.tensor([o[2] for o in objects], dtype=torch.float32),
            masks=torch.from_numpy(masks),
        )
        yield sample


def evaluate(tmp_path, images, found, names=('a', 'b'), size=(30, 30), **kwargs):
    """Run CocoMetric and the metric in a real Evaluator."""
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(truth(images, names)))
    evaluator = Evaluator(
        [
            dict(type='CocoMetric', ann_file=str(path), metric='segm'),
            dict(type='BoundaryAPMetric', ann_file=str(path), **kwargs),
        ]
    )
    evaluator.dataset_meta = dict(classes=names)
    for sample in samples(found, size):
        evaluator.process([sample])
    return evaluator.evaluate(len(found))


def boundary_of(got, item='mAP'):
    return got[f'coco/boundary_{item}']


# ------------------------------------------------------------- boundaries


def slow_boundary(mask, distance):
    """The definition, pixel by pixel: d and less from what is not the mask."""
    height, width = mask.shape
    near = np.zeros_like(mask)
    for y, x in np.argwhere(mask):
        for v in range(y - distance, y + distance + 1):
            for u in range(x - distance, x + distance + 1):
                inside = 0 <= v < height and 0 <= u < width
                near[y, x] |= not inside or not mask[v, u]
    return near


def blobs(rng, shape):
    mask = np.kron(rng.random((9, 9)) < 0.4, np.ones((6, 7), bool))
    mask = mask[: shape[0], : shape[1]].copy()
    mask ^= rng.random(mask.shape) < 0.01
    return mask


@pytest.mark.parametrize('shape', [(23, 41), (40, 17), (1, 9), (2, 2)])
@pytest.mark.parametrize('ratio', [0.001, 0.05, 0.2])
def test_boundary_is_the_definition(shape, ratio):
    mask = blobs(np.random.default_rng(0), shape)
    distance = max(1, round(ratio * (shape[0] ** 2 + shape[1] ** 2) ** 0.5))
    got = rle_ops.decode(mask_boundary(rle(mask), ratio))
    assert np.array_equal(got, slow_boundary(mask, distance))


def test_boundary_is_that_of_whole_image_erosion():
    """The authors' recipe: pad by one zero, erode d times by 3x3."""
    rng = np.random.default_rng(1)
    for shape in ((200, 333), (480, 640), (75, 100)):
        distance = int(round(0.02 * np.sqrt(shape[0] ** 2 + shape[1] ** 2)))
        for top, left in ((0, 0), (20, 30), (shape[0] - 60, shape[1] - 60)):
            mask = np.zeros(shape, np.uint8)
            piece = blobs(rng, (54, 60))
            mask[top : top + 54, left : left + 60] |= piece[:, : shape[1] - left]
            padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            eroded = cv2.erode(padded, np.ones((3, 3), 'u1'), iterations=distance)
            got = rle_ops.decode(mask_boundary(rle(mask)))
            assert np.array_equal(got, mask - eroded[1:-1, 1:-1])


def test_boundary_of_the_extremes():
    for mask, pixels in (
        (np.zeros((30, 30)), 0),
        (np.ones((30, 30)), 30 * 30 - 28 * 28),  # the border is a contour
        (box_mask(4, 4, 1, 1), 1),
        (box_mask(4, 4, 2, 20), 40),
    ):
        assert rle_ops.area(mask_boundary(rle(mask))) == pixels


# ---------------------------------------------------------- figures by hand
# 30x30 pixels: diagonal 42.4, d = 1, boundaries are rings of one pixel.

SQUARE = box_mask(10, 10, 10, 10)  # ring: 36 pixels


def test_a_shift_by_one_pixel(tmp_path):
    # masks: 90 / 110 = 0.82, above 7 of the 10 thresholds; rings: 18 shared
    # of 36 each (9 in the top row, 9 in the bottom row), 18 / 54 = 0.33
    got = evaluate(tmp_path, [[(SQUARE, 0)]], [[(box_mask(10, 11, 10, 10), 0, 0.9)]])
    assert got['coco/segm_mAP'] == 0.7
    assert [boundary_of(got, i) for i in SIX] == [0, 0, 0, 0, -1, -1]


def test_a_column_too_many(tmp_path):
    # masks: 100 / 110 = 0.909, above 9 thresholds; rings of 36 and 38 pixels
    # share 10 + 10 + 8, 28 / 46 = 0.609, above 0.5, 0.55 and 0.6
    wide = box_mask(10, 10, 10, 11)
    got = evaluate(tmp_path, [[(SQUARE, 0)]], [[(wide, 0, 0.9)]])
    assert got['coco/segm_mAP'] == 0.9
    assert [boundary_of(got, i) for i in SIX] == [0.3, 1, 0, 0.3, -1, -1]


def test_precision_and_recall_of_two_images(tmp_path):
    # The first image is found exactly and first. Up to 0.6 the second is
    # found as well: AP 1. Above, recall ends at 1/2 with precision 1 until
    # then: 51 of COCO's 101 points.
    wide = box_mask(10, 10, 10, 11)
    got = evaluate(
        tmp_path,
        [[(SQUARE, 0)], [(SQUARE, 0)]],
        [[(SQUARE, 0, 0.9)], [(wide, 0, 0.8)]],
    )
    assert boundary_of(got) == round((3 + 7 * 51 / 101) / 10, 3)
    assert boundary_of(got, 'mAP_75') == round(51 / 101, 3)
    # the other way round, precision is 1/2 at every recall up to 1/2
    got = evaluate(
        tmp_path,
        [[(SQUARE, 0)], [(SQUARE, 0)]],
        [[(SQUARE, 0, 0.8)], [(wide, 0, 0.9)]],
    )
    assert boundary_of(got, 'mAP_75') == round(51 / 101 / 2, 3)


def test_a_wrong_class_is_not_found(tmp_path):
    got = evaluate(tmp_path, [[(SQUARE, 0)]], [[(SQUARE, 1, 0.9)]])
    assert boundary_of(got) == 0


def test_a_detection_within_a_crowd_does_not_count(tmp_path):
    # Its ring is not the crowd's, but a crowd has no boundary: 25 of its 25
    # pixels are in the crowd, so it is no false alarm.
    crowd = box_mask(0, 0, 8, 30)
    inside = box_mask(1, 3, 5, 5)
    got = evaluate(
        tmp_path,
        [[(SQUARE, 0), (crowd, 0, True)]],
        [[(inside, 0, 0.99), (inside, 0, 0.98), (SQUARE, 0, 0.5)]],
    )
    assert boundary_of(got) == 1
    # and outside it is one
    outside = box_mask(22, 3, 5, 5)
    got = evaluate(
        tmp_path,
        [[(SQUARE, 0), (crowd, 0, True)]],
        [[(outside, 0, 0.99), (SQUARE, 0, 0.5)]],
    )
    assert boundary_of(got) == 0.5


# ------------------------------------------------------------ the IoU itself


def random_scene(rng, number, size=(60, 80)):
    truths, found = [], []
    for _ in range(number):
        y, x, h, w = rng.integers((0, 0, 8, 8), (40, 60, 20, 20)).tolist()
        label = int(rng.integers(2))
        mask = box_mask(y, x, h, w, size)
        truths.append((mask, label, rng.random() < 0.2))
        for _ in range(3):
            shift = rng.integers(-3, 4, 2).tolist()
            grown = box_mask(
                max(0, y + shift[0]), max(0, x + shift[1]), h, w + shift[0], size
            )
            found.append((grown, label, float(rng.random())))
    return truths, found


def evaluation(truths, found, ratio=0.02, thresholds=None):
    coco = COCO()
    coco.dataset = truth([truths])
    coco.createIndex()
    detections = coco.loadRes(
        [
            dict(image_id=0, category_id=k + 1, score=s, segmentation=rle(m))
            for m, k, s in found
        ]
    )
    result = BoundaryCOCOeval(coco, detections, ratio)
    if thresholds is not None:
        result.params.iouThrs = np.array(thresholds)
    result.evaluate()
    result.accumulate()
    return result


def slow_ious(truths, found, distance):
    rows = []
    for d, _, _ in sorted(found, key=lambda o: -o[2]):
        row = []
        for g, _, crowd in truths:
            if crowd:
                row.append((d & g).sum() / d.sum())
                continue
            a, b = slow_boundary(d, distance), slow_boundary(g, distance)
            row.append(min((x & y).sum() / (x | y).sum() for x, y in ((d, g), (a, b))))
        rows.append(row)
    return np.array(rows)


@pytest.mark.parametrize('ratio', [0.02, 0.04])  # d = 2, 4
def test_ious_are_the_smaller_ones(ratio):
    truths, found = random_scene(np.random.default_rng(2), 6)
    got = evaluation(truths, found, ratio, [1e-9, 0.5])
    for label in (0, 1):
        own = [t for t in truths if t[1] == label]
        ious = slow_ious(own, [f for f in found if f[1] == label], int(100 * ratio))
        assert got.ious[0, label + 1] == pytest.approx(ious, abs=1e-12)


def test_pairs_below_the_lowest_threshold_change_nothing():
    truths, found = random_scene(np.random.default_rng(3), 8)
    usual = [0.5, 0.75, 0.9]
    sparse = evaluation(truths, found, thresholds=usual)
    full = evaluation(truths, found, thresholds=[1e-9, *usual])
    assert any(not np.array_equal(sparse.ious[k], full.ious[k]) for k in full.ious)
    precision, all_precision = sparse.eval['precision'], full.eval['precision'][1:]
    assert np.array_equal(precision, all_precision)
    assert 0 < precision[precision > -1].mean() < 1


def test_boundaries_are_made_once_and_only_where_they_matter(monkeypatch):
    size = (480, 640)
    spots = [(y, x) for y in (10, 250) for x in (10, 220, 430)]
    truths = [(box_mask(y, x, 200, 190, size), 0, False) for y, x in spots]
    found = [(t[0], 0, 0.9) for t in truths]
    found += [(box_mask(5 * i, 6 * i, 9, 9, size), 0, 0.1) for i in range(60)]
    made = []

    def count(code, ratio):
        made.append(code)
        return mask_boundary(code, ratio)

    monkeypatch.setattr(boundary_ap, 'mask_boundary', count)
    got = evaluation(truths, found)
    assert got.eval['precision'][:, :, 0, 0, -1].min() == 1
    assert len(made) == 2 * len(truths)


# ------------------------------------- every figure, computed independently


def ring(mask, distance):
    """``slow_boundary``, by shifts of the whole mask."""
    height, width = mask.shape
    padded = np.pad(mask, distance)
    inside = mask.copy()
    for y in range(2 * distance + 1):
        for x in range(2 * distance + 1):
            inside &= padded[y : y + height, x : x + width]
    return mask & ~inside


def independent_iou(found, real, crowd, distance):
    if crowd:
        return (found & real).sum() / found.sum()
    pairs = (found, real), (ring(found, distance), ring(real, distance))
    return min((a & b).sum() / (a | b).sum() for a, b in pairs)


def independent_recalls(images, found, label, threshold, areas, most, iou):
    """COCO's protocol, read from its description: (precision at each of the
    101 recalls, recall at the end) of one class, or None without an object."""
    low, high = areas
    hits, objects = [], 0
    for truths, detections in zip(images, found):
        truths = [(g[0], bool(g[2:] and g[2])) for g in truths if g[1] == label]
        aside = [c or not low <= g.sum() <= high for g, c in truths]
        objects += aside.count(False)
        taken = set()
        detections = [d for d in detections if d[1] == label]
        for mask, _, score in sorted(detections, key=lambda d: -d[2])[:most]:
            ious = [iou[id(mask), id(g)] for g, _ in truths]
            choice = None
            for ignored in (False, True):  # an object that counts comes first
                free = [
                    i for i in range(len(truths))
                    if aside[i] is ignored and ious[i] >= threshold
                    and (i not in taken or truths[i][1])
                ]  # fmt: skip
                if choice is None and free:
                    choice = max(free, key=lambda i: ious[i])
            if choice is None:
                counts = low <= mask.sum() <= high
            else:
                counts = not aside[choice]
                taken.add(choice)
            if counts:
                hits.append((score, choice is not None))
    if not objects:
        return None
    right = np.cumsum([hit for _, hit in sorted(hits, key=lambda h: -h[0])])
    recall = right / objects
    precision = right / np.arange(1, len(right) + 1)
    points = [
        precision[recall >= r - 1e-12].max(initial=0) for r in np.linspace(0, 1, 101)
    ]
    return np.mean(points), recall[-1] if len(recall) else 0.0


def independent_figures(images, found, distance, numbers):
    every, small = (0, 1e10), (0, 32**2)
    medium, large = (32**2, 96**2), (96**2, 1e10)
    thresholds = np.linspace(0.5, 0.95, 10)
    iou = {
        (id(d[0]), id(g[0])): independent_iou(d[0], g[0], any(g[2:]), distance)
        for truths, detections in zip(images, found)
        for d in detections for g in truths
    }  # fmt: skip

    def mean(which, thresholds, areas, most):
        values = [
            independent_recalls(images, found, k, t, areas, most, iou)
            for k in (0, 1) for t in thresholds
        ]  # fmt: skip
        return np.mean([v[which] for v in values if v])

    ap = [
        mean(0, thresholds, every, 100), mean(0, [0.5], every, 100),
        mean(0, [0.75], every, 100), mean(0, thresholds, small, 100),
        mean(0, thresholds, medium, 100), mean(0, thresholds, large, 100),
    ]  # fmt: skip
    ar = [mean(1, thresholds, every, n) for n in numbers]
    ar += [mean(1, thresholds, areas, 100) for areas in (small, medium, large)]
    return [*ap, *ar]


def test_every_figure_is_that_of_an_independent_computation(tmp_path):
    """Objects of all sizes and two classes, a crowd, an empty image."""
    rng, size = np.random.default_rng(4), (150, 170)
    images, found = [], []
    for number in (5, 4, 0, 6):
        truths, detections = [], []
        for i in range(number):
            side = (24, 60, 104)[i % 3]
            y, x = (rng.random(2) * (np.array(size) - side - 4)).astype(int).tolist()
            label, crowd = int(rng.integers(2)), i == 5
            truths.append((box_mask(y, x, side, side + 4, size), label, crowd))
            for worst in (1, 2):
                dy, dx, dh, dw = rng.integers(0, worst + 1, 4).tolist()
                mask = box_mask(
                    max(0, y + dy), max(0, x + dx), side + dh, side + 4 + dw, size
                )
                wrong = rng.random() < 0.15
                score = float(rng.random()) + 0.3 * (worst == 1)
                detections.append((mask, label ^ wrong, score))
        if not number:
            detections.append((box_mask(9, 9, 30, 30, size), 0, 0.6))
        images.append(truths)
        found.append(detections)
    items, numbers = list(boundary_ap._STATS), (2, 5, 100)
    got = evaluate(
        tmp_path, images, found, size=size, metric_items=items,
        proposal_nums=numbers,
    )  # fmt: skip
    expected = independent_figures(images, found, 5, numbers)
    assert [boundary_of(got, i) for i in items] == pytest.approx(expected, abs=6e-4)
    # of little use if all were nought or one; and the masks alone have more
    assert all(0.05 < value < 0.95 for value in expected)
    assert expected[0] < got['coco/segm_mAP'] - 0.1


# ------------------------------------------------------------ what may happen


def test_nothing_detected(tmp_path):
    got = evaluate(tmp_path, [[(SQUARE, 0)], []], [[], []])
    assert {k: v for k, v in got.items() if 'boundary' in k} == {
        'coco/boundary_mAP': 0,
        'coco/boundary_mAP_50': 0,
        'coco/boundary_mAP_75': 0,
        'coco/boundary_mAP_s': 0,
        'coco/boundary_mAP_m': -1,
        'coco/boundary_mAP_l': -1,
    }


def test_an_image_without_ground_truth(tmp_path):
    got = evaluate(
        tmp_path, [[(SQUARE, 0)], []], [[(SQUARE, 0, 0.9)], [(SQUARE, 0, 0.8)]]
    )
    assert boundary_of(got) == 1  # the false alarm comes last
    got = evaluate(
        tmp_path, [[(SQUARE, 0)], []], [[(SQUARE, 0, 0.8)], [(SQUARE, 0, 0.9)]]
    )
    assert boundary_of(got) == 0.5


def test_nothing_but_a_crowd(tmp_path):
    got = evaluate(tmp_path, [[(SQUARE, 0, True)]], [[(SQUARE, 0, 0.9)]])
    assert boundary_of(got) == -1 == got['coco/segm_mAP']


def test_empty_masks(tmp_path):
    nothing = np.zeros((30, 30), bool)
    got = evaluate(
        tmp_path,
        [[(nothing, 0), (SQUARE, 0)]],
        [[(nothing, 0, 0.9), (SQUARE, 0, 0.8)]],
    )
    # one of two found, behind a false alarm
    assert boundary_of(got) == round(51 / 101 / 2, 3) == got['coco/segm_mAP']


def test_ground_truth_of_the_data_samples(tmp_path):
    wide = box_mask(10, 10, 10, 11)
    instance = dict(bbox=[10, 10, 20, 20], bbox_label=0, ignore_flag=0)
    instance['mask'] = rle(SQUARE)
    metric = METRICS.build(dict(type='BoundaryAPMetric'))
    metric.dataset_meta = dict(classes=('a', 'b'))
    for sample in samples([[(wide, 0, 0.9)], []], instances=[[instance], []]):
        metric.process({}, [sample.to_dict()])
    assert metric.evaluate(2)['coco/boundary_mAP'] == 0.3


def test_classes_items_and_thresholds(tmp_path):
    wide = box_mask(10, 10, 10, 11)
    scene = [[(SQUARE, 0), (SQUARE, 1)]], [[(wide, 0, 0.9), (SQUARE, 1, 0.9)]]
    got = evaluate(tmp_path, *scene, classwise=True)
    assert boundary_of(got, 'a_precision') == 0.3
    assert boundary_of(got, 'b_precision') == 1
    assert boundary_of(got) == 0.65
    got = evaluate(
        tmp_path, *scene, metric_items=['mAP_75', 'AR@100'], iou_thrs=[0.6, 0.75]
    )
    assert {k: v for k, v in got.items() if 'boundary' in k} == {
        'coco/boundary_mAP_75': 0.5,
        'coco/boundary_AR@100': 0.75,
    }
    assert boundary_of(evaluate(tmp_path, *scene, iou_thrs=0.75)) == 0.5
    # a wider boundary is the whole square
    assert boundary_of(evaluate(tmp_path, *scene, dilation_ratio=0.2)) == 0.95


def test_categories_of_the_file_in_any_order(tmp_path):
    """Classes are named by their category, also where ids are not sorted."""
    data = truth([[(SQUARE, 0), (SQUARE, 1)]])
    data['categories'].reverse()
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(data))
    metric = BoundaryAPMetric(str(path), classwise=True)
    metric.dataset_meta = dict(classes=('b', 'a'))
    for sample in samples([[(SQUARE, 0, 0.9)]]):  # label 0 is b
        metric.process({}, [sample.to_dict()])
    got = metric.evaluate(1)
    assert got['coco/boundary_b_precision'] == 1
    assert got['coco/boundary_a_precision'] == 0


def test_format_only(tmp_path):
    prefix = tmp_path / 'out/found'
    got = evaluate(
        tmp_path,
        [[(SQUARE, 0)]],
        [[(SQUARE, 0, 0.9)]],
        format_only=True,
        outfile_prefix=str(prefix),
    )
    assert not any('boundary' in key for key in got)
    assert len(json.loads((tmp_path / 'out/found.segm.json').read_text())) == 1


def test_refuses_mistakes(tmp_path):
    with pytest.raises(ValueError, match='dilation_ratio is 2'):
        BoundaryAPMetric(dilation_ratio=2)
    with pytest.raises(ValueError, match='proposal_nums'):
        BoundaryAPMetric(proposal_nums=(1, 10))
    with pytest.raises(ValueError, match='mAP_60'):
        BoundaryAPMetric(metric_items=['mAP_60'])
    with pytest.raises(TypeError, match="'metric'"):
        BoundaryAPMetric(metric='bbox')
    with pytest.raises(TypeError, match="'use_mp_eval'"):
        BoundaryAPMetric(use_mp_eval=True)

    found = [[(SQUARE, 0, 0.9)]]
    with pytest.raises(ValueError, match="3 classes .*'?c.* has 2"):
        path = tmp_path / 'two.json'
        path.write_text(json.dumps(truth([[(SQUARE, 0)]])))
        metric = BoundaryAPMetric(str(path))
        metric.dataset_meta = dict(classes=('a', 'b', 'c'))
        metric.process({}, [s.to_dict() for s in samples(found)])
        metric.evaluate(1)
    data = truth([[(SQUARE, 0)]])
    del data['annotations'][0]['segmentation']
    (tmp_path / 'bare.json').write_text(json.dumps(data))
    metric = BoundaryAPMetric(str(tmp_path / 'bare.json'))
    metric.dataset_meta = dict(classes=('a', 'b'))
    metric.process({}, [s.to_dict() for s in samples(found)])
    with pytest.raises(ValueError, match='no segmentation; their ids: 1'):
        metric.evaluate(1)
    metric = BoundaryAPMetric(str(path))
    metric.dataset_meta = dict(classes=('a', 'b'))
    sample = next(samples(found)).to_dict()
    del sample['pred_instances']['masks']
    metric.process({}, [sample])
    with pytest.raises(ValueError, match='image 0 has no masks'):
        metric.evaluate(1)


# ---------------------------------------------------------------- real data


@needs_coco
def test_ground_truth_of_coco_against_itself():
    path = COCO_TINY / 'annotations/instances_val2017.json'
    metric = BoundaryAPMetric(str(path))
    coco = COCO(str(path))
    metric.dataset_meta = dict(classes=[c['name'] for c in coco.cats.values()])
    labels = {k: i for i, k in enumerate(coco.cats)}
    for image in coco.imgs.values():
        objects = [a for a in coco.imgToAnns[image['id']] if not a['iscrowd']]
        boxes = torch.tensor([a['bbox'] for a in objects]).reshape(-1, 4)
        sample = dict(
            img_id=image['id'],
            ori_shape=(image['height'], image['width']),
            pred_instances=dict(
                bboxes=boxes,
                labels=torch.tensor([labels[a['category_id']] for a in objects]),
                scores=torch.ones(len(objects)),
                masks=[coco.annToRLE(a) for a in objects],
            ),
        )
        metric.process({}, [sample])
    got = metric.evaluate(len(coco.imgs))
    assert {k.split('_', 1)[1]: v for k, v in got.items()} == dict.fromkeys(SIX, 1)
