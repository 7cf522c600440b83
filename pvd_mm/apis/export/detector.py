# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Two-stage detectors of mmdet, and panoptic models with one: from the raw image to
boxes and masks, and labels.

The layers, the anchors, the box coders and the branches of the RoI head are those of
the model. Between them mmdet chooses proposals and detections, and branches by how many
there are; that part of its test is written again here, without branches, with operators
that ONNX has (:mod:`.detector_operators`). That both compute the same is proven with
every file (:mod:`.detector_proof`).

Shape shorthand: N anchors, P proposals, C classes, K detections, n side of a mask.
"""

import json
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import RPNHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.seg_heads.panoptic_fusion_heads import HeuristicFusionHead
from torch import Tensor, nn

from pvd_mm.panoptic import MultiTaskPanopticFPN
from pvd_mm.utils.config_types import dataset_configs, type_name
from pvd_mm.utils.errors import UsageError

from ..complexity import run_mask_branch
from .detector_operators import highest, nms, recording, translations
from .detector_proof import prove
from .whole_model import WholeModel

__all__ = [
    'COMPARED',
    'WholeDetector',
    'WholePanopticModel',
    'metadata',
    'prove',
    'wrap',
]

#: What agrees, in a message.
COMPARED = 'detections'

#: Scores of what is no box.
_NO_BOX = -1.0
_ANY_NUMBER = 2**31 - 1


class WholeDetector(WholeModel):
    """A two-stage detector of mmdet from the raw image to its detections.

    Args:
        model (nn.Module): The trained model, a ``TwoStageDetector`` with ``RPNHead``
            and ``StandardRoIHead``, or ones derived of them.

    Raises:
        UsageError: It is another one, or suppresses boxes by something else than NMS.
    """

    sides = {2: 'height', 3: 'width'}
    first_side = 'detections'
    # boxes suffer more from what is cut off than from coarse steps
    mean_range = False
    half_operators = ('Conv', 'ConvTranspose', 'Gemm', 'MatMul', 'MaxPool', 'Relu')
    recording = staticmethod(recording)
    translations = staticmethod(translations)

    def __init__(self, model: nn.Module) -> None:
        _check_supported(model)
        super().__init__(model)
        self.output_names = ['boxes', 'scores', 'labels']
        if model.roi_head.with_mask:
            self.output_names.append('masks')

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """An image (1, 3, H, W) float, 0 to 255, to its detections, the highest score
        first.

        Returns:
            tuple[Tensor, ...]: Boxes (K, 4), x1, y1, x2, y2 in pixels of the image,
            scores (K,), from 0 to 1, and labels (K,) int64. With a mask head masks
            (K, n, n) of the boxes, probabilities.
        """
        return self._find(self.model.extract_feat(self._padded(image)), image.shape[2:])

    def _padded(self, image: Tensor) -> Tensor:
        """What the backbone is given."""
        preprocessor = self.model.data_preprocessor
        bottom, right = (
            -side % preprocessor.pad_size_divisor for side in image.shape[2:]
        )
        image = self.normalise(image)
        return F.pad(image, (0, right, 0, bottom), value=preprocessor.pad_value)

    def _find(self, maps: Sequence[Tensor], size: Sequence[int]) -> tuple[Tensor, ...]:
        """What :meth:`forward` returns, of the maps of an image of this size."""
        boxes, scores, labels = self._detect(maps, self._propose(maps, size), size)
        if not self.model.roi_head.with_mask:
            return boxes, scores, labels
        return boxes, scores, labels, self._masks(maps, boxes, labels)

    def _propose(self, maps: Sequence[Tensor], size: Sequence[int]) -> Tensor:
        """Proposals (P, 4), as ``RPNHead.predict`` finds them."""
        head = self.model.rpn_head
        cfg = head.test_cfg
        logits, deltas = head(maps)
        priors = head.prior_generator.grid_priors(
            [x.shape[2:] for x in logits], device=logits[0].device
        )
        levels = []
        for level, (x, delta, prior) in enumerate(zip(logits, deltas, priors)):
            x = x[0].permute(1, 2, 0).reshape(-1, head.cls_out_channels)
            scores = x.sigmoid() if head.use_sigmoid_cls else x.softmax(1)
            parts = (
                scores[:, 0],
                delta[0].permute(1, 2, 0).reshape(-1, head.bbox_coder.encode_size),
                prior,
            )
            if cfg.get('nms_pre', -1) > 0:
                best = highest(parts[0], cfg.nms_pre)
                parts = tuple(part[best] for part in parts)
            levels.append((*parts, torch.full_like(parts[0], level)))
        scores, delta, prior, level = map(torch.cat, zip(*levels))
        torch._check(delta.size(0) > 0)  # no map is empty
        boxes = head.bbox_coder.decode(prior, delta, max_shape=size)
        least = cfg.get('min_bbox_size', -1)
        if least >= 0:
            large = (boxes[:, 2:] - boxes[:, :2] > least).all(1)
            scores = torch.where(large, scores, _NO_BOX)
        return boxes[_suppress(boxes, scores, level, cfg, _NO_BOX)]

    def _detect(
        self, maps: Sequence[Tensor], proposals: Tensor, size: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (K, 4), scores and labels (K,), as ``BBoxHead.predict_by_feat`` finds
        them."""
        roi_head = self.model.roi_head
        head, cfg = roi_head.bbox_head, roi_head.test_cfg
        rois = _rois(proposals)
        results = roi_head._bbox_forward(maps, rois)
        if head.custom_cls_channels:
            scores = head.loss_cls.get_activation(results['cls_score'])
        else:
            scores = results['cls_score'].softmax(1)
        number = 1 if head.reg_class_agnostic else head.num_classes
        boxes = head.bbox_coder.decode(
            rois[:, 1:].repeat_interleave(number, 0),
            results['bbox_pred'].reshape(-1, head.bbox_coder.encode_size),
            max_shape=size,
        )
        # (P, C), without the background and the RoI that is none
        scores = scores[:-1, : head.num_classes]
        boxes = boxes.unflatten(0, (-1, number))[:-1].expand(-1, head.num_classes, 4)
        labels = torch.arange(head.num_classes, device=boxes.device)
        labels = labels.expand(scores.shape).reshape(-1)
        scores, boxes = scores.reshape(-1), boxes.reshape(-1, 4)
        kept = _suppress(boxes, scores, labels, cfg, cfg.score_thr)
        return boxes[kept], scores[kept], labels[kept]

    def _masks(self, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Masks (K, n, n) of detections, of their labels."""
        labels = F.pad(labels, (0, 1))
        masks = run_mask_branch(self.model.roi_head, maps, _rois(boxes), labels)
        if masks.size(1) > 1:
            masks = masks[torch.arange(masks.size(0)), labels][:, None]
        return masks[:-1, 0].sigmoid()


def _rois(boxes: Tensor) -> Tensor:
    """RoIs (R + 1, 5) of boxes (R, 4) of one image, and an empty one behind them: where
    there is no box, upstream's heads return early, which cannot be recorded."""
    return F.pad(boxes, (1, 0, 0, 1))


def _suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, cfg: dict, score_thr: float
) -> Tensor:
    """As mmcv's ``batched_nms``: boxes (N, 4) of different groups (N,) do not suppress
    each other. Indices (K,)."""
    if not cfg.nms.get('class_agnostic', False):
        there = torch.where((scores > score_thr)[:, None], boxes, 0)
        boxes = boxes + (groups * (there.max() + 1))[:, None]
    most = cfg.max_per_img if cfg.max_per_img > 0 else _ANY_NUMBER
    return nms(boxes, scores, float(cfg.nms.iou_threshold), float(score_thr), most)


