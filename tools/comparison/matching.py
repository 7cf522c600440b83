# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Detections and annotated objects of an image, and which belong together."""

from typing import NamedTuple

import cv2
import numpy as np

from pvd_mm.utils.errors import AnnotationError
from pvd_mm.visualization.painters import Instances

_MIN_SCORE = 0.5  # of a detection that counts
_MIN_IOU = 0.5  # of a detection's mask with that of its object


class Match(NamedTuple):
    """Detections against the ground truth of one image.

    Args:
        ious (list[float]): Mask IoUs of the objects that were detected.
        truths (int): How many objects there are.
        false (int): How many detections are of no object.
    """

    ious: list[float]
    truths: int
    false: int

    @property
    def quality(self) -> float:
        """Panoptic quality (Kirillov et al. 2019), from 0 to 1."""
        detected = len(self.ious)
        count = detected + (self.truths - detected + self.false) / 2
        return sum(self.ious) / count if count else 1.0


def match(detections: Instances, truth: Instances, crowds: Instances) -> Match:
    """Match the detections of an image with its objects, class by class.

    Args:
        detections (Instances): Detections, the most certain first.
        truth (Instances): The objects.
        crowds (Instances): Regions in which detections of their class are not
            false.

    Returns:
        Match: The mask IoUs of the detected objects, and the counts.
    """
    free, ious, false = set(range(len(truth.labels))), [], 0
    for mask, label in zip(detections.masks, detections.labels, strict=True):
        candidates = [
            (_iou(mask, truth.masks[i]), i) for i in free if truth.labels[i] == label
        ]
        iou, i = max(candidates, default=(0, None))
        if iou >= _MIN_IOU:
            ious.append(iou)
            free.remove(i)
        elif not any(
            crowd == label and (mask & region).sum() >= _MIN_IOU * mask.sum()
            for region, crowd in zip(crowds.masks, crowds.labels, strict=True)
        ):
            false += 1
    return Match(ious, len(truth.labels), false)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def detections_of(sample) -> Instances:
    """The detections of a sample with a score of at least 0.5, best first."""
    pred = sample.pred_instances
    scores = pred.scores.cpu().numpy()
    order = np.argsort(-scores, kind='stable')
    order = order[scores[order] >= _MIN_SCORE]
    masks = np.asarray(pred.masks.cpu()).astype(bool)
    return Instances(masks[order], pred.labels.cpu().numpy()[order], scores[order])


def truth_of(sample) -> tuple[Instances, Instances]:
    """The objects and the crowds of a sample, in the image's size.

    Raises:
        AnnotationError: The sample has no masks.
    """
    return _annotated(sample, 'gt'), _annotated(sample, 'ignored')


def _annotated(sample, kind: str) -> Instances:
    instances = sample.get(f'{kind}_instances')
    if instances is None or 'masks' not in instances:
        raise AnnotationError(
            'the samples of the test data have no masks; the test pipeline '
            "has to have dict(type='LoadAnnotations', with_bbox=True, "
            'with_mask=True).'
        )
    height, width = sample.ori_shape[:2]
    masks = [
        cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0
        for mask in instances.masks.to_ndarray()
    ]
    masks = np.array(masks, bool).reshape(-1, height, width)
    return Instances(masks, instances.labels.cpu().numpy())
