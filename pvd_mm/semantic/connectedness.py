# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Connectedness: into how many pieces a prediction breaks thin objects."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from .label_metric import LabelMapMetric, share_of_diagonal


def components(mask: np.ndarray) -> tuple[int, np.ndarray]:
    """The 8-connected components of a bool mask (H, W): their number n, and an
    int32 map, (H, W), of their numbers from 1 to n, 0 outside."""
    number, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return number - 1, labels


def large_enough(mask: np.ndarray, least: int) -> np.ndarray:
    """A bool mask (H, W) without its 8-connected components of fewer pixels than
    ``least``."""
    if least <= 1:
        return mask
    _, labels = components(mask)
    keep = np.bincount(labels.ravel()) >= least
    keep[0] = False
    return keep[labels]


def pieces_of(
    pred: np.ndarray, truth: np.ndarray, margin: int
) -> list[tuple[int, float]]:
    """Into which pieces the objects of a mask fall in a predicted one.

    Args:
        pred (np.ndarray): Predicted mask, bool, (H, W).
        truth (np.ndarray): True mask, bool, (H, W).
        margin (int): How far from an object, in pixels, a piece of it may run.

    Returns:
        list[tuple[int, float]]: Of each object, an 8-connected component of
        ``truth``, the number of its pieces, and which share of its pixels, from
        0 to 1, the one covers that covers the most.
    """
    number, labels = components(truth)
    square = np.ones((2 * margin + 1,) * 2, np.uint8)
    found = []
    for index in range(1, number + 1):
        rows, columns = np.nonzero(labels == index)
        window = tuple(
            slice(max(0, where.min() - margin), where.max() + margin + 1)
            for where in (rows, columns)
        )
        own = labels[window] == index
        near = cv2.dilate(own.astype(np.uint8), square) > 0
        # of the predicted mask close by, what covers some of the object
        _, parts = components(pred[window] & near)
        covered = np.bincount(parts[own])[1:]
        found.append((int((covered > 0).sum()), max(covered, default=0) / own.sum()))
    return found


@METRICS.register_module()
class ConnectednessMetric(LabelMapMetric):
    """Into how many pieces thin objects fall, for semantic segmentation.

    An object is an 8-connected component of a class in the ground truth, T. In
    the predicted mask of that class, P, only what lies within a margin of T
    counts, by chessboard distance. A piece of T is an 8-connected component of
    that part of P which has a pixel in common with T. So a pole that is
    predicted whole, but a pixel beside its place, is one piece; a detour over
    the next pole joins nothing; and what lies beside T without touching it is no
    piece.

    For each class, over the objects of all images:

    - ``Pieces.<class>``: the mean number of pieces of the objects that have one,
      at least 1, 1 being best; nan if none has.
    - ``Missed.<class>``: objects without a piece, in percent. Few pieces mean
      little where this is high.
    - ``LargestPiece.<class>``: the share of an object's pixels that one piece
      covers at most, the mean over all objects, in percent, 100 being best. It
      falls with missed objects, missed parts and gaps alike.

    They are nan for a class without objects. Ignored pixels (``ignore_index`` in
    the ground truth) belong to no object and to no piece.

    Args:
        report_classes (Sequence[str]): The classes whose objects are looked at,
            at least one.
        margin_ratio (float): The margin as a ratio of each image's diagonal,
            from 0 (nothing beside T counts) to less than 1. Defaults to 0.005,
            which is the width of the boundaries in Boundary IoU's figures.
        min_area (int): Objects of fewer pixels are left out. Defaults to 1: none.
        ignore_index (int): Label of the ignored pixels. Defaults to 255.
        collect_device (str): 'cpu' or 'gpu', where distributed results are
            collected. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to None.

    Raises:
        ValueError: An argument is out of range, or see :class:`.LabelMapMetric`.
        KeyError: See :class:`.LabelMapMetric`.

    Examples:
        >>> test_evaluator = [
        >>>     dict(type='IoUMetric', iou_metrics=['mIoU']),
        >>>     dict(type='ConnectednessMetric', report_classes=['pole'])]
    """

    def __init__(
        self,
        report_classes: Sequence[str],
        margin_ratio: float = 0.005,
        min_area: int = 1,
        ignore_index: int = 255,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(report_classes, ignore_index, collect_device, prefix)
        if not self.report_classes:
            raise ValueError(
                'report_classes is empty; expected the classes whose objects are '
                "looked at, such as ['pole']."
            )
        if not 0 <= margin_ratio < 1:
            raise ValueError(
                f'margin_ratio is {margin_ratio}; expected a ratio of the image '
                'diagonal from 0 to less than 1, such as 0.005.'
            )
        if min_area < 1:
            raise ValueError(f'min_area is {min_area}; expected at least 1 pixel.')
        self.margin_ratio = margin_ratio
        self.min_area = min_area

    def measure(
        self, pred: np.ndarray, truth: np.ndarray, num_classes: int
    ) -> np.ndarray:
        """Count the objects of one image, see :class:`.LabelMapMetric`.

        Returns:
            np.ndarray: float64, (4, number of ``report_classes``): objects, those
            with a piece, pieces, and the sum of the shares of the largest pieces.
        """
        pred, truth, ignored = self.checked(pred, truth, num_classes)
        margin = share_of_diagonal(self.margin_ratio, truth.shape)
        names = self._classes()
        counts = []
        for name in self.report_classes:
            label = names.index(name)
            mask = large_enough((truth == label) & ~ignored, self.min_area)
            found = pieces_of((pred == label) & ~ignored, mask, margin)
            pieces = np.array([number for number, _ in found])
            shares = [share for _, share in found]
            counts.append([len(found), (pieces > 0).sum(), pieces.sum(), sum(shares)])
        return np.array(counts, np.float64).T

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum up the images.

        Args:
            results (list[np.ndarray]): The counts of each image.

        Returns:
            dict[str, float]: The three figures of each class.
        """
        self.classes_of(results)
        objects, found, pieces, shares = np.sum(results, axis=0)
        with np.errstate(divide='ignore', invalid='ignore'):
            columns = {
                'Pieces': pieces / found,
                'Missed': 100 * (objects - found) / objects,
                'LargestPiece': 100 * shares / objects,
            }
        table = PrettyTable()
        table.add_column('Class', list(self.report_classes))
        table.add_column('Objects', objects.astype(int).tolist())
        for title, values in columns.items():
            table.add_column(title, np.round(values, 2).tolist())
        logger = MMLogger.get_current_instance()
        print_log('per class connectedness:\n' + table.get_string(), logger)
        return {
            f'{title}.{name}': round(float(value), 2)
            for title, values in columns.items()
            for name, value in zip(self.report_classes, values)
        }
