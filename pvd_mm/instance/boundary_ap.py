# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Boundary AP: COCO's mask AP with an IoU that looks at the edges."""

import math
import os.path as osp
import tempfile
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmdet.datasets.api_wrappers import COCO
from mmdet.evaluation import CocoMetric
from mmdet.registry import METRICS
from mmengine.fileio import load
from mmengine.logging import MMLogger, print_log
from pycocotools import mask as rle_ops
from pycocotools.cocoeval import COCOeval
from terminaltables import AsciiTable

from pvd_mm.utils.errors import AnnotationError, some

#: Name of a figure -> its place in ``COCOeval.stats``.
_STATS = {
    'mAP': 0,
    'mAP_50': 1,
    'mAP_75': 2,
    'mAP_s': 3,
    'mAP_m': 4,
    'mAP_l': 5,
    'AR@100': 6,
    'AR@300': 7,
    'AR@1000': 8,
    'AR_s@1000': 9,
    'AR_m@1000': 10,
    'AR_l@1000': 11,
}


def mask_boundary(rle: dict, dilation_ratio: float = 0.02) -> dict:
    """Find the pixels of a mask near its contour.

    A pixel of the mask is in the boundary if some pixel at a chessboard
    distance of at most ``d`` is not in the mask or lies outside the image,
    ``d = round(dilation_ratio * diagonal of the image)``, at least 1. This
    is ``mask - erode(mask)`` with ``d`` iterations of a 3x3 square over a
    zero border, as in the authors' code. Outside its box a mask is zero, as
    the border is, so that only the box has to be eroded.

    Args:
        rle (dict): The mask as compressed RLE, ``size`` and ``counts``.
        dilation_ratio (float): ``d`` as a ratio of the diagonal.
            Defaults to 0.02.

    Returns:
        dict: The boundary as compressed RLE of the same size.
    """
    height, width = rle['size']
    distance = max(1, round(dilation_ratio * math.sqrt(height**2 + width**2)))
    left, top, w, h = rle_ops.toBbox(rle).astype(int).tolist()
    boundary = np.zeros((height, width), np.uint8, order='F')
    if w and h:
        box = np.s_[top : top + h, left : left + w]
        # The square is symmetric, so the transpose, which is contiguous,
        # does as well.
        mask = np.ascontiguousarray(rle_ops.decode(rle)[box].T)
        eroded = cv2.erode(
            mask,
            np.ones((2 * distance + 1,) * 2, np.uint8),
            borderType=cv2.BORDER_CONSTANT,
            borderValue=0,
        )
        boundary[box] = (mask - eroded).T
    return rle_ops.encode(boundary)


class BoundaryCOCOeval(COCOeval):
    """``COCOeval`` for masks, with the IoU replaced as for Boundary AP.

    The IoU of a detection and a ground truth is the smaller one of their mask
    IoU and of the IoU of their boundaries. With a crowd it stays COCO's
    intersection over the area of the detection, without any boundary, as in
    the authors' code.

    Args:
        cocoGt (COCO): Ground truth.
        cocoDt (COCO): Detections.
        dilation_ratio (float): See :func:`.mask_boundary`. Defaults to 0.02.
    """

    def __init__(self, cocoGt: COCO, cocoDt: COCO, dilation_ratio: float = 0.02):
        super().__init__(cocoGt, cocoDt, 'segm')
        self.dilation_ratio = dilation_ratio

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802
        """Compute the IoUs of one class in one image.

        The smaller one of two is not above the mask IoU. So boundaries are
        only made for pairs whose mask IoU reaches the lowest threshold; the
        value of the other pairs is their mask IoU, too low for any match.

        Returns:
            np.ndarray | list: (detections, ground truths), the detections by
            falling score; an empty list if there is none of one kind.
        """
        ious = super().computeIoU(imgId, catId)
        if len(ious) == 0:
            return ious
        params = self.params
        classes = [catId] if params.useCats else params.catIds
        truths = [g for c in classes for g in self._gts[imgId, c]]
        detections = [d for c in classes for d in self._dts[imgId, c]]
        order = np.argsort([-d['score'] for d in detections], kind='mergesort')
        lowest = min(*params.iouThrs, 1 - 1e-10)  # as evaluateImg matches
        single = np.array([not g['iscrowd'] for g in truths])
        matchable = (ious >= lowest) & single
        rows = np.flatnonzero(matchable.any(1))
        columns = np.flatnonzero(matchable.any(0))
        if len(rows) == 0:
            return ious
        boundary_ious = rle_ops.iou(
            [self._boundary(detections[order[i]]) for i in rows],
            [self._boundary(truths[j]) for j in columns],
            [0] * len(columns),
        )
        block = np.ix_(rows, columns)
        lower = np.minimum(ious[block], boundary_ious)
        ious[block] = np.where(matchable[block], lower, ious[block])
        return ious

    def _boundary(self, annotation: dict) -> dict:
        return mask_boundary(annotation['segmentation'], self.dilation_ratio)


