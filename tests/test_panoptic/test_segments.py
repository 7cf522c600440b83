# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Panoptic quality, against hand-made cases and a count over pairs of masks."""

import numpy as np
import pytest
from mmdet.evaluation.functional import INSTANCE_OFFSET

from pvd_mm.panoptic import (
    Segment,
    ids_to_rgb,
    match_segments,
    panoptic_quality,
    rgb_to_ids,
    split_prediction,
)
from pvd_mm.utils.errors import LabelError


def strip(*runs):
    """Ids in one row, of (id, pixels)."""
    return np.repeat([i for i, _ in runs], [n for _, n in runs])[None]


def match(truth, truth_segments, predicted, segments, classes=2):
    truth_segments = [Segment(*s) for s in truth_segments]
    segments = [Segment(*s) for s in segments]
    return match_segments(truth, truth_segments, predicted, segments, classes)


def by_masks(truth_ids, truth, predicted_ids, predicted, classes):
    """The definition, pair of masks by pair, of what has pixels."""
    stats = np.zeros((classes, 4))
    listed = [s.id for s in truth]
    void = ~np.isin(truth_ids, listed)
    matched, found = set(), set()
    for t in truth:
        for p in predicted:
            a, b = truth_ids == t.id, predicted_ids == p.id
            union = (a | (b & ~void)).sum()
            if t.is_crowd or t.label != p.label or not union:
                continue
            iou = (a & b).sum() / union
            if iou > 0.5:
                assert t.id not in matched and p.id not in found
                matched.add(t.id)
                found.add(p.id)
                stats[t.label, :2] += iou, 1
    for p in predicted:
        b = predicted_ids == p.id
        crowds = [truth_ids == t.id for t in truth if t.is_crowd and t.label == p.label]
        ignored = sum((b & mask).sum() for mask in (void, *crowds))
        if p.id not in found and b.any() and ignored / b.sum() <= 0.5:
            stats[p.label, 2] += 1
    for t in truth:
        stats[t.label, 3] += not t.is_crowd and t.id not in matched
    return stats


def test_a_perfect_prediction_and_one_of_the_wrong_class():
    truth = strip((5, 4), (6, 6))
    segments = [(5, 0), (6, 1)]
    stats = match(truth, segments, truth, segments)
    assert stats.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0]]
    assert (panoptic_quality(stats) == 100).all()
    stats = match(truth, segments, truth, [(5, 1), (6, 1)])
    assert stats.tolist() == [[0, 0, 0, 1], [1, 1, 1, 0]]
    assert panoptic_quality(stats)[0].tolist() == [0, 0, 0]


@pytest.mark.parametrize('right, matches', [(5, 0), (6, 1)])
def test_half_is_no_match(right, matches):
    """IoU of 5 of 10 and of 6 of 10."""
    truth, predicted = strip((1, 10)), strip((1, right), (0, 10 - right))
    stats = match(truth, [(1, 0)], predicted, [(1, 0)])
    assert stats[0].tolist() == [0.6 * matches, matches, 1 - matches, 1 - matches]


def test_void_is_in_no_union_and_mostly_void_is_no_mistake():
    truth = strip((1, 4), (0, 6))
    # 4 of the 10 predicted pixels count
    stats = match(truth, [(1, 0)], strip((1, 10)), [(1, 0)])
    assert stats[0].tolist() == [1, 1, 0, 0]
    # beside the match, 4 pixels of void and 2 of it, then 3 and 3
    for ignored, wrong in ((4, 0), (3, 1)):
        truth = strip((1, 20), (0, ignored), (2, 6 - ignored))
        predicted = strip((1, 20), (2, 6))
        stats = match(truth, [(1, 0), (2, 1)], predicted, [(1, 0), (2, 0)])
        assert stats[0].tolist() == [1, 1, wrong, 0]


