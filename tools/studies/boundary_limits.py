# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What keeps the boundary IoU of segmentors down: the resolution of the map
that they classify, what they take the segments for, or where they draw the
outlines.

Two oracles tell. Labels that have gone through a map of 1/s of the image, and
back by bilinear interpolation, are what a segmentor reaches that knows all and
keeps no more than how much of each block is of which class. And labels with
the true outlines, where each segment has the class that a segmentor gives to
most of it, are what it would reach if it drew outlines perfectly.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from comparison.runs import Run, load_candidates
from comparison.tasks import labels_of
from pvd_mm.semantic.boundary_iou import BoundaryIoUMetric, mean_of_seen
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.markdown import markdown_table
from pvd_mm.visualization.painters import IGNORED


def labels_through_stride(
    labels: np.ndarray, size: Sequence[int], stride: int, num_classes: int
) -> np.ndarray:
    """Labels that were reduced to a map of 1/stride and brought back.

    Args:
        labels (np.ndarray): uint8, (H, W), 255 where there are none.
        size (Sequence[int]): (h, w) of the image as the network sees it, to
            which labels are first reduced as mmseg reduces them in training.
        stride (int): Side s of the blocks of that image over which each
            class's share is taken.
        num_classes (int): K.

    Returns:
        np.ndarray: int64, (H, W): the class with the greatest share, shares
        interpolated bilinearly as mmseg's heads do with logits.
    """
    height, width = size
    seen = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    shares = np.stack([seen == k for k in range(num_classes)]).astype(np.float32)
    blocks = F.avg_pool2d(torch.from_numpy(shares)[None], stride, ceil_mode=True)
    # the last blocks may reach beyond the image
    reach = [
        round(count * stride * full / side)
        for count, full, side in zip(blocks.shape[2:], labels.shape, size)
    ]
    whole = F.interpolate(blocks, reach, mode='bilinear', align_corners=False)
    return whole[0, :, : labels.shape[0], : labels.shape[1]].argmax(0).numpy()


def labels_with_true_outlines(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """The segments of ``labels``, each of the class that ``predicted`` has on
    most of its pixels.

    Args:
        predicted (np.ndarray): Predicted classes, (H, W).
        labels (np.ndarray): uint8, (H, W), 255 where there are none.
        num_classes (int): K.

    Returns:
        np.ndarray: int64, (H, W); ``predicted`` where there is no label. A
        segment is a connected region of one class.
    """
    result = predicted.astype(np.int64)
    for k in np.setdiff1d(np.unique(labels), [IGNORED]):
        number, segments = cv2.connectedComponents(
            (labels == k).astype(np.uint8), connectivity=8
        )
        counts = np.bincount(
            segments.ravel() * num_classes + predicted.ravel().astype(np.int64),
            minlength=number * num_classes,
        ).reshape(number, num_classes)
        inside = segments > 0
        result[inside] = counts.argmax(1)[segments[inside]]
    return result


def boundary_limits(
    runs: Sequence[Run],
    strides: Sequence[int] = (1, 2, 4, 8),
    ratios: Sequence[float] = (0.005, 0.01, 0.02),
    device: str = 'cpu',
    progress: Callable[[Iterable], Iterable] = iter,
) -> list[dict]:
    """Measure segmentors, and both oracles, on their test data.

    Args:
        runs (Sequence[Run]): Segmentors, tested on the same data.
        strides (Sequence[int]): Of the maps that labels go through.
        ratios (Sequence[float]): Widths of the boundary, ``dilation_ratio``
            of :class:`.BoundaryIoUMetric`.
        device (str): Defaults to 'cpu'.
        progress (Callable): Wraps the list of images. Defaults to none.

    Returns:
        list[dict]: Rows with ``name``, ``mIoU`` and a list ``boundary_iou``,
        one for each ratio, in percent: for each stride, then for each run as
        it is and with the true outlines.

    Raises:
        UserError: The runs are not segmentors.
        UserError, ValueError: What :func:`.load_candidates` raises.
    """
    candidates = load_candidates(runs, device)
    for candidate in candidates:
        if candidate.task != 'mmseg':
            raise UserError(
                f"'{candidate.run.name}' is of {candidate.task}; only "
                'segmentors have a boundary IoU'
            )
    data = candidates[0].dataset
    number = len(data.metainfo['classes'])
    metrics = [BoundaryIoUMetric(ratio, prefix='boundary') for ratio in ratios]
    areas = defaultdict(lambda: [[] for _ in metrics])  # of each image

    def add(name: str, predicted: np.ndarray, labels: np.ndarray) -> None:
        for metric, images in zip(metrics, areas[name], strict=True):
            images.append(metric.measure(predicted, labels, number))

    for index in progress(range(len(data))):
        samples = [candidate.predict(index) for candidate in candidates]
        labels = labels_of(samples[0].gt_sem_seg).astype(np.uint8)
        for stride in strides:
            add(
                f'labels through a map of 1/{stride}',
                labels_through_stride(labels, samples[0].img_shape[:2], stride, number),
                labels,
            )
        for run, sample in zip(runs, samples, strict=True):
            predicted = labels_of(sample.pred_sem_seg)
            add(run.name, predicted, labels)
            add(
                f'{run.name}, with the true outlines',
                labels_with_true_outlines(predicted, labels, number),
                labels,
            )
    return [_row(name, *by_ratio) for name, by_ratio in areas.items()]


def _row(name: str, *by_ratio: Sequence[np.ndarray]) -> dict:
    ious = [BoundaryIoUMetric.ious(images) for images in by_ratio]
    return dict(
        name=name,
        mIoU=mean_of_seen(ious[0][1]),
        boundary_iou=[mean_of_seen(boundary) for boundary, _ in ious],
    )


def table(rows: Sequence[dict], ratios: Sequence[float]) -> str:
    """The rows of :func:`boundary_limits` in Markdown."""
    head = ['', 'mIoU', *(f'boundary IoU, {100 * ratio:g} %' for ratio in ratios)]
    return markdown_table(
        head,
        [
            [
                row['name'],
                *(f'{iou:.1f}' for iou in (row['mIoU'], *row['boundary_iou'])),
            ]
            for row in rows
        ],
    )
