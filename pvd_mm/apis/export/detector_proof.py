# Copyright (c) PVD-MM contributors. Apache-2.0.
"""How a detector's file compares with the model: detections, and AP."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import NamedTuple

import numpy as np
import torch
from mmdet.registry import DATASETS, METRICS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.logging import MMLogger
from mmengine.structures import InstanceData
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from pvd_mm.utils.config_types import type_name
from pvd_mm.utils.errors import UsageError

from .files import Run
from .samples import raw

#: Two detections are the same with the same label, an IoU of boxes and of masks of at
#: least this, and scores that differ by no more.
LEAST_IOU = 0.9
MOST_SCORE = 0.05


class DetectorProof(NamedTuple):
    """How a detector's file compares with the model that it was made from."""

    images: int
    detections: int  # of both together
    same: float  # share of them that are the same in the other
    scores: float  # largest difference, of those with the same box
    boxes: float  # the same, in pixels of the original image
    masks: float | None  # least IoU of the pasted masks
    ap: dict[str, tuple[float, float]]  # of model and file in percent, by kind
    labels: float | None  # share of a panoptic model's pixels with the same label

    @property
    def agreement(self) -> float:
        """The share of what is compared, of the worse of both kinds."""
        return self.same if self.labels is None else min(self.same, self.labels)

    def lines(self) -> list[str]:
        """For a terminal."""
        lines = [
            f'images compared         {self.images}',
            f'detections that agree   {100 * self.same:.2f} % of '
            f'{self.detections} of model and file together',
            f'difference of scores    {self.scores:.2g} at most',
            f'difference of boxes     {self.boxes:.2g} pixels at most',
        ]
        if self.masks is not None:
            lines.append(f'masks, pasted           IoU of {self.masks:.4f} at least')
        if self.labels is not None:
            lines.append(f'labels that agree       {100 * self.labels:.4f} %')
        for kind, (model, file) in self.ap.items():
            lines.append(
                f'{kind} AP on these images'.ljust(24)
                + f'model {model:.2f}, file {file:.2f}'
            )
        return lines


@torch.no_grad()
def prove(inferencer, run: Run, samples: Sequence[dict], swaps: bool) -> DetectorProof:
    """mmdet's own prediction beside the file's, pasted, at the size of the original
    image.

    Args:
        inferencer (BaseInferencer): That of the model.
        run (Callable): The file, see :func:`.read`.
        samples (Sequence[dict]): Of :func:`.load_samples`.
        swaps (bool): See :func:`.raw`.

    Raises:
        UsageError: Neither finds anything, which proves nothing.
    """
    model = inferencer.model
    metrics = [_metric(inferencer.cfg, samples) for _ in range(2)]
    number = same = 0
    scores = boxes = 0.0
    masks = 1.0 if model.roi_head.with_mask else None
    pixels = []  # whether each has the same label
    for sample in samples:
        outputs = run(raw(sample, swaps).numpy())
        (expected,) = model.test_step(sample)
        wanted = expected.pred_instances
        got = _pasted(model, outputs[:4], expected.metainfo)
        if len(outputs) > 4:
            labels = torch.from_numpy(outputs[4])
            pixels.append((labels == _semantic(model, sample)).flatten())
        for metric, instances in zip(metrics, (wanted, got)):
            if metric is not None:
                data = dict(expected.metainfo, pred_instances=instances)
                metric.process({}, [data])
        number += len(wanted) + len(got)
        wanted, got = _pairs(wanted, got)
        score = (wanted.scores - got.scores).abs()
        alike = score <= MOST_SCORE
        scores = max([scores, *score.tolist()])
        boxes = max([boxes, *(wanted.bboxes - got.bboxes).abs().flatten().tolist()])
        if masks is not None:
            iou = _mask_iou(wanted.masks, got.masks)
            alike &= iou >= LEAST_IOU
            masks = min([masks, *iou.tolist()])
        same += 2 * alike.sum().item()
    if not number:
        raise UsageError(
            'neither the model nor the file finds anything on these images, which '
            'proves nothing; give it --images with objects, or a trained checkpoint.'
        )
    ap = _ap(*metrics, len(samples)) if metrics[0] is not None else {}
    labels = torch.cat(pixels).float().mean().item() if pixels else None
    found = len(samples), number, same / number, scores, boxes, masks, ap, labels
    return DetectorProof(*found)


