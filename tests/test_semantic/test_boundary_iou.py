# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Boundary IoU against hand counts and an independent computation."""

import numpy as np
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample

from pvd_mm.semantic.boundary_iou import BoundaryIoUMetric, boundary_region


def evaluate(pairs, classes, **kwargs):
    """Run the registered metric over (prediction, ground truth) pairs."""
    metric = METRICS.build(dict(type='BoundaryIoUMetric', **kwargs))
    metric.dataset_meta = dict(classes=classes)
    for pred, truth in pairs:
        sample = SegDataSample(
            pred_sem_seg=PixelData(data=torch.as_tensor(pred)[None]),
            gt_sem_seg=PixelData(data=torch.as_tensor(truth)[None]),
        )
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(pairs))


def slow_region(mask, distance, ignored):
    """Boundary region of one mask, pixel by pixel, from the definition."""
    height, width = mask.shape
    region = np.zeros_like(mask)
    for y in range(height):
        for x in range(width):
            if not mask[y, x] or ignored[y, x]:
                continue
            for v in range(y - distance, y + distance + 1):
                for u in range(x - distance, x + distance + 1):
                    inside = 0 <= v < height and 0 <= u < width
                    if not inside or not (mask[v, u] or ignored[v, u]):
                        region[y, x] = True
    return region


def slow_scores(pairs, num_classes, ratio, ignore_index=255):
    both, either = np.zeros(num_classes), np.zeros(num_classes)
    for pred, truth in pairs:
        height, width = truth.shape
        distance = max(1, int(round(ratio * (height**2 + width**2) ** 0.5)))
        ignored = truth == ignore_index
        for c in range(num_classes):
            a = slow_region(pred == c, distance, ignored)
            b = slow_region(truth == c, distance, ignored)
            both[c] += (a & b).sum()
            either[c] += (a | b).sum()
    return [100 * i / u if u else np.nan for i, u in zip(both, either)]


def square(size, top, left, side):
    label = np.zeros((size, size), np.int64)
    label[top : top + side, left : left + side] = 1
    return label


def test_hand_counted_shifted_squares():
    # 30x30, diagonal 42.4, d = 1. A 10x10 square has a ring of 36 pixels.
    # Shifted right by one: the rings share the 9 columns of the top row and
    # of the bottom row that overlap, and no side column (each ring's side
    # column lies on the other's interior or outside it).
    truth, pred = square(30, 10, 10, 10), square(30, 10, 11, 10)
    got = evaluate(
        [(pred, truth)], ('a', 'b'), dilation_ratio=0.02, report_classes=['b']
    )
    ring, shared = 36, 18
    expected = 100 * shared / (2 * ring - shared)
    assert got['BoundaryIoU.b'] == pytest.approx(expected, abs=0.01)
    assert got['IoU.b'] == pytest.approx(100 * 90 / 110, abs=0.01)


def test_image_border_is_a_contour():
    region = boundary_region(np.zeros((6, 8), np.uint8), 2)
    assert region.sum() == 48 - 2 * 4
    assert not region[2:4, 2:6].any()


def test_perfect_prediction_scores_100():
    rng = np.random.default_rng(0)
    truth = np.kron(rng.integers(0, 4, (5, 6)), np.ones((8, 8), np.int64))
    truth[:4] = 255
    pred = np.where(truth == 255, 2, truth)
    got = evaluate([(pred, truth)], tuple('abcd'))
    assert got == {'mBoundaryIoU': 100.0}


@pytest.mark.parametrize('dtype', ['float16', 'float32', 'float64', 'bool', 'int8'])
def test_whole_numbers_are_labels(dtype):
    """Whatever their type is: a head with one output channel predicts floats."""
    truth, pred = square(30, 10, 10, 10), square(30, 10, 11, 10)
    expected = evaluate([(pred, truth)], ('a', 'b'))
    assert evaluate([(pred.astype(dtype), truth)], ('a', 'b')) == expected
    if dtype not in ('bool', 'int8'):
        truth = truth.astype(dtype)
        truth[:5] = 255
        found = evaluate([(pred, truth)], ('a', 'b'))
        assert found == evaluate([(pred, truth.astype(int))], ('a', 'b'))


@pytest.mark.parametrize('ratio', [0.01, 0.05, 0.12])
@pytest.mark.parametrize('with_ignored', [False, True])
def test_against_definition(ratio, with_ignored):
    rng = np.random.default_rng(1)
    pairs = []
    for shape in ((23, 31), (40, 17)):
        truth = np.kron(rng.integers(0, 3, (8, 8)), np.ones((5, 5), np.int64))[
            : shape[0], : shape[1]
        ]
        pred = np.roll(truth, (1, 2), (0, 1))
        noise = rng.random(truth.shape) < 0.02
        pred = np.where(noise, rng.integers(0, 3, truth.shape), pred)
        if with_ignored:
            truth = truth.copy()
            truth[5:12, 8:30] = 255
            truth[rng.random(truth.shape) < 0.03] = 255
        pairs.append((pred, truth))
    names = ('a', 'b', 'c')
    expected = slow_scores(pairs, 3, ratio)
    got = evaluate(pairs, names, dilation_ratio=ratio, report_classes=names)
    for name, value in zip(names, expected):
        assert got[f'BoundaryIoU.{name}'] == pytest.approx(value, abs=0.006)
    assert got['mBoundaryIoU'] == pytest.approx(np.mean(expected), abs=0.006)


