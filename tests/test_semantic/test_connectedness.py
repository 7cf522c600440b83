# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Pieces of thin objects against drawn cases and an independent computation."""

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.registry import METRICS
from mmseg.structures import SegDataSample
from scipy import ndimage

from helpers.real_data import CAMVID, needs_camvid
from pvd_mm.semantic import ConnectednessMetric
from pvd_mm.semantic.connectedness import pieces_of

CLASSES = ('road', 'pole', 'car')


def evaluate(pairs, **kwargs):
    """Run the registered metric over (prediction, ground truth) pairs."""
    settings = dict(type='ConnectednessMetric', report_classes=['pole'], **kwargs)
    metric = METRICS.build(settings)
    metric.dataset_meta = dict(classes=CLASSES)
    for pred, truth in pairs:
        sample = SegDataSample(
            pred_sem_seg=PixelData(data=torch.as_tensor(pred)[None]),
            gt_sem_seg=PixelData(data=torch.as_tensor(truth)[None]),
        )
        metric.process({}, [sample.to_dict()])
    return metric.evaluate(len(pairs))


def drawn(text):
    """'#' is pole, '.' road, '?' ignored."""
    labels = {'.': 0, '#': 1, '?': 255}
    return np.array([[labels[c] for c in line] for line in text.split()])


def figures(pred, truth, margin=1, **kwargs):
    """Of one image: pieces, missed, largest piece. The margin in pixels."""
    pred, truth = drawn(pred), drawn(truth)
    ratio = margin / np.hypot(*truth.shape)
    got = evaluate([(pred, truth)], margin_ratio=ratio, **kwargs)
    return tuple(got[f'{name}.pole'] for name in ('Pieces', 'Missed', 'LargestPiece'))


POLE = '..#.. ..#.. ..#.. ..#.. ..#.. ..#..'
NOTHING = '..... ..... ..... ..... ..... .....'


@pytest.mark.parametrize(
    'pred, expected',
    [
        (POLE, (1, 0, 100)),
        # the fourth pixel is missing: three and two of six are left
        ('..#.. ..#.. ..#.. ..... ..#.. ..#..', (2, 0, 50)),
        # half a pole is one piece
        ('..#.. ..#.. ..#.. ..... ..... .....', (1, 0, 50)),
        # a diagonal step joins, by pixels that are no pole in the ground truth
        ('..#.. ..#.. .#... .#... ..#.. ..#..', (1, 0, 66.67)),
        # thick
        ('.###. .###. .###. .###. .###. .###.', (1, 0, 100)),
        # beside it, without touching it
        ('.#... .#... .#... .#... .#... .#...', (np.nan, 100, 0)),
        # beside its lower half: that joins nothing, and is no piece
        ('..#.. ..#.. ..... .#... .#... .#...', (1, 0, 33.33)),
        # joined by a detour out of the margin
        ('..### ....# ....# ....# ....# ..###', (2, 0, 16.67)),
        (NOTHING, (np.nan, 100, 0)),
    ],
)
def test_one_pole(pred, expected):
    np.testing.assert_allclose(figures(pred, POLE), expected, atol=0.005)


def test_the_margin():
    """What is predicted whole, but zigzags beside its place, is one piece because of
    the margin; the detour joins with a wider one."""
    zigzag = '..#.. .#... ..#.. ...#. ..#.. .#...'
    assert figures(zigzag, POLE, 1) == (1, 0, 50)
    assert figures(zigzag, POLE, 0) == (3, 0, 16.67)
    detour = '..### ....# ....# ....# ....# ..###'
    assert figures(detour, POLE, 2) == (1, 0, 33.33)


def test_several_poles():
    """One whole, one in two pieces, one missed; what is predicted beside them
    does not count."""
    truth = '#...#...#. #...#...#. #...#...#. #...#...#.'
    pred = '#...#..... #...#.#... #.....#... #...#.....'
    assert figures(pred, truth) == (1.5, 33.33, 50)
    # the same over two images
    shape = drawn(truth).shape
    pairs = [(drawn(pred), drawn(truth)), (np.zeros(shape, int), drawn(truth))]
    got = evaluate(pairs, margin_ratio=1 / np.hypot(*shape))
    assert got == {'Pieces.pole': 1.5, 'Missed.pole': 66.67, 'LargestPiece.pole': 25}
    # small objects are left out, and their predictions with them
    truth = '#...#. #..... #.....'
    assert figures('#..... ...... #.....', truth) == (2, 50, 16.67)
    assert figures('#..... ...... #.....', truth, min_area=3) == (2, 0, 33.33)


