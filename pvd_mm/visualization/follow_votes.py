# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Follow a pixel's votes: how far each pixel of the coarser maps speaks for it."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pvd_mm.decoder.sizes import fits_stride, match_size
from pvd_mm.ops.checks import FORMULATIONS, check_choice


def follow_votes(
    votes: Sequence[Tensor],
    pixel: tuple[int, int],
    size: tuple[int, int],
    strides: Sequence[int],
    kernel_size: int | Sequence[int] = 3,
    groups: int | Sequence[int] = 1,
    formulation: str | Sequence[str] = 'exact',
) -> list[Tensor]:
    """The weights with which the pixels of M_1 … M_L reach a pixel of y_0.

    By its votes, a step is a linear map P_l from the fused map M_{l+1} to
    y_l. Between two steps M_l is fused from y_l and z_l by convolutions that
    mix channels; these are left out, M_l is taken for y_l. What remains is
    the product of sparse matrices of votes alone, whose row of the pixel e is::

        w_1 = P_0ᵀ e
        w_{l+1} = P_lᵀ w_l

    In the 'exact' formulation a pixel of M_{l+1} hands its value on to its
    k×k window, times its votes. In the 'factored' one an output pixel takes
    the value of its own source, times the sum of all the votes that reach it:
    then one pixel of every level has all the weight.

    Shape shorthand: G groups, k kernel size, (H_l, W_l) size of level l.

    Args:
        votes (Sequence[Tensor]): Of each step, finest first, of one image:
            (1, G·k², H_{l+1}, W_{l+1}), as ``PixelVotingDecoder.votes`` gives
            them.
        pixel (tuple[int, int]): Row and column of the pixel in y_0.
        size (tuple[int, int]): (H_0, W_0), the size of y_0.
        strides (Sequence[int]): Of each step.
        kernel_size (int or Sequence[int]): k, of all steps or of each.
            Defaults to 3.
        groups (int or Sequence[int]): G, likewise. With different ones the
            weights are those of their least common multiple. Defaults to 1.
        formulation (str or Sequence[str]): 'exact' or 'factored', likewise.
            Defaults to 'exact'.

    Returns:
        list[Tensor]: w_1 … w_L, (G, H_l, W_l) float64: a channel of group g
        of M_l reaches the same channel of the pixel with weight w_l[g].

    Raises:
        ValueError: If the pixel is not in y_0, the formulation is unknown, or
            votes and strides don't fit.
    """
    row, column = pixel
    if not (0 <= row < size[0] and 0 <= column < size[1]):
        raise ValueError(f'pixel {tuple(pixel)} is not in a map of {tuple(size)}')
    if len(strides) != len(votes):
        raise ValueError(f'{len(votes)} steps of votes, but strides={list(strides)}')
    sides, parts, formulations = (
        [given] * len(votes) if isinstance(given, (int, str)) else list(given)
        for given in (kernel_size, groups, formulation)
    )
    for choice in formulations:
        check_choice('formulation', choice, FORMULATIONS)
    number = math.lcm(*parts)
    weights = torch.zeros(number, *size, dtype=torch.float64)
    weights[:, row, column] = 1
    levels = []
    for of_step, stride, k, g, choice in zip(
        votes, strides, sides, parts, formulations, strict=True
    ):
        fine, coarse = weights.shape[1:], of_step.shape[2:]
        if not fits_stride(stride, fine, coarse, given=True) or (
            of_step.shape[:2] != (1, g * k**2)
        ):
            raise ValueError(
                f'votes of {tuple(of_step.shape)} do not fit one image, {g} '
                f'groups of {k}x{k} votes and a step with '
                f'stride {stride} below which the map is {tuple(fine)}'
            )
        # where the encoder has rounded down, the last row and column speak for
        # those beyond them as well
        whole = [max(b, -(-a // stride)) for a, b in zip(fine, coarse)]
        of_step = match_size(of_step.detach().cpu().double(), whole)
        # (G, k², H_B·W_B)
        kernels = of_step[0].flatten(1).unflatten(0, (g, -1))
        kernels = kernels.repeat_interleave(number // g, 0)
        back = _back_exact if choice == 'exact' else _back_factored
        weights = back(weights, kernels, whole, stride, k)
        for dim, side in enumerate(coarse, 1):
            parts = weights.split([side - 1, weights.size(dim) - side + 1], dim)
            weights = torch.cat([parts[0], parts[1].sum(dim, keepdim=True)], dim)
        levels.append(weights)
    return levels


def _back_exact(weights, kernels, coarse, stride, k):
    """Each coarse pixel: the weights in its window, times its votes."""
    windows = F.unfold(_padded(weights, coarse, stride, k)[:, None], k, stride=stride)
    return (windows * kernels).sum(1).unflatten(1, coarse)


def _back_factored(weights, kernels, coarse, stride, k):
    """Each coarse pixel: the weights of the fine ones it is the source of,
    times the sum of the votes that reach those."""
    padded = _padded(weights, coarse, stride, k)
    sums = F.fold(kernels, padded.shape[1:], k, stride=stride)[:, 0]
    margin = (k - 1) // 2
    height, width = weights.shape[1:]
    sums = sums[:, margin : margin + height, margin : margin + width]
    own = F.pad(weights * sums, _missing(weights, coarse, stride))
    return stride**2 * F.avg_pool2d(own, stride)


def _missing(weights, coarse, stride) -> tuple[int, int, int, int]:
    """What the fine map lacks, right and below, to be s times the coarse."""
    height, width = (s * stride - f for s, f in zip(coarse, weights.shape[1:]))
    return 0, width, 0, height


def _padded(weights: Tensor, coarse: Sequence[int], stride: int, k: int) -> Tensor:
    """Pad the fine map so that the windows of all coarse pixels fit."""
    margin = (k - 1) // 2
    rest = [
        max(0, (side - 1) * stride + k - margin - fine)
        for side, fine in zip(coarse, weights.shape[1:])
    ]
    return F.pad(weights, (margin, rest[1], margin, rest[0]))
