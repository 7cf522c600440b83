# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Boundary IoU: how well the edges of a segmentation sit."""

from collections.abc import Sequence

import cv2
import numpy as np
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from .label_metric import LabelMapMetric, share_of_diagonal

_NO_CLASS = 255  # neutral or foreign value inside an uint8 label map


def boundary_region(
    label: np.ndarray, distance: int, ignored: np.ndarray | None = None
) -> np.ndarray:
    """Find the pixels near the edge of their own segment.

    A pixel belongs to the boundary region of its class if some pixel at a
    chessboard distance of at most ``distance`` has another class or lies
    outside the image. For one class this is ``mask - erode(mask)`` with a
    square of side ``2 * distance + 1`` over a zero border, which is what the
    reference code of the paper computes; here the regions of all classes
    come from one minimum and one maximum filter over the label map.

    Args:
        label (np.ndarray): uint8 label map, (H, W), values up to 254.
        distance (int): Width of the boundary region in pixels, at least 1.
        ignored (np.ndarray, optional): bool map, (H, W), of pixels without a
            known label. They make no boundary: neither they themselves nor,
            by their presence, their neighbours. Defaults to None.

    Returns:
        np.ndarray: bool map, (H, W).
    """
    lowest = highest = label
    if ignored is not None and ignored.any():
        lowest = np.where(ignored, np.uint8(_NO_CLASS), label)
        highest = np.where(ignored, np.uint8(0), label)
    square = np.ones((2 * distance + 1,) * 2, np.uint8)
    lowest = cv2.erode(lowest, square)  # the outside is neutral here ...
    highest = cv2.dilate(
        highest,
        square,
        borderType=cv2.BORDER_CONSTANT,
        borderValue=_NO_CLASS,  # ... and foreign to every class here
    )
    region = (lowest != label) | (highest != label)
    if ignored is not None:
        region &= ~ignored
    return region


def mean_of_seen(values: np.ndarray) -> float:
    """The mean over classes, without the absent ones, which are nan; nan if
    all are."""
    seen = values[~np.isnan(values)]
    return float(np.mean(seen)) if len(seen) else float('nan')