@METRICS.register_module()
class BoundaryAPMetric(CocoMetric):
    """Boundary AP of instance masks, in COCO's protocol.

    Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation
    Evaluation", CVPR 2021, sect. 5: COCO's mask AP with ``min(mask IoU,
    boundary IoU)`` in place of the mask IoU. Everything else (matching,
    crowds, area ranges by the area of the mask, thresholds) is that of
    pycocotools; see :class:`.BoundaryCOCOeval` and :func:`.mask_boundary`.

    It stands beside ``CocoMetric``, whose ``segm_mAP`` it never exceeds. Results
    are named like those of ``CocoMetric``: ``coco/boundary_mAP``,
    ``boundary_mAP_50``, ``_75``, ``_s``, ``_m``, ``_l``, from 0 to 1; -1
    stands, as there, for no ground truth of that kind. Without any detection
    they are 0, where ``CocoMetric`` returns nothing.

    Args:
        ann_file (str, optional): Ground truth in COCO's format. Defaults to
            None: it is made of the ``instances`` of the data samples, as
            ``CocoMetric`` does (areas are those of the boxes then).
        dilation_ratio (float): Width of the boundary as a ratio of the
            diagonal of the image, between 0 and 1. Defaults to 0.02, the
            paper's for COCO.
        classwise (bool): Also print and return the AP of every class, as
            ``boundary_<class>_precision``. Defaults to False.
        proposal_nums (Sequence[int]): Three numbers of detections per image
            that are evaluated, 100 among them. Defaults to
            (100, 300, 1000), as for ``CocoMetric``.
        iou_thrs (float | Sequence[float], optional): IoU thresholds.
            Defaults to None: 0.5, 0.55 ... 0.95.
        metric_items (Sequence[str], optional): Names of the figures to
            return, such as ``mAP_75`` and ``AR@100``. Defaults to None: the six
            above.
        **kwargs: The other arguments of ``CocoMetric``, ``metric`` and
            ``use_mp_eval`` excepted.

    Raises:
        ValueError: An argument is out of its range.
        TypeError: ``metric`` or ``use_mp_eval`` is given.

    Examples:
        >>> val_evaluator = [
        >>>     dict(type='CocoMetric', ann_file=ann, metric=['bbox', 'segm']),
        >>>     dict(type='BoundaryAPMetric', ann_file=ann)]
    """

    def __init__(
        self,
        ann_file: str | None = None,
        dilation_ratio: float = 0.02,
        classwise: bool = False,
        proposal_nums: Sequence[int] = (100, 300, 1000),
        iou_thrs: float | Sequence[float] | None = None,
        metric_items: Sequence[str] | None = None,
        **kwargs,
    ) -> None:
        name = type(self).__name__
        for key in ('metric', 'use_mp_eval'):
            if key in kwargs:
                raise TypeError(
                    f'{name} has no argument {key!r}; list a CocoMetric beside '
                    'it for other metrics.'
                )
        if not 0 < dilation_ratio < 1:
            raise ValueError(
                f'{name}: dilation_ratio is {dilation_ratio}; expected a ratio '
                'of the image diagonal between 0 and 1, such as 0.02.'
            )
        if len(proposal_nums) != 3 or 100 not in proposal_nums:
            raise ValueError(
                f'{name}: proposal_nums is {proposal_nums}; the summary of '
                'COCOeval needs three numbers, and 100 among them.'
            )
        unknown = [item for item in metric_items or () if item not in _STATS]
        if unknown:
            raise ValueError(
                f'{name}: metric_items names {unknown}; there are {list(_STATS)}.'
            )
        super().__init__(
            ann_file=ann_file,
            metric='segm',
            classwise=classwise,
            proposal_nums=proposal_nums,
            iou_thrs=iou_thrs,
            metric_items=metric_items,
            **kwargs,
        )
        self.dilation_ratio = dilation_ratio
        # COCOeval compares them with one threshold: no list, no float
        self.iou_thrs = np.atleast_1d(np.asarray(self.iou_thrs, float))

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Evaluate what ``process`` has collected.

        Args:
            results (list[tuple[dict, dict]]): Ground truth and prediction of
                every image.

        Returns:
            dict[str, float]: See the class; empty with ``format_only``.

        Raises:
            ValueError: A prediction or a ground truth has no mask, or the
                ground truth does not know a class of the data set.
        """
        if not results:
            raise ValueError(f'{type(self).__name__}: no image was evaluated.')
        truths, predictions = zip(*results)
        for result in predictions:
            if 'masks' not in result:
                raise ValueError(
                    f'{type(self).__name__}: the prediction for the image '
                    f'{result["img_id"]} has no masks; the model has to '
                    'segment instances.'
                )
        with tempfile.TemporaryDirectory() as folder:
            prefix = self.outfile_prefix or osp.join(folder, 'results')
            self._prepare_truth(truths, prefix)
            files = self.results2json(predictions, prefix)
            if self.format_only:
                print_log(f'results are saved in {osp.dirname(prefix)}', 'current')
                return {}
            detections = load(files['segm'])
        for detection in detections:
            detection.pop('bbox')  # else its area would be that of the box
        evaluation = BoundaryCOCOeval(
            self._coco_api, self._load_detections(detections), self.dilation_ratio
        )
        evaluation.params.catIds = self.cat_ids
        evaluation.params.imgIds = self.img_ids
        evaluation.params.maxDets = list(self.proposal_nums)
        evaluation.params.iouThrs = self.iou_thrs
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        return self._report(evaluation)

    def _prepare_truth(self, truths: Sequence[dict], prefix: str) -> None:
        """Make the ground truth if there is no file, and check it."""
        name = type(self).__name__
        if self._coco_api is None:
            self._coco_api = COCO(self.gt_to_coco_json(truths, prefix))
        if self.cat_ids is None:
            classes = list(self.dataset_meta['classes'])
            self.cat_ids = self._coco_api.get_cat_ids(cat_names=classes)
            if len(self.cat_ids) != len(classes):
                known = [c['name'] for c in self._coco_api.cats.values()]
                raise AnnotationError(
                    f'{name}: the data set has {len(classes)} classes '
                    f'({some(classes)}), of which the ground truth, with the '
                    f'categories {some(known)}, has {len(self.cat_ids)}.'
                )
        if self.img_ids is None:
            self.img_ids = self._coco_api.get_img_ids()
        categories = set(self.cat_ids)
        without_mask = [
            a['id']
            for a in self._coco_api.dataset.get('annotations', ())
            if a['category_id'] in categories and not a.get('segmentation')
        ]
        if without_mask:
            raise AnnotationError(
                f'{name}: {len(without_mask)} annotations of the ground truth have no '
                f'segmentation; their ids: {some(without_mask)}.'
            )

    def _load_detections(self, detections: list[dict]) -> COCO:
        if detections:
            return self._coco_api.loadRes(detections)
        # loadRes stumbles over an empty list
        print_log('There is no detection in the whole data set.', 'current')
        empty = COCO()
        empty.dataset = dict(
            images=self._coco_api.dataset['images'],
            categories=self._coco_api.dataset['categories'],
            annotations=[],
        )
        empty.createIndex()
        return empty

    def _report(self, evaluation: COCOeval) -> dict[str, float]:
        """Name the figures and print the table of the classes."""
        logger = MMLogger.get_current_instance()
        metrics = {}
        if self.classwise:
            precision = evaluation.eval['precision']  # T, R, K, areas, maxDets
            thresholds = np.round(self.iou_thrs, 4)
            rows = [['category', *list(_STATS)[:6]]]

            def mean(part: np.ndarray) -> float:
                part = part[part > -1]
                return round(float(part.mean()), 3) if part.size else float('nan')

            # evaluate() has sorted the ids
            for k, category in enumerate(evaluation.params.catIds):
                own = precision[:, :, k, :, -1]
                row = [mean(own[..., 0])]
                row += [mean(own[thresholds == t, :, 0]) for t in (0.5, 0.75)]
                row += [mean(own[..., area]) for area in (1, 2, 3)]
                name = self._coco_api.cats[category]['name']
                rows.append([name, *map(str, row)])
                metrics[f'boundary_{name}_precision'] = row[0]
            logger.info('per class boundary AP:\n' + AsciiTable(rows).table)
        for item in self.metric_items or list(_STATS)[:6]:
            value = float(evaluation.stats[_STATS[item]])
            metrics[f'boundary_{item}'] = round(value, 3)
        six = ' '.join(f'{value:.3f}' for value in evaluation.stats[:6])
        logger.info(f'boundary_mAP_copypaste: {six}')
        return metrics