def test_ignored_pixels_are_of_no_class():
    """Of the first class too, whose label they have inside."""
    truth = '..#.. ..#.. ..?.. ..#.. ..#..'
    assert figures(POLE.rsplit(' ', 1)[0], truth) == (1, 0, 100)
    pairs = [(np.zeros((4, 5), int), np.full((4, 5), 255))]
    metric = ConnectednessMetric(['road'])
    metric.dataset_meta = dict(classes=CLASSES)
    assert metric.measure(*pairs[0], 3).ravel().tolist() == [0, 0, 0, 0]


def test_a_class_without_objects():
    got = evaluate([(drawn(POLE), drawn(NOTHING))])
    assert all(np.isnan(value) for value in got.values()) and len(got) == 3


def by_scipy(pred, truth, margin):
    """The definition, object by object over the whole image."""
    every = np.ones((3, 3))
    objects, number = ndimage.label(truth, every)
    found = []
    for index in range(1, number + 1):
        own = objects == index
        away = ndimage.distance_transform_cdt(~own, 'chessboard')
        pieces, _ = ndimage.label(pred & (away <= margin), every)
        shares = [(own & (pieces == i)).sum() for i in set(pieces[own].tolist()) - {0}]
        found.append((len(shares), max(shares, default=0) / own.sum()))
    return found


@pytest.mark.parametrize('margin', (0, 1, 3))
def test_against_scipy(margin):
    random = np.random.default_rng(0)
    total = 0
    for share in (0.2, 0.4):
        truth = random.random((40, 31)) < share
        pred = np.roll(truth, 1, 1) ^ (random.random((40, 31)) < 0.1)
        found = pieces_of(pred, truth, margin)
        assert sorted(found) == sorted(by_scipy(pred, truth, margin))
        total += sum(number for number, _ in found)
    assert total > 20


@needs_camvid
def test_against_scipy_on_real_poles():
    from PIL import Image

    path = sorted((CAMVID / 'valannot').glob('*.png'))[7]
    truth = np.asarray(Image.open(path)) == 2
    pred = np.roll(truth, 2, 1) & (np.arange(480) % 50 > 3)
    found = pieces_of(pred, truth, 3)
    assert sorted(found) == sorted(by_scipy(pred, truth, 3)) and len(found) > 3


def test_beside_boundary_iou_of_two_widths():
    """In one evaluator, as the CamVid configs have it."""
    boundary = dict(type='BoundaryIoUMetric', report_classes=['pole'])
    evaluator = Evaluator(
        [
            dict(boundary, dilation_ratio=0.1),
            dict(boundary, dilation_ratio=0.3, prefix='wide'),
            dict(type='ConnectednessMetric', report_classes=['pole']),
        ]
    )
    evaluator.dataset_meta = dict(classes=CLASSES)
    truth = np.kron(drawn(POLE), np.ones((3, 3), int))
    sample = SegDataSample(
        pred_sem_seg=PixelData(data=torch.as_tensor(np.roll(truth, 1, 1))[None]),
        gt_sem_seg=PixelData(data=torch.as_tensor(truth)[None]),
    )
    evaluator.process([sample])
    got = evaluator.evaluate(1)
    assert 0 < got['mBoundaryIoU'] < got['wide/mBoundaryIoU'] < 100
    assert got['Pieces.pole'] == 1 and got['LargestPiece.pole'] == 66.67


def test_refuses_mistakes():
    for arguments, message in (
        (dict(report_classes=[]), 'report_classes is empty'),
        (dict(report_classes='pole', margin_ratio=-0.1), 'margin_ratio is -0.1'),
        (dict(report_classes='pole', margin_ratio=1), 'margin_ratio is 1'),
        (dict(report_classes='pole', min_area=0), 'min_area is 0'),
    ):
        with pytest.raises(ValueError, match=message):
            ConnectednessMetric(**arguments)
    metric = ConnectednessMetric('mast')
    metric.dataset_meta = dict(classes=CLASSES)
    with pytest.raises(ValueError, match="report_classes names .'mast'"):
        metric.process({}, [])
    with pytest.raises(ValueError, match='ConnectednessMetric: no image was evaluated'):
        metric.compute_metrics([])
    with pytest.raises(ValueError, match='ConnectednessMetric: the prediction has'):
        evaluate([(np.zeros((3, 4), int), np.zeros((4, 3), int))])
