# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What is special to the comparison of detectors with masks."""

from typing import NamedTuple

import cv2
import numpy as np
from mmengine.config import Config
from mmengine.registry import METRICS

from pvd_mm.visualization.picture_grid import Cell

from .table import Column

_SHOWN = 0.5  # lowest score of a detection that is drawn and counted
_SAME = 0.5  # mask IoU from which on a detection is of an object
_OUTLINE = (1.0, 1.0, 1.0)
_CROWD = (0.5, 0.5, 0.5)


class Objects(NamedTuple):
    """Objects of an image: masks (n, H, W), labels and scores (n,)."""

    masks: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None


class Match(NamedTuple):
    """Detections against the ground truth of one image."""

    ious: list  # of the objects that were found
    truths: int
    false: int

    @property
    def quality(self) -> float:
        """Panoptic quality (Kirillov et al. 2019), from 0 to 1."""
        found = len(self.ious)
        count = found + (self.truths - found + self.false) / 2
        return sum(self.ious) / count if count else 1.0


class ObjectPainter:
    """Draws objects: filled and outlined, with their classes and scores.

    Args:
        meta (dict): ``classes`` and ``palette`` of a dataset.
        fill (float): Opacity of an object's colour, from 0 to 1; with 0 its
            outline has the colour, lighter, instead of white. Defaults to 0.5.
    """

    def __init__(self, meta: dict, fill: float = 0.5) -> None:
        self.meta = meta
        self.fill = fill
        self.shown = set()

    def draw(self, objects: Objects, image: np.ndarray) -> Cell:
        """Draw objects on an image, (H, W, 3), the first above the others."""
        picture = image.astype(np.float32)
        outlines, labels = [], []
        for i in reversed(range(len(objects.labels))):
            mask, label = objects.masks[i], int(objects.labels[i])
            color = self._color(label)
            self.shown.add(label)
            picture[mask] += self.fill * (255 * color - picture[mask])
            if not mask.any():
                continue
            text = self.meta['classes'][label]
            if objects.scores is not None:
                text += f' {objects.scores[i]:.2f}'
            outlines.append((mask, _OUTLINE if self.fill else (1 + color) / 2))
            labels.append((*_corner(mask), text, color))
        return Cell(picture.astype(np.uint8), '', outlines, labels)

    def draw_truth(self, sample, image: np.ndarray) -> Cell:
        """The annotated objects of a sample; crowds are grey."""
        objects, crowds = truth_of(sample, 'gt'), truth_of(sample, 'ignored')
        cell = self.draw(objects, image)
        return cell._replace(
            outlines=[*cell.outlines, *((mask, _CROWD) for mask in crowds.masks)],
            labels=[
                *cell.labels,
                *((*_corner(mask), 'crowd', _CROWD) for mask in crowds.masks),
            ],
        )

    def _color(self, label: int) -> np.ndarray:
        palette = self.meta['palette']
        return np.array(palette[label % len(palette)]) / 255

    def legend(self) -> list:
        """Names and colours of the classes that were drawn."""
        return [(self.meta['classes'][i], self._color(i)) for i in sorted(self.shown)]


