# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Operators of detectors whose number of results depends on the values, or that torch
cannot look into: what torch.export records of them, and what they are in ONNX.

mmcv's RoIAlign and NMS are functions of its extension, which no exporter sees; here
they are operators of torch's with a fake kernel, and one to three of ONNX's.

Shape shorthand: N boxes, R RoIs, K of the result.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

import torch
from mmcv import ops as mmcv_ops
from mmcv.ops.roi_align import RoIAlignFunction
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from torch import Tensor
from torch.nn.modules.utils import _pair

from pvd_mm.ops.standard_operators import use_standard_operators

# recorded, never run: it has no kernel but the fake one
torch.library.define(
    'pvd_mm::roi_align',
    '(Tensor input, Tensor rois, int height, int width, float spatial_scale, '
    'int sampling_ratio, str pool_mode, bool aligned) -> Tensor',
)


@torch.library.register_fake('pvd_mm::roi_align')
def _(input, rois, height, width, *options):
    return input.new_empty(rois.size(0), input.size(1), height, width)


@torch.library.custom_op('pvd_mm::nms', mutates_args=())
def nms(
    boxes: Tensor, scores: Tensor, iou_threshold: float, score_thr: float, most: int
) -> Tensor:
    """Which boxes are left of those that overlap, the highest score first.

    Args:
        boxes (Tensor): (N, 4), x1, y1, x2, y2.
        scores (Tensor): (N,).
        iou_threshold (float): Boxes go that have a larger IoU with a better one.
        score_thr (float): Boxes go whose score is not larger.
        most (int): How many are left at most.

    Returns:
        Tensor: (K,) int64, indices.
    """
    valid = (scores > score_thr).nonzero().squeeze(1)
    kept = mmcv_ops.nms(boxes[valid], scores[valid], iou_threshold)[1]
    return valid[kept[:most]]


@torch.library.custom_op('pvd_mm::highest', mutates_args=())
def highest(scores: Tensor, most: int) -> Tensor:
    """Indices of the highest scores, the highest first: of scores (N,) as many as
    there are and not more than ``most``, (K,) int64."""
    return scores.topk(min(most, scores.size(0))).indices


@nms.register_fake
def _(boxes, scores, iou_threshold, score_thr, most):
    return _some(scores)


@highest.register_fake
def _(scores, most):
    return _some(scores)


def _some(scores: Tensor) -> Tensor:
    number = torch.library.get_ctx().new_dynamic_size()
    return scores.new_empty(number, dtype=torch.long)


# -- in their places ----------------------------------------------------------------


@contextmanager
def recording() -> Iterator[None]:
    """Within it mmcv's RoIAlign is the operator here, and nothing in mmdet's extractor
    and PVD's heads depends on how many RoIs there are: what ``torch.export`` records
    serves any number, none included."""
    crop = mock.patch.object(RoIAlignFunction, 'forward', staticmethod(_roi_align))
    extract = mock.patch.object(SingleRoIExtractor, 'forward', _extract)
    with crop, extract, use_standard_operators():
        yield


def _roi_align(
    ctx,
    input: Tensor,
    rois: Tensor,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = 0,
    pool_mode: str = 'avg',
    aligned: bool = True,
) -> Tensor:
    return torch.ops.pvd_mm.roi_align(
        input,
        rois,
        *_pair(output_size),
        spatial_scale,
        sampling_ratio,
        pool_mode,
        aligned,
    )


def _extract(self: SingleRoIExtractor, feats: Sequence[Tensor], rois: Tensor) -> Tensor:
    """As upstream's, which passes over levels that have no RoI."""
    if len(feats) == 1:
        return self.roi_layers[0](feats[0], rois)
    sides = self.roi_layers[0].output_size
    result = rois.new_zeros(rois.size(0), self.out_channels, *sides)
    levels = self.map_roi_levels(rois, len(feats))
    for level, (x, layer) in enumerate(zip(feats, self.roi_layers)):
        where = (levels == level).nonzero().squeeze(1)
        result[where] = layer(x, rois[where])
    return result


# -- in ONNX ------------------------------------------------------------------------


def translations() -> dict[Callable, Callable]:
    """The operators in ONNX's, for ``torch.onnx.export``."""
    from onnxscript import opset18 as op

    def onnx_roi_align(
        input,
        rois,
        height: int,
        width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: str,
        aligned: bool,
    ):
        image = op.Squeeze(op.Slice(rois, [0], [1], [1]), [1])
        return op.RoiAlign(
            input,
            op.Slice(rois, [1], [5], [1]),
            op.Cast(image, to=7),  # int64
            coordinate_transformation_mode=(
                'half_pixel' if aligned else 'output_half_pixel'
            ),
            mode=pool_mode,
            output_height=height,
            output_width=width,
            sampling_ratio=sampling_ratio,
            spatial_scale=spatial_scale,
        )

    def onnx_nms(boxes, scores, iou_threshold: float, score_thr: float, most: int):
        found = op.NonMaxSuppression(  # (K, 3): image, class, box
            op.Unsqueeze(boxes, [0]),
            op.Unsqueeze(scores, [0, 1]),
            op.Constant(value_ints=[most]),
            op.Constant(value_floats=[iou_threshold]),
            op.Constant(value_floats=[score_thr]),
        )
        return op.Squeeze(op.Slice(found, [2], [3], [1]), [1])

    def onnx_highest(scores, most: int):
        number = op.Min(op.Shape(scores), op.Constant(value_ints=[most]))
        return op.TopK(scores, number)[1]

    operators = torch.ops.pvd_mm
    return {
        operators.roi_align.default: onnx_roi_align,
        operators.nms.default: onnx_nms,
        operators.highest.default: onnx_highest,
    }