class WholePanopticModel(WholeDetector):
    """A panoptic model from the raw image to its detections and the labels of its
    semantic head, which ``fuse`` of ``tools/run_exported.py`` joins as mmdet's
    ``HeuristicFusionHead`` does.

    Args:
        model (nn.Module): The trained model, a :class:`.MultiTaskPanopticFPN` with
            all its heads.

    Raises:
        UsageError: See :class:`.WholeDetector`.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model)
        fusion = type(model.panoptic_fusion_head)
        if fusion is not HeuristicFusionHead or not model.roi_head.with_mask:
            raise UsageError(
                'a panoptic model is exported with masks and a HeuristicFusionHead, '
                f'but this one has a {fusion.__name__}'
                + ('.' if model.roi_head.with_mask else ' and no mask head.')
            )
        self.output_names.append('semantic')

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """As a detector; and labels (H, W), int32: those of stuff, and one behind
        them for things."""
        padded = self._padded(image)
        maps = self.model.extract_feat(padded)
        height, width = image.shape[2:]
        meta = dict(batch_input_shape=padded.shape[2:])
        (logits,) = self.model.semantic_head.predict(maps, [meta])
        semantic = logits[:, :height, :width].argmax(0).int()
        return *self._find(maps, (height, width)), semantic


def _check_supported(model: nn.Module) -> None:
    names = dict(rpn_head=RPNHead, roi_head=StandardRoIHead)
    ways = TwoStageDetector.predict, MultiTaskPanopticFPN.predict
    fits = getattr(type(model), 'predict', None) in ways and all(
        isinstance(getattr(model, name, None), kind) for name, kind in names.items()
    )
    if not fits:
        raise UsageError(
            f'{type(model).__name__} is not among the detectors that can be exported: '
            'two-stage ones with an RPNHead and a StandardRoIHead, such as Mask R-CNN, '
            'heads derived of these, and MultiTaskPanopticFPN with these.'
        )
    for part in names:
        cfg = getattr(model, part).test_cfg.get('nms') or {}
        unknown = set(cfg) - {'type', 'iou_threshold', 'class_agnostic', 'split_thr'}
        plain = type_name(cfg) in ('', 'nms') and 'iou_threshold' in cfg
        if unknown or not plain:
            raise UsageError(
                f'the nms of the {part} is {dict(cfg)}; in a file there is '
                "dict(type='nms', iou_threshold=…), with class_agnostic if need be."
            )


def wrap(inferencer, output: str | None) -> WholeDetector:
    """The model of an inferencer.

    Raises:
        UsageError: An output is chosen, as of a segmentor, or as
            :class:`WholeDetector` says.
    """
    if output is not None:
        raise UsageError(f"output '{output}' is of segmentors; this is a detector.")
    model = inferencer.model
    if getattr(model, 'panoptic_fusion_head', None) is not None:
        return WholePanopticModel(model)
    return WholeDetector(model)


def metadata(inferencer, module: WholeDetector) -> dict[str, str]:
    """Of its file, beside that of every file: ``resize``, the arguments of the test
    pipeline's ``Resize``, if it has one, ``mask_threshold``, if there are masks, and
    ``fusion``, what a panoptic model's fusion head goes by; in JSON."""
    found = dict(output='detections')
    for step in next(dataset_configs(inferencer.cfg.test_dataloader.dataset)).pipeline:
        if type_name(step) == 'Resize':
            keys = {'scale', 'scale_factor', 'keep_ratio'} & set(step)
            found['resize'] = json.dumps({key: step[key] for key in sorted(keys)})
    roi_head = inferencer.model.roi_head
    if roi_head.with_mask:
        found['mask_threshold'] = json.dumps(roi_head.test_cfg.mask_thr_binary)
    if isinstance(module, WholePanopticModel):
        head, cfg = inferencer.model.panoptic_fusion_head, inferencer.model.test_cfg
        found['output'] = 'panoptic'
        found['fusion'] = json.dumps(
            dict(
                things=head.num_things_classes,
                score_thr=cfg.panoptic.get('score_thr', 0.0),
                mask_overlap=cfg.panoptic.mask_overlap,
                stuff_area_limit=cfg.panoptic.stuff_area_limit,
            )
        )
    return found