def _pasted(model: nn.Module, outputs: Sequence[np.ndarray], meta: dict):
    """What a file gives, at the size of the original image."""
    boxes, scores, labels, *masks = map(torch.from_numpy, outputs)
    found = InstanceData(bboxes=boxes, scores=scores, labels=labels)
    if not masks:
        found.bboxes = boxes / boxes.new_tensor(meta['scale_factor']).repeat(2)
        return found
    head = model.roi_head.mask_head
    logits = masks[0].logit()[:, None].expand(-1, head.num_classes, -1, -1)
    (found,) = head.predict_by_feat(
        mask_preds=(logits,),
        results_list=[found],
        batch_img_metas=[meta],
        rcnn_test_cfg=model.roi_head.test_cfg,
        rescale=True,
    )
    return found


def _semantic(model: nn.Module, sample: dict) -> Tensor:
    """Labels (H, W) of a panoptic model's semantic head, of the image as given."""
    data = model.data_preprocessor(sample)
    (meta,) = (each.metainfo for each in data['data_samples'])
    maps = model.extract_feat(data['inputs'])
    height, width = meta['img_shape']
    (logits,) = model.semantic_head.predict(maps, [meta])
    return logits[:, :height, :width].argmax(0)


def _pairs(wanted, got):
    """Those of the same label and place, a row each."""
    iou = bbox_overlaps(wanted.bboxes, got.bboxes)
    iou[wanted.labels[:, None] != got.labels] = 0
    rows, columns = linear_sum_assignment(iou.numpy(), maximize=True)
    close = iou[rows, columns] >= LEAST_IOU
    return wanted[torch.from_numpy(rows)[close]], got[torch.from_numpy(columns)[close]]


def _mask_iou(first: Tensor, second: Tensor) -> Tensor:
    """Of masks (K, H, W); two empty ones are the same."""
    both = (first & second).flatten(1).sum(1)
    either = (first | second).flatten(1).sum(1)
    return torch.where(either > 0, both / either, 1.0)


def _metric(cfg, samples: Sequence[dict]):
    """The config's ``CocoMetric`` on these images; None without annotations."""
    found = cfg.get('test_evaluator') or []
    found = [found] if isinstance(found, dict) else found
    ids = [sample['data_samples'][0].get('img_id') for sample in samples]
    config = next((x for x in found if type_name(x) == 'CocoMetric'), None)
    annotated = all('gt_instances' in sample['data_samples'][0] for sample in samples)
    if config is None or not annotated or None in ids:
        return None
    with redirect_stdout(io.StringIO()):  # pycocotools talks
        metric = METRICS.build(config)
    lazy = dict(cfg.test_dataloader.dataset, lazy_init=True)
    metric.dataset_meta = DATASETS.build(lazy).metainfo
    metric.img_ids = ids
    return metric


def _ap(model, file, number: int) -> dict[str, tuple[float, float]]:
    """AP of two metrics in percent, by kind; of what is annotated on the images."""
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('ERROR')
    try:
        with redirect_stdout(io.StringIO()):
            found = [metric.evaluate(number) for metric in (model, file)]
    finally:
        logger.setLevel(level)
    found = [{k.rpartition('/')[2]: v for k, v in x.items()} for x in found]
    ap = {
        kind: tuple(100 * values.get(key, 0.0) for values in found)
        for kind, key in (('box', 'bbox_mAP'), ('mask', 'segm_mAP'))
        if any(key in values for values in found)
    }
    return {kind: pair for kind, pair in ap.items() if min(pair) >= 0}
