# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Both oracles of the boundary IoU, and the tool."""

import numpy as np
import pytest
import torch

from comparison.compare import compare
from comparison.runs import Run
from pvd_mm.utils.errors import UserError
from studies.boundary_limits import (
    boundary_limits,
    labels_through_stride,
    labels_with_true_outlines,
)


def test_labels_through_stride():
    labels = np.zeros((16, 24), np.uint8)
    labels[:, 12:] = 1
    labels[4:6, 2] = 2  # thinner than half a block
    labels[0, 0] = 255
    known = labels != 255
    same = labels_through_stride(labels, labels.shape, 1, 3)
    assert (same == labels)[known].all()
    coarse = labels_through_stride(labels, labels.shape, 4, 3)
    assert set(np.unique(coarse)) == {0, 1}
    assert (coarse == (labels == 1))[known].all()  # a block's own edge stays
    # sizes that the stride does not divide: no block moves
    part = labels_through_stride(labels[:15, :22], (15, 22), 4, 3)
    assert part.shape == (15, 22)
    assert (part == coarse[:15, :22])[known[:15, :22]].mean() > 0.98
    assert labels_through_stride(labels, (7, 11), 4, 3).shape == (16, 24)


def test_shares_are_torchs():
    labels = np.random.RandomState(0).randint(0, 4, (9, 13)).astype(np.uint8)
    one_hot = (
        torch.nn.functional.one_hot(torch.from_numpy(labels).long(), 4)
        .permute(2, 0, 1)[None]
        .double()
    )
    small = torch.nn.functional.avg_pool2d(one_hot[..., :8, :12], 4)
    large = torch.nn.functional.interpolate(
        small, (8, 12), mode='bilinear', align_corners=False
    )
    found = labels_through_stride(labels[:8, :12], (8, 12), 4, 4)
    top = large[0].topk(2, dim=0).values
    sure = (top[0] - top[1] > 1e-6).numpy()  # elsewhere two classes tie
    assert (found == large[0].argmax(0).numpy())[sure].all()


def test_labels_with_true_outlines():
    labels = np.zeros((4, 8), np.uint8)
    labels[:, 3:5] = 1
    labels[0] = 255
    predicted = np.full((4, 8), 2)
    predicted[:, 4:] = 0
    predicted[1, 3:5] = 1  # a third of the middle segment
    predicted[2:, 3] = 0
    found = labels_with_true_outlines(predicted, labels, 3)
    assert (found[0] == predicted[0]).all()
    assert found[1:].tolist() == [[2, 2, 2, 0, 0, 0, 0, 0]] * 3


def test_of_models(segmentor, baseline, tmp_path):
    runs = [Run('PVD', *segmentor), Run('DeepLabv3', *baseline)]
    rows = boundary_limits(runs, [1, 8], [0.005, 0.05])
    names = [row['name'] for row in rows]
    assert names == [
        'labels through a map of 1/1',
        'labels through a map of 1/8',
        'PVD',
        'PVD, with the true outlines',
        'DeepLabv3',
        'DeepLabv3, with the true outlines',
    ]
    whole, eighth = rows[:2]
    assert whole['mIoU'] == pytest.approx(100)
    assert whole['boundary_iou'] == pytest.approx([100, 100])
    assert eighth['mIoU'] < 95
    # a model's own figures are those of its metrics
    compared = compare(runs, str(tmp_path))['rows']
    for row, one in zip(compared, (rows[2], rows[4]), strict=True):
        assert one['mIoU'] == pytest.approx(row['miou'], abs=0.01)
        assert one['boundary_iou'][0] == pytest.approx(row['boundary_iou'], abs=0.01)


def test_the_tool(segmentor, run_tool):
    text = run_tool(
        'boundary_limits', '--run', 'PVD', *segmentor, '--strides', 4, '--ratios', 0.01
    )
    assert '| PVD, with the true outlines | ' in text
    assert '|  | mIoU | boundary IoU, 1 % |' in text


def test_bad_input(segmentor, detector, run_tool, tmp_path):
    with pytest.raises(UserError, match='is of mmdet'):
        boundary_limits([Run('detector', *detector)])
    with pytest.raises(ValueError, match='not distinct'):
        boundary_limits([Run('PVD', *segmentor)] * 2)
    assert 'does not exist' in run_tool(
        'boundary_limits', '--run', 'PVD', segmentor[0], tmp_path / 'none.pth', ok=False
    )
    for words in (('--strides', 0), ('--ratios', 2)):
        run_tool('boundary_limits', '--run', 'PVD', *segmentor, *words, ok=False)
