# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The step update of section 4.4: a loop over pixels.

It is slow and easy to read. The tests hold every other backend against it,
and it is the slow column of Table 3. Its gradient is autograd's own.
"""
from torch import Tensor

from ..checks import Geometry


def run(input: Tensor, votes: Tensor, geometry: Geometry,
        formulation: str) -> Tensor:
    """See :func:`pvd_mm.ops.dynamic_deconv2d`."""
    update = _exact if formulation == 'exact' else _factored
    output = update(input, votes, geometry)
    if not votes.numel():  # no window at all: keep autograd's graph whole
        output = output + votes.sum() + input.sum()
    return output


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
                yield i, j, rows, cols, \
                    slice(rows.start - top, rows.stop - top), \
                    slice(cols.start - left, cols.stop - left)


def _exact(input: Tensor, votes: Tensor, geometry: Geometry) -> Tensor:
    """Eqs. 5 and 6: the overlapping sum of M[i, j] times its kernel."""
    k, _, _, (out_h, out_w), groups = geometry
    n, c, h, w = input.shape
    fused = input.reshape(n, groups, c // groups, h, w)
    kernels = votes.reshape(n, groups, 1, k, k, h, w)
    output = input.new_zeros(n, groups, c // groups, out_h, out_w)
    for i, j, rows, cols, us, vs in _windows(geometry, h, w):
        output[..., rows, cols] += (
            fused[..., i, j, None, None] * kernels[..., us, vs, i, j])
    return output.reshape(n, c, out_h, out_w)


def _factored(input: Tensor, votes: Tensor, geometry: Geometry) -> Tensor:
    """Eqs. 10 and 12: M of the pixel's own source times the sum of votes."""
    k, s, p, (out_h, out_w), groups = geometry
    n, c, h, w = input.shape
    ones = input.new_ones(n, groups, h, w)
    vote_sum = _exact(ones, votes, geometry)
    vote_sum = vote_sum.repeat_interleave(c // groups, dim=1)
    centre = (k - 1) // 2 - p  # of the first pixel's window, 0 by default
    output = input.new_zeros(n, c, out_h, out_w)
    for y in range(out_h):
        for x in range(out_w):
            i = min(max((y - centre) // s, 0), h - 1)
            j = min(max((x - centre) // s, 0), w - 1)
            output[..., y, x] = input[..., i, j] * vote_sum[..., y, x]
    return output
