# Copyright (c) PVD-MM contributors. Apache-2.0.
"""How segmentors, detectors and panoptic models are measured and drawn."""

import math
from typing import NamedTuple

import numpy as np
from mmengine.config import Config
from mmengine.registry import METRICS

from pvd_mm.utils.config_types import type_name
from pvd_mm.utils.dataset_classes import leaves
from pvd_mm.utils.errors import LabelError, UserError
from pvd_mm.visualization.grid import Cell
from pvd_mm.visualization.painters import IGNORED, InstancePainter, LabelPainter

from .matching import Match, detections_of, match, truth_of


class Column(NamedTuple):
    """A column of the table.

    Args:
        title (str): Its title in the table.
        key (str): Its name in the report.
        metric (str): The name that a metric gives its value. Defaults to '':
            it is of no metric.
        form (str): Format of a value. Defaults to two decimals.
        factor (float): From the metric's value to that of the table.
            Defaults to 1.
    """

    title: str
    key: str
    metric: str = ''
    form: str = '{:.2f}'
    factor: float = 1.0

    def value(self, metrics: dict) -> float | None:
        """Its value among those of metrics, None where there is none
        (COCO's metrics give a negative one then)."""
        value = metrics.get(self.metric)
        absent = value is None or math.isnan(value) or value < 0
        return None if absent else round(self.factor * float(value), 2)

    def cell(self, row: dict) -> str:
        """Its value of a row, as the table has it."""
        value = row[self.key]
        return '-' if value is None else self.form.format(value)


class SemanticTask(LabelPainter):
    """Labels of pixels: mIoU and boundary IoU, and those of one class with the
    connectedness of its objects.

    Args:
        meta (dict): ``classes`` and ``palette``.
        focus (str): The class that is reported on its own; its columns are
            empty if there is no such class. Defaults to ''.
    """

    def __init__(self, meta: dict, focus: str = '') -> None:
        super().__init__(meta)
        self.focus = [focus] if focus in self.classes else []
        self.columns = (
            Column('mIoU', 'miou', 'mIoU'),
            Column('Boundary IoU', 'boundary_iou', 'mBoundaryIoU'),
            Column(f'IoU {focus}', 'focus_iou', f'IoU.{focus}'),
            Column(
                f'Boundary IoU {focus}', 'focus_boundary_iou', f'BoundaryIoU.{focus}'
            ),
            Column(f'Pieces {focus}', 'focus_pieces', f'Pieces.{focus}'),
            Column(f'Missed {focus} (%)', 'focus_missed', f'Missed.{focus}'),
            Column(
                f'Largest piece {focus} (%)',
                'focus_largest_piece',
                f'LargestPiece.{focus}',
            ),
        )
        self.wanted = [c.metric for c in self.columns[: None if self.focus else 2]]

    def metrics(self, cfg: Config, dataset) -> list:
        """IoU, and boundary IoU and connectedness as the config sets them."""
        names = ['BoundaryIoUMetric', *(['ConnectednessMetric'] if self.focus else [])]
        own = [dict(configured(cfg, n), report_classes=self.focus) for n in names]
        return build([dict(type='IoUMetric', iou_metrics=['mIoU']), *own], dataset)

    def quality(self, sample) -> int:
        """Of an image's prediction: how many pixels are labelled right."""
        labels, truth = self.labels(sample), labels_of(sample.gt_sem_seg)
        return int((labels == truth)[truth != IGNORED].sum())

    def labels(self, sample) -> np.ndarray:
        """The predicted class of every pixel, (H, W)."""
        return labels_of(sample.pred_sem_seg)

    def draw_prediction(self, sample, image: np.ndarray, truth=None) -> Cell:
        """The predicted labels in their colours.

        Args:
            sample (SegDataSample): The prediction.
            image (np.ndarray): (H, W, 3), RGB.
            truth (SegDataSample, optional): The ground truth, for the caption.
        """
        labels = self.labels(sample)
        cell = Cell(self.paint(labels))
        if truth is None:
            return cell
        right = _true_labels(truth, image)
        known = right != IGNORED
        share = 100 * (labels == right)[known].mean() if known.any() else 0
        return cell._replace(caption=f'{share:.1f} % of pixels right')

    def draw_truth(self, truth, image: np.ndarray) -> Cell:
        """The ground truth in its colours."""
        return Cell(self.paint(_true_labels(truth, image)))


