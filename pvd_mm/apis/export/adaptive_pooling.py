# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Adaptive pooling in an ONNX file, for maps of any size.

torch's exporter unrolls the windows that the example has, and other sizes than the
example's get other averages, or none, without a word.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ['adaptive_avg_pool2d', 'use_matrix_pooling']


def _averages(parts: int | None, input: Tensor, dim: int) -> Tensor:
    """(parts, side): row i averages the pixels from ⌊i · side / parts⌋ up to
    ⌈(i + 1) · side / parts⌉ of that dimension."""
    side = input.size(dim)
    parts = side if parts is None else parts
    part = torch.arange(parts, device=input.device)[:, None]
    pixel = torch.arange(side, device=input.device)
    # the bounds, multiplied by parts: no division that ONNX would round its own way
    inside = (part * side < (pixel + 1) * parts) & (pixel * parts < (part + 1) * side)
    weights = inside.to(input.dtype)
    return weights / weights.sum(1, keepdim=True)


def adaptive_avg_pool2d(
    input: Tensor, output_size: int | Sequence[int | None]
) -> Tensor:
    """``torch.nn.functional.adaptive_avg_pool2d`` as two matrix products.

    Args:
        input (Tensor): (N, C, H, W) or (C, H, W); H and W may be symbolic.
        output_size (int | Sequence[int]): Height and width of the result, or one number
            for both; None keeps a side.

    Returns:
        Tensor: (N, C, H', W') or (C, H', W').
    """
    if isinstance(output_size, int):
        output_size = output_size, output_size
    height, width = output_size
    if height == width == 1:
        return input.mean((-2, -1), keepdim=True)
    rows = _averages(height, input, -2)
    return rows @ (input @ _averages(width, input, -1).T)


@contextmanager
def use_matrix_pooling() -> Iterator[None]:
    """Within it, in all threads, torch's adaptive average pooling of maps is
    :func:`adaptive_avg_pool2d`."""
    before = F.adaptive_avg_pool2d
    F.adaptive_avg_pool2d = adaptive_avg_pool2d
    try:
        yield
    finally:
        F.adaptive_avg_pool2d = before
