# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Paint label maps, instances and panoptic segments in the colours of their
classes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .grid import Cell

IGNORED = 255  # the label of pixels without a class
_OUTLINE = (1.0, 1.0, 1.0)
_CROWD = (0.5, 0.5, 0.5)


class LabelPainter:
    """Paints label maps.

    Args:
        meta (dict): ``classes`` and ``palette`` of a dataset.
    """

    def __init__(self, meta: dict) -> None:
        self.classes = meta['classes']
        self.palette = np.zeros((256, 3), np.uint8)
        self.palette[: len(self.classes)] = meta['palette']
        self.painted = np.zeros(256, bool)

    def paint(self, labels: np.ndarray) -> np.ndarray:
        """Labels (H, W) to a picture (H, W, 3), RGB; ignored pixels are black."""
        self.painted[np.unique(labels)] = True
        return self.palette[labels]

    def legend(self) -> list[tuple[str, np.ndarray]]:
        """Names and colours, from 0 to 1, of the classes that were painted."""
        names = dict(enumerate(self.classes))
        names[IGNORED] = 'unlabelled'
        return [
            (name, self.palette[label] / 255)
            for label, name in names.items()
            if self.painted[label]
        ]


class Instances(NamedTuple):
    """Instances of an image: masks (n, H, W) bool, labels and scores (n,)."""

    masks: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


class InstancePainter:
    """Paints instances: filled and outlined, with their classes and scores.

    Args:
        meta (dict): ``classes`` and ``palette`` of a dataset.
        fill (float): Opacity of an instance's colour, from 0 to 1; with 0 its
            outline has the colour, lighter, instead of white. Defaults to 0.5.
    """

    def __init__(self, meta: dict, fill: float = 0.5) -> None:
        self.classes = meta['classes']
        self.palette = meta['palette']
        self.fill = fill
        self.painted = set()

    def paint(
        self,
        instances: Instances,
        image: np.ndarray,
        crowds: Sequence[np.ndarray] = (),
    ) -> Cell:
        """Paint instances on an image, (H, W, 3), the first above the others;
        crowds, masks (H, W), are outlined in grey."""
        picture = image.astype(np.float32)
        outlines, texts = [], []
        for i in reversed(range(len(instances.labels))):
            mask, label = instances.masks[i], int(instances.labels[i])
            color = self._color(label)
            self.painted.add(label)
            picture[mask] += self.fill * (255 * color - picture[mask])
            if not mask.any():
                continue
            text = self.classes[label]
            if instances.scores is not None:
                text += f' {instances.scores[i]:.2f}'
            outlines.append((mask, _OUTLINE if self.fill else (1 + color) / 2))
            texts.append((*_corner(mask), text, color))
        outlines += [(mask, _CROWD) for mask in crowds]
        texts += [(*_corner(mask), 'crowd', _CROWD) for mask in crowds]
        return Cell(picture.astype(np.uint8), outlines=outlines, labels=texts)

    def _color(self, label: int) -> np.ndarray:
        return np.array(self.palette[label % len(self.palette)]) / 255

    def legend(self) -> list[tuple[str, np.ndarray]]:
        """Names and colours, from 0 to 1, of the classes that were painted."""
        return [
            (self.classes[label], self._color(label)) for label in sorted(self.painted)
        ]


class PanopticPainter(InstancePainter):
    """Paints panoptic segments: all filled, the things outlined.

    Args:
        meta (dict): ``classes`` and ``palette`` of a dataset.
        num_things_classes (int): How many classes are things, the first ones.
        fill (float): Opacity of the colours, from 0 to 1. Defaults to 0.7.
    """

    def __init__(self, meta: dict, num_things_classes: int, fill: float = 0.7) -> None:
        super().__init__(meta, fill)
        self.num_things_classes = num_things_classes

    def paint(self, ids: np.ndarray, labels: dict[int, int], image: np.ndarray) -> Cell:
        """Paint segments on an image.

        Args:
            ids (np.ndarray): Of the segment of each pixel, (H, W).
            labels (dict[int, int]): Id to label; the pixels of other ids stay as
                they are.
            image (np.ndarray): (H, W, 3), RGB.
        """
        picture, outlines = image.astype(np.float32), []
        for i, label in labels.items():
            mask, color = ids == i, self._color(label)
            picture[mask] += self.fill * (255 * color - picture[mask])
            self.painted.add(label)
            if label < self.num_things_classes:
                outlines.append((mask, _OUTLINE))
        return Cell(picture.astype(np.uint8), outlines=outlines)


def _corner(mask: np.ndarray) -> tuple[float, float]:
    """Where a mask's text begins: the top left corner of its box."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    # far enough from the image's edge for the text to be seen
    x = min(columns[0], 0.8 * mask.shape[1])
    return float(x), float(max(rows[0], 0.07 * mask.shape[0]))