@METRICS.register_module()
class BoundaryIoUMetric(LabelMapMetric):
    """Boundary IoU per class, for semantic segmentation.

    Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation
    Evaluation", CVPR 2021, eq. 2. For the ground truth mask G and the
    predicted mask P of a class::

        |(G_d ∩ G) ∩ (P_d ∩ P)| / |(G_d ∩ G) ∪ (P_d ∩ P)|

    where G_d ∩ G are the pixels of the mask within ``d`` pixels
    (chessboard distance) of its contour. As in the authors' code, ``d`` is
    ``round(dilation_ratio * diagonal)`` of each image, at least 1, and the
    image border is a contour. Intersections and unions are summed over the
    data set before they are divided, as mmseg's ``IoUMetric`` does.

    Ignored pixels (``ignore_index`` in the ground truth) count in neither
    set. A contour between an object and an ignored region is not a known
    contour, so it does not count either: ``G`` and ``P`` are both eroded as
    if the ignored region went on with the same class.

    The paper uses ``d`` = 2 % of the diagonal for COCO and LVIS and 0.5 %
    for the larger images of Cityscapes. A segment thinner than ``2 d`` is
    all boundary; its boundary IoU is then close to its IoU.

    A class that appears neither in the ground truth nor in the predictions
    is ``nan`` and left out of the mean.

    Args:
        dilation_ratio (float): ``d`` as a ratio of the image diagonal,
            between 0 and 1. Defaults to 0.02.
        ignore_index (int): Label of the ignored pixels. Defaults to 255.
        report_classes (Sequence[str]): Classes whose own figures are among
            the returned metrics (and thus in the logs and in the JSON file of
            the test), as ``IoU.<class>`` and ``BoundaryIoU.<class>``.
            The printed table always has all of them. Defaults to ().
        collect_device (str): 'cpu' or 'gpu', where distributed results are
            collected. Defaults to 'cpu'.
        prefix (str, optional): Prefix of the metric names. Defaults to None.

    Raises:
        ValueError: ``dilation_ratio`` is not between 0 and 1, a class of
            ``report_classes`` is not in the data set, a prediction and its
            ground truth differ in size, or a map holds values outside the
            classes.
        KeyError: A sample has no ``pred_sem_seg`` or no ``gt_sem_seg``.

    Examples:
        >>> val_evaluator = [
        >>>     dict(type='IoUMetric', iou_metrics=['mIoU']),
        >>>     dict(type='BoundaryIoUMetric', dilation_ratio=0.005,
        >>>          report_classes=['pole'])]
    """

    def __init__(
        self,
        dilation_ratio: float = 0.02,
        ignore_index: int = 255,
        report_classes: Sequence[str] = (),
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(report_classes, ignore_index, collect_device, prefix)
        if not 0 < dilation_ratio < 1:
            raise ValueError(
                f'dilation_ratio is {dilation_ratio}; expected a ratio of '
                'the image diagonal between 0 and 1, such as 0.02.'
            )
        self.dilation_ratio = dilation_ratio

    def measure(
        self, pred: np.ndarray, truth: np.ndarray, num_classes: int
    ) -> np.ndarray:
        """Count the pixels of one image.

        Args:
            pred (np.ndarray): Predicted labels, whole numbers, (H, W).
            truth (np.ndarray): Ground truth labels, whole numbers, (H, W).
            num_classes (int): Number of classes K, at most 254.

        Returns:
            np.ndarray: int64, (4, K): intersection and union of the boundary
            regions, intersection and union of the masks.
        """
        pred, truth, ignored = self.checked(pred, truth, num_classes)
        distance = max(1, share_of_diagonal(self.dilation_ratio, pred.shape))
        near_pred = boundary_region(pred, distance, ignored)
        near_truth = boundary_region(truth, distance, ignored)

        def count(where: np.ndarray, label: np.ndarray) -> np.ndarray:
            return np.bincount(label[where], minlength=num_classes)

        rows = []
        for in_pred, in_truth in (
            (near_pred, near_truth),
            (~ignored, ~ignored),
        ):
            both = count(in_pred & in_truth & (pred == truth), truth)
            rows.append(both)
            rows.append(count(in_pred, pred) + count(in_truth, truth) - both)
        return np.stack(rows).astype(np.int64)

    @staticmethod
    def ious(results: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Boundary IoU and IoU of each class.

        Args:
            results (Sequence[np.ndarray]): Of images, see :meth:`measure`.

        Returns:
            tuple[np.ndarray, np.ndarray]: (K,) each, in percent, nan for a
            class that appears nowhere.
        """
        near, near_all, mask, mask_all = np.sum(results, axis=0)
        with np.errstate(divide='ignore', invalid='ignore'):
            return 100 * near / near_all, 100 * mask / mask_all

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum up the images.

        Args:
            results (list[np.ndarray]): The (4, K) counts of each image.

        Returns:
            dict[str, float]: ``mBoundaryIoU`` and the figures of
            ``report_classes``, in percent.
        """
        classes = self.classes_of(results)
        boundary, iou = self.ious(results)

        table = PrettyTable()
        table.add_column('Class', list(classes))
        table.add_column('BoundaryIoU', np.round(boundary, 2).tolist())
        logger = MMLogger.get_current_instance()
        print_log('per class boundary IoU:\n' + table.get_string(), logger)

        metrics = {'mBoundaryIoU': round(mean_of_seen(boundary), 2)}
        for name in self.report_classes:
            i = classes.index(name)
            metrics[f'IoU.{name}'] = round(float(iou[i]), 2)
            metrics[f'BoundaryIoU.{name}'] = round(float(boundary[i]), 2)
        return metrics