def test_crowds_are_neither_missed_nor_matched():
    truth = strip((1, 6), (2, 10), (3, 2))
    segments = [(1, 0, False), (2, 0, True), (3, 1, False)]
    predicted = strip((1, 6), (2, 10), (3, 2))
    # of the crowd's class it is ignored, of another it is wrong
    for label, stats in ((0, [[1, 1, 0, 0], [1, 1, 0, 0]]),
                         (1, [[1, 1, 0, 0], [1, 1, 1, 0]])):  # fmt: skip
        result = match(truth, segments, predicted, [(1, 0), (2, label), (3, 1)])
        assert result.tolist() == stats
    missed = match(truth, segments, np.zeros_like(truth), [])
    assert missed.tolist() == [[0, 0, 0, 1], [0, 0, 0, 1]]


def test_what_is_listed_without_pixels_is_missed_and_what_is_not_listed_is_void():
    truth = strip((1, 4), (9, 4))
    stats = match(truth, [(1, 0), (2, 0)], strip((1, 8)), [(1, 0), (2, 0)])
    assert stats[0].tolist() == [1, 1, 0, 1]


@pytest.mark.parametrize('seed', range(20))
def test_random_maps_are_counted_as_pairs_of_masks(seed):
    rng = np.random.default_rng(seed)
    classes = 3

    def scene(moved=0):
        ids = np.zeros((24, 32), int)
        for number in range(1, 12):
            y, x, h, w = boxes[number] + rng.integers(-moved, moved + 1, 4)
            ids[max(y, 0) : y + max(h, 1), max(x, 0) : x + max(w, 1)] = number
        return ids

    boxes = rng.integers([0, 0, 3, 3], [20, 28, 14, 18], (12, 4))
    truth_ids, predicted_ids = scene(), scene(moved=2)
    labels = rng.integers(0, classes, 12)
    wrong = np.where(rng.random(12) < 0.2, rng.integers(0, classes, 12), labels)
    truth = [
        Segment(i, int(labels[i]), bool(rng.random() < 0.25))
        for i in range(1, 11)  # the last is not listed
    ]
    predicted = [Segment(i, int(wrong[i])) for i in range(1, 12)]
    found = match_segments(truth_ids, truth, predicted_ids, predicted, classes)
    expected = by_masks(truth_ids, truth, predicted_ids, predicted, classes)
    np.testing.assert_allclose(found, expected)
    assert found[:, 1:].sum() > 3


def test_quality_is_the_product_and_leaves_out_what_is_not_there():
    stats = np.array([[1.5, 2, 1, 1], [0, 0, 0, 2], [0, 0, 0, 0]])
    quality = panoptic_quality(stats)
    np.testing.assert_allclose(quality[0], [50, 75, 100 * 2 / 3])
    assert quality[1].tolist() == [0, 0, 0] and np.isnan(quality[2]).all()


def test_ids_and_colours():
    ids = np.array([[0, 1, 255], [256, 65536, (1 << 24) - 1]])
    rgb = ids_to_rgb(ids)
    assert rgb[1].tolist() == [[0, 1, 0], [0, 0, 1], [255, 255, 255]]
    assert (rgb_to_ids(rgb) == ids).all()
    with pytest.raises(
        LabelError, match='from 0 to 16777215, but are from 0 to 16777216'
    ):
        ids_to_rgb(np.array([0, 1 << 24]))
    with pytest.raises(LabelError, match=r'three channels of uint8.*\(2, 3\)'):
        rgb_to_ids(ids)


def test_segments_of_a_prediction():
    """The class 0 without an instance is no void."""
    panoptic = np.array([[0, 2, 3], [INSTANCE_OFFSET + 1, 2 * INSTANCE_OFFSET + 1, 4]])
    ids, segments = split_prediction(panoptic, num_classes=4)
    assert ids.tolist() == [[1, 2, 3], [4, 5, 0]]
    assert [s.label for s in segments] == [0, 2, 3, 1, 1]
    ids, segments = split_prediction(panoptic, num_classes=4, ignore_index=2)
    assert (ids == 0).sum() == 2 and len(segments) == 4
    with pytest.raises(LabelError, match='has the labels 4, but there are 3 classes'):
        split_prediction(panoptic, num_classes=3)


def test_sizes_differ():
    with pytest.raises(LabelError, match=r'\(1, 4\).*\(1, 5\)'):
        match(strip((1, 4)), [(1, 0)], strip((1, 5)), [(1, 0)])
