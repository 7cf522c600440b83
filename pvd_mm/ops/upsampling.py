# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Kernels that votes can start as."""

import torch
from torch import Tensor

from .checks import check_kernel


def upsampling_kernel(kernel_size: int, stride: int) -> Tensor:
    """Votes that make the dynamic deconvolution a plain upsampling.

    The identity at stride 1 and bilinear interpolation at stride 2 with
    kernel size 3; in general the triangle of width 2·stride, cut to the
    window and normalised so that all votes that reach one output pixel sum
    to 1 (away from the border, where voters are missing).

    Args:
        kernel_size (int): Side k of the window, odd, at least ``stride``.
        stride (int): The stride s.

    Returns:
        Tensor: The kernel, (k, k), float32.

    Raises:
        ValueError: If ``kernel_size`` is even or smaller than ``stride``: then
            there are output pixels that no vote reaches.
    """
    check_kernel(kernel_size, stride, None, 1)
    if kernel_size < stride:
        raise ValueError(
            f'kernel_size must be at least stride={stride}, or there are '
            f'output pixels that no vote reaches, but got {kernel_size}'
        )
    offset = torch.arange(kernel_size) - (kernel_size - 1) // 2
    triangle = (1 - offset.abs() / stride).clamp(min=0)
    # window positions of one residue modulo the stride meet in one pixel
    meet = offset[:, None] % stride == offset[None] % stride
    triangle = triangle / (meet * triangle).sum(1)
    return triangle[:, None] * triangle
