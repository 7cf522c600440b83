# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Multiply-accumulates and parameters of a model."""

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pvd_mm.ops  # noqa: F401 - teaches the counter the op


def count_macs(action: Callable[[], object]) -> int:
    """Multiply-accumulates of what ``action`` executes, without gradients.

    Counted are convolutions, matrix products and the dynamic deconvolution
    (see :func:`pvd_mm.ops.deconv_macs`), by torch's own counter, as they are
    executed, not by layer type. Additions, norms, activations,
    interpolations and pooling (RoIAlign, too) are not, as is usual.
    """
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        action()
    # the counter counts a multiplication and its addition as two
    return counter.get_total_flops() // 2


def count_params(model: nn.Module) -> int:
    """The parameters that inference needs: without the auxiliary head."""
    return sum(
        p.numel()
        for name, p in model.named_parameters()
        if not name.startswith('auxiliary_head')
    )


def model_complexity(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Count what one forward pass of one image costs.

    See :func:`count_macs` and :func:`count_params`.

    mmengine's ``get_model_complexity_info`` calls the same unit "flops" and
    knows the dynamic deconvolution too; it also counts batch norms,
    interpolations and pooling.

    What a two-stage detector costs depends on what it finds. It is counted
    at the limits of its ``test_cfg``: the box head on ``rpn.max_per_img``
    proposals, the mask head on ``rcnn.max_per_img`` detections, of sides from
    16 pixels to that of the image in even ratios.

    Args:
        model (nn.Module): A model whose ``forward`` takes a batch of images,
            such as every segmentor of mmseg, or a two-stage detector of
            mmdet, with a semantic head or without. It is run in eval mode.
        input_shape (tuple[int, ...]): Channels, height and width.

    Returns:
        dict[str, int]: ``macs``, multiply-accumulates, and ``params``, the
        parameters that inference needs: without the auxiliary head.
    """
    if len(input_shape) != 3 or min(input_shape) < 1:
        raise ValueError(
            f'input_shape is {tuple(input_shape)}; expected (channels, '
            'height, width), each at least 1.'
        )
    first = next(model.parameters())
    images = torch.zeros(1, *input_shape, dtype=first.dtype, device=first.device)
    training = model.training
    model.eval()
    try:
        macs = count_macs(lambda: _run(model, images))
    finally:
        model.train(training)
    return dict(macs=macs, params=count_params(model))


def _run(model: nn.Module, images: torch.Tensor) -> None:
    labels = getattr(model, 'with_semantic_head', False)  # a panoptic model's
    objects = hasattr(model, 'roi_head')
    if not labels and not objects:
        model(images)
        return
    maps = model.extract_feat(images)
    if labels:
        model.semantic_head(maps)
    if not objects:
        return
    model.rpn_head(maps[: model.rpn_head.prior_generator.num_levels])
    head, limits = model.roi_head, model.test_cfg
    size = images.shape[2:]
    head._bbox_forward(maps, _even_rois(size, limits.rpn.max_per_img, images))
    if head.with_mask:
        run_mask_branch(head, maps, _even_rois(size, limits.rcnn.max_per_img, images))


def run_mask_branch(
    roi_head: nn.Module,
    maps: Sequence[torch.Tensor],
    rois: torch.Tensor,
    labels: torch.Tensor | None = None,
) -> torch.Tensor:
    """The mask branch of a detector of mmdet, as at test time: there the box
    branch has found the labels, for a mask branch that takes them.

    Args:
        roi_head (nn.Module): A ``StandardRoIHead`` with masks.
        maps (Sequence[Tensor]): What ``extract_feat`` of its detector returns.
        rois (Tensor): (R, 5), as mmdet's ``bbox2roi`` makes them.
        labels (Tensor, optional): (R,). Defaults to None: the first class.

    Returns:
        Tensor: Masks before the sigmoid, (R, 1, n, n) or (R, classes, n, n).
    """
    arguments = {}
    if 'labels' in inspect.signature(roi_head._mask_forward).parameters:
        if labels is None:
            labels = rois.new_zeros(len(rois), dtype=torch.long)
        arguments['labels'] = labels
    return roi_head._mask_forward(maps, rois, **arguments)['mask_preds']


def _even_rois(size: tuple[int, int], number: int, like: torch.Tensor) -> torch.Tensor:
    """Square RoIs in the middle of an image, (number, 5), from 16 pixels to
    the image's shorter side."""
    side = torch.logspace(4, math.log2(max(16, min(size))), number, 2).to(like)
    y, x = size[0] / 2, size[1] / 2
    corners = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return torch.stack((torch.zeros_like(side), *corners), 1)
