# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Painted labels and instances, pixel by pixel."""

import numpy as np

from pvd_mm.visualization.painters import (
    IGNORED,
    InstancePainter,
    Instances,
    LabelPainter,
    PanopticPainter,
)

META = dict(classes=('a', 'b', 'c'), palette=[[255, 0, 0], [0, 200, 0], [0, 0, 100]])


def test_labels():
    painter = LabelPainter(META)
    assert painter.legend() == []
    picture = painter.paint(np.array([[0, 2], [IGNORED, 2]]))
    assert picture.tolist() == [[[255, 0, 0], [0, 0, 100]], [[0, 0, 0], [0, 0, 100]]]
    assert [name for name, _ in painter.legend()] == ['a', 'c', 'unlabelled']
    assert painter.legend()[0][1].tolist() == [1, 0, 0]


def test_instances_and_crowds():
    masks = np.zeros((3, 10, 20), bool)
    masks[0, :, :12] = masks[1, :, 8:] = True
    painter = InstancePainter(META)
    instances = Instances(masks[:2], np.array([1, 0]), np.array([0.9, 0.6]))
    image = np.full((10, 20, 3), 100, np.uint8)
    cell = painter.paint(instances, image, crowds=[masks[1]])
    assert cell.picture[0, 0].tolist() == [50, 150, 50]
    assert cell.picture[0, 19].tolist() == [177, 50, 50]
    assert cell.picture[0, 10].tolist() == [88, 125, 25]  # the first above
    assert [text for _, _, text, _ in cell.labels] == ['a 0.60', 'b 0.90', 'crowd']
    assert [color for _, color in cell.outlines] == [(1, 1, 1)] * 2 + [(0.5,) * 3]
    assert (image == 100).all()
    assert [name for name, _ in painter.legend()] == ['a', 'b']
    empty = painter.paint(Instances(masks[2:], np.array([2])), image)
    assert empty.labels == [] and (empty.picture == 100).all()


def test_panoptic_segments():
    """Things are outlined, stuff is not; what is in no segment stays."""
    meta = dict(classes=('a', 'b'), palette=[(255, 0, 0), (0, 0, 255)])
    ids = np.array([[1, 1, 2, 0]])
    image = np.full((1, 4, 3), 100, np.uint8)
    painter = PanopticPainter(meta, num_things_classes=1, fill=1)
    cell = painter.paint(ids, {1: 0, 2: 1}, image)
    expected = [[255, 0, 0]] * 2 + [[0, 0, 255], [100, 100, 100]]
    assert cell.picture[0].tolist() == expected
    [(mask, _)] = cell.outlines
    assert mask[0].tolist() == [True, True, False, False]
    assert [name for name, _ in painter.legend()] == ['a', 'b']
