# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The step update of section 4.4: a loop over pixels.

It is slow and easy to read. The tests hold every other backend against it,
and it is the slow column of Table 3.

Shape shorthand: N batch, G groups, C channels per group, (H, W) input size,
(H', W') output size; M is (N, G, C, H, W), V (N, G, 1, k, k, H, W).
"""

import torch
from torch import Tensor

from ..checks import Geometry


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """It runs everywhere."""
    return None


def forward(
    input: Tensor, votes: Tensor, geometry: Geometry, formulation: str
) -> Tensor:
    """See :mod:`pvd_mm.ops.backends`."""
    fused, kernels = _by_groups(input, votes, geometry)
    if formulation == 'exact':
        output = _scatter(fused, kernels, geometry)
    else:
        vote_sum = _scatter(torch.ones_like(fused[:, :, :1]), kernels, geometry)
        output = torch.zeros_like(vote_sum.expand(-1, -1, fused.size(2), -1, -1))
        for y, x, i, j in _own_sources(geometry, *fused.shape[3:]):
            output[..., y, x] = fused[..., i, j] * vote_sum[..., y, x]
    return output.flatten(1, 2)


def backward(
    grad: Tensor,
    input: Tensor,
    votes: Tensor,
    geometry: Geometry,
    formulation: str,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """See :mod:`pvd_mm.ops.backends`."""
    fused, kernels = _by_groups(input, votes, geometry)
    grad = grad.unflatten(1, fused.shape[1:3])
    if formulation == 'exact':
        fused_grad, kernels_grad = _scatter_grads(grad, fused, kernels, geometry)
    else:
        ones = torch.ones_like(fused[:, :, :1])
        vote_sum = _scatter(ones, kernels, geometry)
        fused_grad = torch.zeros_like(fused)
        sum_grad = torch.zeros_like(vote_sum)
        for y, x, i, j in _own_sources(geometry, *fused.shape[3:]):
            fused_grad[..., i, j] += grad[..., y, x] * vote_sum[..., y, x]
            sum_grad[..., y, x] = (grad[..., y, x] * fused[..., i, j]).sum(
                2, keepdim=True
            )
        _, kernels_grad = _scatter_grads(sum_grad, ones, kernels, geometry)
    grads = fused_grad.flatten(1, 2), kernels_grad.reshape(votes.shape)
    return tuple(grad if need else None for grad, need in zip(grads, needs))


def _by_groups(
    input: Tensor, votes: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    k, groups = geometry.kernel_size, geometry.groups
    return (
        input.unflatten(1, (groups, input.size(1) // groups)),
        votes.unflatten(1, (groups, 1, k, k)),
    )


def _windows(geometry: Geometry, height: int, width: int):
    """Every pixel's window: (i, j), where it lies in the output, and which
    part of the k×k kernel that is (all of it but at the border)."""
    k, s, p, (out_h, out_w), _ = geometry
    for i in range(height):
        for j in range(width):
            top, left = s * i - p, s * j - p
            rows = slice(max(top, 0), max(min(top + k, out_h), 0))
            cols = slice(max(left, 0), max(min(left + k, out_w), 0))
            if rows.start < rows.stop and cols.start < cols.stop:
                yield (
                    i,
                    j,
                    rows,
                    cols,
                    slice(rows.start - top, rows.stop - top),
                    slice(cols.start - left, cols.stop - left),
                )


def _scatter(fused: Tensor, kernels: Tensor, geometry: Geometry) -> Tensor:
    """Eqs. 5 and 6: the overlapping sum of M[i, j] times its kernel."""
    output = fused.new_zeros(*fused.shape[:3], *geometry.output_size)
    for i, j, rows, cols, us, vs in _windows(geometry, *fused.shape[3:]):
        output[..., rows, cols] += (
            fused[..., i, j, None, None] * kernels[..., us, vs, i, j]
        )
    return output


def _scatter_grads(
    grad: Tensor, fused: Tensor, kernels: Tensor, geometry: Geometry
) -> tuple[Tensor, Tensor]:
    """The gradients by M and V: every pixel looks at its own window."""
    fused_grad = torch.zeros_like(fused)
    kernels_grad = torch.zeros_like(kernels)
    for i, j, rows, cols, us, vs in _windows(geometry, *fused.shape[3:]):
        window = grad[..., rows, cols]
        fused_grad[..., i, j] = (window * kernels[..., us, vs, i, j]).sum((3, 4))
        kernels_grad[..., us, vs, i, j] = (window * fused[..., i, j, None, None]).sum(
            2, keepdim=True
        )
    return fused_grad, kernels_grad


def _own_sources(geometry: Geometry, height: int, width: int):
    """Eqs. 10 and 12: each output pixel (y, x) and its own input pixel."""
    k, s, p, (out_h, out_w), _ = geometry
    centre = (k - 1) // 2 - p  # of the first pixel's window, 0 by default
    if height and width:
        for y in range(out_h):
            for x in range(out_w):
                yield (
                    y,
                    x,
                    min(max((y - centre) // s, 0), height - 1),
                    min(max((x - centre) // s, 0), width - 1),
                )