def test_against_reference_erosion():
    """The authors' recipe: pad by one zero, erode d times by 3x3."""
    cv2 = pytest.importorskip('cv2')
    rng = np.random.default_rng(2)
    label = np.kron(rng.integers(0, 5, (6, 9)), np.ones((12, 12))).astype('u1')
    for distance in (1, 3, 7):
        region = boundary_region(label, distance)
        for c in range(5):
            mask = (label == c).astype(np.uint8)
            padded = cv2.copyMakeBorder(mask, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
            eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=distance)[
                1:-1, 1:-1
            ]
            assert np.array_equal(region & (label == c), mask != eroded)


def test_absent_class_is_nan_and_left_out_of_the_mean():
    truth, pred = square(30, 10, 10, 10), square(30, 10, 11, 10)
    two = evaluate([(pred, truth)], ('a', 'b'))
    three = evaluate([(pred, truth)], ('a', 'b', 'c'), report_classes='c')
    assert np.isnan(three['BoundaryIoU.c'])
    assert three['mBoundaryIoU'] == two['mBoundaryIoU']


def test_object_in_ignored_surroundings_has_no_boundary():
    truth = np.full((30, 30), 255)
    truth[10:20, 10:20] = 1
    got = evaluate([(np.zeros_like(truth), truth)], ('a', 'b'))
    assert np.isnan(got['mBoundaryIoU'])


def test_accumulates_over_images_not_means_of_images():
    small = square(30, 10, 10, 4)
    large = square(30, 4, 4, 20)
    got = evaluate(
        [(small, small), (square(30, 5, 5, 20), large)],
        ('a', 'b'),
        report_classes=['b'],
    )
    # rings: 12 of 12 shared; 76 each, 36 shared after a diagonal shift by
    # one: none of the edges but the two points where the rings cross
    ring = set()
    for y in range(20):
        for x in range(20):
            if 0 in (y, x) or 19 in (y, x):
                ring.add((y, x))
    shared = len(ring & {(y + 1, x + 1) for y, x in ring})
    assert shared == 2
    expected = 100 * (12 + shared) / (12 + 2 * 76 - shared)
    assert got['BoundaryIoU.b'] == pytest.approx(expected, abs=0.01)


def test_logger_keys_with_prefix():
    truth = square(30, 10, 10, 10)
    got = evaluate([(truth, truth)], ('a', 'b'), prefix='val')
    assert got == {'val/mBoundaryIoU': 100.0}


@pytest.mark.parametrize('ratio', [0, -0.1, 1, 2])
def test_refuses_dilation_ratio(ratio):
    with pytest.raises(ValueError, match='dilation_ratio'):
        BoundaryIoUMetric(dilation_ratio=ratio)


def test_refuses_mistakes():
    good = square(10, 2, 2, 4)
    with pytest.raises(ValueError, match=r'\(10, 10\).*\(9, 10\)'):
        evaluate([(good, good[1:])], ('a', 'b'))
    with pytest.raises(ValueError, match=r'prediction holds.*\[7\]'):
        evaluate([(np.where(good, 7, 0), good)], ('a', 'b'))
    with pytest.raises(ValueError, match='ground truth holds'):
        evaluate([(good, np.where(good, 7, 0))], ('a', 'b'))
    for wrong, values in ((0.5, r'\[0.5\]'), (np.nan, r'\[nan\]')):
        with pytest.raises(ValueError, match=f'prediction holds float32.* {values}'):
            evaluate([(good.astype('f4') * wrong, good)], ('a', 'b'))
    with pytest.raises(ValueError, match=r'ground truth holds the values \[7\]'):
        evaluate([(good, good * 7.0)], ('a', 'b'))
    with pytest.raises(ValueError, match="report_classes names .'pole'"):
        evaluate([(good, good)], ('a', 'b'), report_classes=['pole'])
    metric = BoundaryIoUMetric()
    metric.dataset_meta = dict(classes=('a', 'b'))
    with pytest.raises(KeyError, match='gt_sem_seg'):
        metric.process({}, [dict(pred_sem_seg=dict(data=torch.zeros(1, 4, 4)))])
    metric.dataset_meta = None
    with pytest.raises(ValueError, match='classes'):
        metric.process({}, [])