class InstanceTask(InstancePainter):
    """Boxes and masks of objects: COCO's AP of both and boundary AP.

    Args:
        meta (dict): ``classes`` and ``palette``.
        contours (bool): Whether objects are drawn as in the paper's Fig. 7:
            contours alone, without the mask IoU in the caption. Defaults to
            False.
    """

    columns = tuple(
        Column(title, key, f'coco/{metric}', '{:.1f}', 100)
        for title, key, metric in (
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
    wanted = [column.metric for column in columns]

    def __init__(self, meta: dict, contours: bool = False) -> None:
        super().__init__(meta, fill=0 if contours else 0.5)
        self.contours = contours

    def metrics(self, cfg: Config, dataset) -> list:
        """COCO's AP, and boundary AP as the config sets it."""
        coco = dict(type='CocoMetric', metric=['bbox', 'segm'])
        metrics = [coco, configured(cfg, 'BoundaryAPMetric')]
        ann_file = _annotation_file(dataset)
        return build([dict(m, ann_file=ann_file) for m in metrics], dataset)

    def quality(self, sample) -> float:
        """Of an image's prediction: its panoptic quality.

        That is the sum of the mask IoUs of the detections of an object (same
        class, IoU at least 0.5) by their number plus half of the missed
        objects and of the false detections; of detections with a score of at
        least 0.5.
        """
        return _match(sample, sample).quality

    def labels(self, sample) -> np.ndarray:
        """The class of the most certain detection on every pixel, (H, W), -1
        where there is none."""
        detections = detections_of(sample)
        labels = np.full(sample.ori_shape[:2], -1)
        for mask, label in reversed(list(zip(detections.masks, detections.labels))):
            labels[mask] = label
        return labels

    def draw_prediction(self, sample, image: np.ndarray, truth=None) -> Cell:
        """The detections, the more certain above the others.

        Args:
            sample (DetDataSample): The prediction.
            image (np.ndarray): (H, W, 3), RGB.
            truth (DetDataSample, optional): The ground truth, for the caption.
        """
        cell = self.paint(detections_of(sample), image)
        if truth is None:
            return cell
        matched = _match(sample, truth)
        parts = [f'{len(matched.ious)} of {matched.truths} found']
        if matched.ious and not self.contours:
            parts.append(f'mask IoU {100 * np.mean(matched.ious):.0f} %')
        parts.append(f'{matched.false} false')
        return cell._replace(caption=', '.join(parts))

    def draw_truth(self, truth, image: np.ndarray) -> Cell:
        """The annotated objects; crowds are grey."""
        objects, crowds = truth_of(truth)
        return self.paint(objects, image, crowds.masks)


def labels_of(pixel_data) -> np.ndarray:
    """The label map, (H, W), of a sample's ``PixelData``."""
    return pixel_data.data[0].cpu().numpy()


def _true_labels(sample, image: np.ndarray) -> np.ndarray:
    labels = labels_of(sample.gt_sem_seg)
    if labels.shape != image.shape[:2]:
        raise LabelError(
            f'the label map of {sample.img_path} is {labels.shape} after the '
            f'pipeline of its data, its image {image.shape[:2]}: LoadAnnotations '
            'has to come after Resize there, so that labels keep their size.'
        )
    return labels


def _annotation_file(dataset) -> str:
    """That of a data set, or of the one inside wrappers such as ``RepeatDataset``.

    Raises:
        UserError: There are several.
    """
    parts = list(leaves(dataset))
    if len(parts) > 1:
        raise UserError(
            f'the test data are {len(parts)} data sets with annotation files of '
            'their own; detectors are compared on one.'
        )
    return parts[0].ann_file


def _match(sample, truth) -> Match:
    return match(detections_of(sample), *truth_of(truth))


def configured(cfg: Config, metric: str) -> dict:
    """The settings of a metric in a config's test, of the first of that type, without
    those that change its report; its defaults if it is not there."""
    evaluator = cfg.get('test_evaluator') or []
    if isinstance(evaluator, dict):
        evaluator = evaluator.get('metrics', [evaluator])
    same = (entry for entry in evaluator if type_name(entry).endswith(metric))
    settings = dict(next(same, {'type': metric}))
    for key in ('prefix', 'metric_items', 'format_only', 'outfile_prefix'):
        settings.pop(key, None)
    return settings


def build(settings: list[dict], dataset) -> list:
    """Metrics that know the classes of a data set."""
    metrics = [METRICS.build(entry) for entry in settings]
    for metric in metrics:
        metric.dataset_meta = dataset.metainfo
    return metrics