class InstanceTask(ObjectPainter):
    """Boxes and masks of objects: COCO's AP of both and boundary AP.

    An image is segmented the better, the higher the panoptic quality of its
    detections with a score of at least 0.5 is: the sum of the mask IoUs of
    those that have found an object (same class, IoU at least 0.5) by their
    number plus half of the missed objects and of the false detections.

    Args:
        dataset: The test data.
        focus (str): Not used; for segmentors.
    """

    columns = tuple(
        Column(title, key, f'coco/{figure}', '{:.1f}', 100)
        for title, key, figure in (
            ('Box AP', 'box_ap', 'bbox_mAP'),
            ('Mask AP', 'mask_ap', 'segm_mAP'),
            ('AP50', 'mask_ap_50', 'segm_mAP_50'),
            ('AP75', 'mask_ap_75', 'segm_mAP_75'),
            ('APs', 'mask_ap_s', 'segm_mAP_s'),
            ('APm', 'mask_ap_m', 'segm_mAP_m'),
            ('APl', 'mask_ap_l', 'segm_mAP_l'),
            ('Boundary AP', 'boundary_ap', 'boundary_mAP'),
        )
    )

    def __init__(self, dataset, focus: str = '') -> None:
        super().__init__(dataset.metainfo)
        self.ann_file = dataset.ann_file
        self.wanted = [column.figure for column in self.columns]

    def metrics(self, cfg: Config) -> list:
        """COCO's AP, and boundary AP as the config sets it."""
        settings = cfg.get('test_evaluator', [])
        settings = [settings] if isinstance(settings, dict) else settings
        boundary = dict(type='BoundaryAPMetric')
        for metric in settings:
            if str(metric['type']).endswith('BoundaryAPMetric'):
                boundary = dict(metric)
        for key in ('prefix', 'metric_items', 'format_only', 'outfile_prefix'):
            boundary.pop(key, None)
        boundary['ann_file'] = self.ann_file
        metrics = [
            dict(type='CocoMetric', ann_file=self.ann_file, metric=['bbox', 'segm']),
            boundary,
        ]
        return [METRICS.build(metric) for metric in metrics]

    def quality(self, sample) -> float:
        """The panoptic quality of an image."""
        return self._match(sample).quality

    def _match(self, sample) -> Match:
        truth, crowds = truth_of(sample, 'gt'), truth_of(sample, 'ignored')
        return match(detections_of(sample), truth, crowds)

    def draw_prediction(self, sample, image: np.ndarray) -> Cell:
        """The detections of a sample, the more certain above the others."""
        found = self._match(sample)
        caption = f'{len(found.ious)} of {found.truths} found'
        if found.ious:
            caption += f', mask IoU {100 * np.mean(found.ious):.0f} %'
        caption += f', {found.false} false'
        return self.draw(detections_of(sample), image)._replace(caption=caption)


def match(found: Objects, truth: Objects, crowds: Objects) -> Match:
    """Match the detections of an image with its objects, class by class.

    Args:
        found (Objects): Detections, the most certain first.
        truth (Objects): The objects.
        crowds (Objects): Regions in which detections of their class are not
            false.

    Returns:
        Match: The mask IoUs of the objects found, and the counts.
    """
    free, ious, false = set(range(len(truth.labels))), [], 0
    for mask, label in zip(found.masks, found.labels, strict=True):
        candidates = [
            (_iou(mask, truth.masks[i]), i) for i in free if truth.labels[i] == label
        ]
        iou, i = max(candidates, default=(0, None))
        if iou >= _SAME:
            ious.append(iou)
            free.remove(i)
        elif not any(
            crowd == label and (mask & region).sum() >= _SAME * mask.sum()
            for region, crowd in zip(crowds.masks, crowds.labels, strict=True)
        ):
            false += 1
    return Match(ious, len(truth.labels), false)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    either = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / either if either else 0.0


def _corner(mask: np.ndarray) -> tuple[float, float]:
    """Where a mask's label begins: the top left corner of its box."""
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    # far enough from the image's edge for the text to be seen
    x = min(columns[0], 0.8 * mask.shape[1])
    return float(x), float(max(rows[0], 0.07 * mask.shape[0]))


def detections_of(sample) -> Objects:
    """The detections of a sample with a score of at least 0.5, best first."""
    pred = sample.pred_instances
    scores = pred.scores.cpu().numpy()
    order = np.argsort(-scores, kind='stable')
    order = order[scores[order] >= _SHOWN]
    masks = np.asarray(pred.masks.cpu()).astype(bool)
    return Objects(masks[order], pred.labels.cpu().numpy()[order], scores[order])


def truth_of(sample, kind: str) -> Objects:
    """The 'gt' or the 'ignored' instances of a sample, in the image's size.

    Raises:
        ValueError: The sample has no masks.
    """
    instances = sample.get(f'{kind}_instances')
    if instances is None or 'masks' not in instances:
        raise ValueError(
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
    return Objects(masks, instances.labels.cpu().numpy())
