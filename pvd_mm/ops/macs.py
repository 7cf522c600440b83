# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Multiply-accumulates of the op, for torch's FLOP counter and others."""

from collections.abc import Sequence
from math import prod

import torch

from .compatibility import register_flop_formula


def deconv_macs(
    input_shape: Sequence[int],
    output_shape: Sequence[int],
    kernel_size: int,
    groups: int,
    formulation: str,
) -> int:
    """Multiply-accumulates of one forward pass.

    'exact' multiplies every value of the input by k² votes. 'factored' adds
    up the votes, k² per group and input pixel, and multiplies every value of
    the output once. Windows cut at the border count as whole ones.

    Args:
        input_shape (Sequence[int]): (N, C, H, W).
        output_shape (Sequence[int]): (N, C, H', W').
        kernel_size (int): Side k of the window.
        groups (int): Number of groups of votes.
        formulation (str): 'exact' or 'factored'.

    Returns:
        int: Multiply-accumulates.
    """
    if formulation == 'exact':
        return prod(input_shape) * kernel_size**2
    n, _, h, w = input_shape
    return n * groups * h * w * kernel_size**2 + prod(output_shape)


def _forward_flops(
    input_shape,
    votes_shape,
    kernel_size,
    stride,
    padding,
    output_size,
    groups,
    formulation,
    *_,
    out_shape=None,
    **__,
) -> int:
    # torch counts a multiplication and its addition as two
    output_shape = (*input_shape[:2], *output_size)
    return 2 * deconv_macs(input_shape, output_shape, kernel_size, groups, formulation)


def _backward_flops(grad_shape, *arguments, out_shape=None, **__) -> int:
    """Each gradient costs what the forward pass does."""
    return sum(arguments[-1]) * _forward_flops(*arguments)


register_flop_formula(torch.ops.pvd_mm.dynamic_deconv2d, _forward_flops)
register_flop_formula(torch.ops.pvd_mm.dynamic_deconv2d_backward, _backward_flops)
