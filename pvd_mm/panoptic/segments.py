# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Panoptic maps: their ids, and how well the segments of two of them agree.

====== =============================================== =========
symbol meaning                                         shape
====== =============================================== =========
ids    of the segment that each pixel is of, 0 is void (H, W)
K      number of classes, things before stuff
====== =============================================== =========
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mmdet.evaluation.functional import INSTANCE_OFFSET

from pvd_mm.utils.coco import box_of
from pvd_mm.utils.errors import LabelError, some

VOID = 0


class Segment(NamedTuple):
    """One entry of an image's ``segments_info``."""

    id: int
    label: int
    is_crowd: bool = False


def rgb_to_ids(pixels: np.ndarray) -> np.ndarray:
    """Decode the PNG of COCO's panoptic format: R + 256·G + 256²·B.

    Args:
        pixels (np.ndarray): (H, W, 3) uint8, RGB.

    Returns:
        np.ndarray: Ids, (H, W) int32.

    Raises:
        LabelError: It is no such image.
    """
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise LabelError(
            'a panoptic map must have three channels of uint8, but has the shape '
            f'{pixels.shape} and the type {pixels.dtype}'
        )
    red, green, blue = np.moveaxis(pixels.astype(np.int32), 2, 0)
    return red + (green << 8) + (blue << 16)


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """The inverse of :func:`.rgb_to_ids`: (H, W) to (H, W, 3) uint8.

    Raises:
        LabelError: An id has more than 24 bits.
    """
    ids = np.asarray(ids)
    if ids.size and (ids.min() < 0 or ids.max() >= 1 << 24):
        raise LabelError(
            'ids of segments must be from 0 to 16777215, but are from '
            f'{ids.min()} to {ids.max()}'
        )
    return np.stack([ids >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8)


def split_prediction(
    panoptic: np.ndarray, num_classes: int, ignore_index: int | None = None
) -> tuple[np.ndarray, list[Segment]]:
    """Number the segments of a prediction.

    Args:
        panoptic (np.ndarray): mmdet's ``pred_panoptic_seg.sem_seg``, (H, W):
            label + instance · ``INSTANCE_OFFSET``.
        num_classes (int): K. This label is void.
        ignore_index (int, optional): Another label that is void. Defaults to
            None.

    Returns:
        tuple[np.ndarray, list[Segment]]: Ids, (H, W) int32, and their
        segments, numbered from 1.

    Raises:
        LabelError: A label is outside the classes.
    """
    values, places = np.unique(panoptic, return_inverse=True)
    labels = values % INSTANCE_OFFSET
    void = (labels == num_classes) | (labels == ignore_index)
    outside = labels[~void & (labels > num_classes)]
    if len(outside):
        raise LabelError(
            f'a prediction has the labels {some(outside.tolist())}, but there are '
            f'{num_classes} classes'
        )
    numbers = np.where(void, VOID, np.cumsum(~void)).astype(np.int32)
    segments = [
        Segment(int(number), int(label))
        for number, label in zip(numbers, labels)
        if number != VOID
    ]
    return numbers[places].reshape(panoptic.shape), segments


def segments_info(
    ids: np.ndarray, segments: Sequence[Segment], category_of: Callable[[int], int]
) -> list[dict]:
    """The entries of a prediction in COCO's panoptic format.

    Args:
        ids (np.ndarray): (H, W), see :func:`.split_prediction`.
        segments (Sequence[Segment]): Those in it.
        category_of (Callable): Label to the id of its category.

    Returns:
        list[dict]: ``id``, ``category_id``, ``area`` in pixels, ``bbox`` (x, y,
        width, height) and ``iscrowd``.
    """
    entries = []
    for segment in segments:
        mask = ids == segment.id
        entries.append(
            dict(
                id=segment.id,
                category_id=category_of(segment.label),
                area=int(mask.sum()),
                bbox=box_of(mask),
                iscrowd=0,
            )
        )
    return entries


def match_segments(
    truth_ids: np.ndarray,
    truth: Sequence[Segment],
    predicted_ids: np.ndarray,
    predicted: Sequence[Segment],
    num_classes: int,
) -> np.ndarray:
    """Match the segments of one image (Kirillov et al., "Panoptic
    Segmentation", CVPR 2019, section 4).

    Two segments of a class match if their IoU is above 0.5. As the paper's
    section 4.2 and COCO's evaluation have it, pixels of void in the truth
    count in no union; a prediction that matches nothing is no false positive
    if more than half of it is void or crowds of its class; and crowds are
    never matched or missed. Of several crowds of a class COCO's own code
    takes the last alone; here all of them count. Ids that no segment has are
    void.

    Args:
        truth_ids (np.ndarray): (H, W).
        truth (Sequence[Segment]): Its segments.
        predicted_ids (np.ndarray): (H, W).
        predicted (Sequence[Segment]): Its segments.
        num_classes (int): K.

    Returns:
        np.ndarray: (K, 4), of each class the sum of the matches' IoU, and the
        numbers of matches, of false positives and of false negatives.

    Raises:
        LabelError: The maps differ in size.
    """
    if truth_ids.shape != predicted_ids.shape:
        raise LabelError(
            f'the truth has {truth_ids.shape} pixels (height, width), but the '
            f'prediction has {predicted_ids.shape}'
        )
    overlaps = _overlaps(truth_ids, truth, predicted_ids, predicted)
    in_void = overlaps[0, 1:]
    areas = overlaps[:, 1:].sum(0)  # of predictions
    labels = np.array([segment.label for segment in predicted], int)
    truth_labels = np.array([segment.label for segment in truth], int)
    is_crowd = np.array([segment.is_crowd for segment in truth], bool)

    common = overlaps[1:, 1:]
    union = overlaps[1:].sum(1)[:, None] + areas - in_void - common
    iou = common / np.maximum(union, 1)
    same_class = truth_labels[:, None] == labels
    rows, columns = np.nonzero((iou > 0.5) & same_class & ~is_crowd[:, None])

    missed = ~is_crowd
    missed[rows] = False
    ignored = in_void + (common * (same_class & is_crowd[:, None])).sum(0)
    wrong = (areas > 0) & (2 * ignored <= areas)
    wrong[columns] = False
    stats = np.zeros((num_classes, 4))
    np.add.at(stats[:, 0], labels[columns], iou[rows, columns])
    for column, found in (
        (1, labels[columns]), (2, labels[wrong]), (3, truth_labels[missed])
    ):  # fmt: skip
        stats[:, column] = np.bincount(found, minlength=num_classes)
    return stats


def _overlaps(truth_ids, truth, predicted_ids, predicted) -> np.ndarray:
    """Pixels that two segments have in common, (T + 1, P + 1), void first."""
    pairs, counts = np.unique(
        (truth_ids.astype(np.int64) << 32) | predicted_ids.astype(np.int64),
        return_counts=True,
    )
    rows = {segment.id: row for row, segment in enumerate(truth, 1)}
    columns = {segment.id: column for column, segment in enumerate(predicted, 1)}
    overlaps = np.zeros((len(truth) + 1, len(predicted) + 1))
    for pair, count in zip(pairs.tolist(), counts.tolist()):
        row, column = rows.get(pair >> 32, 0), columns.get(pair & 0xFFFFFFFF, 0)
        overlaps[row, column] += count
    return overlaps


def panoptic_quality(stats: np.ndarray) -> np.ndarray:
    """PQ, SQ and RQ of each class, in percent (the paper's equations 1 and 2).

    Args:
        stats (np.ndarray): (K, 4), the sum of what :func:`.match_segments`
            gives for all images.

    Returns:
        np.ndarray: (K, 3); NaN for classes that are neither in the truth nor
        predicted, which belong in no mean. SQ is 0 where nothing matches.
    """
    iou, matches, wrong, missed = stats.T
    number = matches + (wrong + missed) / 2
    with np.errstate(invalid='ignore', divide='ignore'):
        recognition = np.where(number > 0, matches / number, np.nan)
        segmentation = np.where(number > 0, iou / np.maximum(matches, 1), np.nan)
    return 100 * np.stack([segmentation * recognition, segmentation, recognition], 1)
