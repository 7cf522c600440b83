# Copyright (c) PVD-MM contributors. Apache-2.0.
"""How panoptic models are measured and drawn."""

import numpy as np
from mmengine.config import Config

from pvd_mm.panoptic import (
    match_segments,
    panoptic_quality,
    panoptic_truth,
    split_prediction,
)
from pvd_mm.visualization.grid import Cell
from pvd_mm.visualization.painters import PanopticPainter

from .tasks import Column, build, configured


class PanopticTask(PanopticPainter):
    """Segments of things and stuff: panoptic quality, mask AP and mIoU.

    Args:
        meta (dict): ``classes`` and ``palette``.
        num_things_classes (int): How many classes are things, the first ones.
    """

    columns = (
        Column('PQ', 'pq', 'coco_panoptic/PQ'),
        Column('PQ things', 'pq_things', 'coco_panoptic/PQ_th'),
        Column('PQ stuff', 'pq_stuff', 'coco_panoptic/PQ_st'),
        Column('Mask AP', 'mask_ap', 'coco/segm_mAP', '{:.1f}', 100),
        Column('mIoU', 'miou', 'mIoU'),
    )
    wanted = [column.metric for column in columns]

    def metrics(self, cfg: Config, dataset) -> list:
        """Panoptic quality, COCO's mask AP and mIoU, as the config sets them."""
        coco = dict(configured(cfg, 'CocoMetric'), metric='segm')
        names = ('PanopticQualityMetric', 'SemSegMetric')
        return build([coco, *(configured(cfg, name) for name in names)], dataset)

    def quality(self, sample) -> float:
        """Of an image's prediction: the mean PQ of its classes, in percent."""
        return _image_quality(self, sample, sample)

    def labels(self, sample) -> np.ndarray:
        """The predicted class of every pixel, (H, W)."""
        return sample.pred_sem_seg.sem_seg[0].cpu().numpy()

    def draw_prediction(self, sample, image: np.ndarray, truth=None) -> Cell:
        """The predicted segments.

        Args:
            sample (DetDataSample): The prediction.
            image (np.ndarray): (H, W, 3), RGB.
            truth (DetDataSample, optional): The ground truth, for the caption.
        """
        cell = self._draw(self.predicted(sample), image)
        if truth is None:
            return cell
        return cell._replace(caption=f'PQ {_image_quality(self, sample, truth):.1f}')

    def draw_truth(self, truth, image: np.ndarray) -> Cell:
        """The annotated segments, crowds among them."""
        return self._draw(self.annotated(truth), image)

    def _draw(self, segments, image: np.ndarray) -> Cell:
        ids, entries = segments
        return self.paint(ids, {entry.id: entry.label for entry in entries}, image)

    def predicted(self, sample) -> tuple:
        """Ids and segments of a prediction."""
        panoptic = sample.pred_panoptic_seg.sem_seg[0].cpu().numpy()
        return split_prediction(panoptic, len(self.classes))

    def annotated(self, sample) -> tuple:
        """Those of its ground truth."""
        return panoptic_truth(sample.metainfo, self.num_things_classes)


def _image_quality(task: PanopticTask, sample, truth) -> float:
    stats = match_segments(
        *task.annotated(truth), *task.predicted(sample), len(task.classes)
    )
    quality = panoptic_quality(stats)[:, 0]
    return float(np.nanmean(quality)) if np.isfinite(quality).any() else 100.0
