# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Multiply-accumulates and parameters of a model."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pvd_mm.ops  # noqa: F401 - teaches the counter the op


def model_complexity(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, int]:
    """Count what one forward pass of one image costs.

    Counted are convolutions, matrix products and the dynamic deconvolution
    (see :func:`pvd_mm.ops.deconv_macs`), by torch's own counter, as they are
    executed, not by layer type. Additions, norms, activations and
    interpolations are not, as is usual.

    mmengine's ``get_model_complexity_info`` calls the same unit "flops" and
    knows the dynamic deconvolution too; it also counts batch norms,
    interpolations and pooling.

    Args:
        model (nn.Module): A model whose ``forward`` takes a batch of images,
            such as every segmentor of mmseg. It is run in eval mode.
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
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(images)
    finally:
        model.train(training)
    params = sum(
        p.numel()
        for name, p in model.named_parameters()
        if not name.startswith('auxiliary_head')
    )
    # the counter counts a multiplication and its addition as two
    return dict(macs=counter.get_total_flops() // 2, params=params)
