# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What is special to the comparison of segmentors."""

import numpy as np
from mmengine.config import Config
from mmengine.registry import METRICS

from pvd_mm.visualization.picture_grid import Cell

from .table import Column

IGNORED = 255


class LabelPainter:
    """Paints label maps in the colours of their classes.

    Args:
        meta (dict): ``classes`` and ``palette`` of a dataset.
    """

    def __init__(self, meta: dict) -> None:
        self.meta = meta
        self.palette = np.zeros((256, 3), np.uint8)
        self.palette[: len(meta['classes'])] = meta['palette']
        self.shown = np.zeros(256, bool)

    def paint(self, labels: np.ndarray) -> np.ndarray:
        """Labels (H, W) to a picture (H, W, 3), RGB; what is ignored is black."""
        self.shown[np.unique(labels)] = True
        return self.palette[labels]

    def legend(self) -> list:
        """Names and colours of the classes that were drawn."""
        entries = [
            (name, self.palette[i] / 255)
            for i, name in enumerate(self.meta['classes'])
            if self.shown[i]
        ]
        if self.shown[IGNORED]:
            entries.append(('unlabelled', self.palette[IGNORED] / 255))
        return entries


class SemanticTask(LabelPainter):
    """Labels of pixels: mIoU and boundary IoU, those of one class beside.

    An image is labelled the better, the more of its pixels are right.

    Args:
        dataset: The test data.
        focus (str): The class that is reported on its own; its columns are
            empty if the data has no such class.
    """

    def __init__(self, dataset, focus: str) -> None:
        super().__init__(dataset.metainfo)
        self.focus = [focus] if focus in self.meta['classes'] else []
        self.columns = (
            Column('mIoU', 'miou', 'mIoU'),
            Column('Boundary IoU', 'boundary_iou', 'mBoundaryIoU'),
            Column(f'IoU {focus}', 'focus_iou', f'IoU.{focus}'),
            Column(
                f'Boundary IoU {focus}', 'focus_boundary_iou', f'BoundaryIoU.{focus}'
            ),
        )
        self.wanted = [c.figure for c in self.columns[: 4 if self.focus else 2]]

    def metrics(self, cfg: Config) -> list:
        """IoU and boundary IoU, the latter as the config sets it."""
        settings = cfg.get('test_evaluator', [])
        settings = [settings] if isinstance(settings, dict) else settings
        boundary = dict(type='BoundaryIoUMetric')
        for metric in settings:
            if str(metric['type']).endswith('BoundaryIoUMetric'):
                boundary = dict(metric)
        boundary['report_classes'] = self.focus
        boundary.pop('prefix', None)
        metrics = [dict(type='IoUMetric', iou_metrics=['mIoU']), boundary]
        return [METRICS.build(metric) for metric in metrics]

    def quality(self, sample) -> int:
        """The number of pixels that are labelled right."""
        pred, truth = labels_of(sample.pred_sem_seg), labels_of(sample.gt_sem_seg)
        return int((pred == truth)[truth != IGNORED].sum())

    def draw_truth(self, sample, image: np.ndarray) -> Cell:
        """The ground truth of a sample in its colours."""
        return Cell(self.paint(labels_of(sample.gt_sem_seg)))

    def draw_prediction(self, sample, image: np.ndarray) -> Cell:
        """The labels of a sample in their colours."""
        pred, truth = labels_of(sample.pred_sem_seg), labels_of(sample.gt_sem_seg)
        known = truth != IGNORED
        right = 100 * (pred == truth)[known].mean() if known.any() else 0
        return Cell(self.paint(pred), f'{right:.1f} % of pixels right')


def labels_of(pixel_data) -> np.ndarray:
    """The label map, (H, W), of a sample's ``PixelData``."""
    return pixel_data.data[0].cpu().numpy()
