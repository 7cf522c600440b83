# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op in standard operators, for exporters that know no others.

The output is s² interleaved planes. Plane (r, t) holds the pixels of the rows
r, r + s, …: it is a sum of products that are shifted by whole input pixels,
and ``pixel_shuffle`` interleaves the planes. Shapes may be symbolic.

Shape shorthand: N batch, G groups, C channels per group, (H, W) input size,
(H', W') output size, (H_P, W_P) size of a plane.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends import matrix
from .checks import Geometry
from .tracing import sizes_of


def dynamic_deconv2d(
    input: Tensor, votes: Tensor, geometry: Geometry, formulation: str
) -> Tensor:
    """See :func:`pvd_mm.ops.dynamic_deconv2d`; arguments are checked."""
    k, groups = geometry.kernel_size, geometry.groups
    size = [getattr(side, 'tensor', side) for side in geometry.output_size]
    geometry = geometry._replace(output_size=size)
    fused = input.unflatten(1, (groups, sizes_of(input)[1] // groups))
    votes = votes.unflatten(1, (groups, k**2))
    if formulation == 'exact':
        output = _scatter(fused, votes, geometry)
    else:
        # the older ONNX exporter takes the shape behind unflatten for a constant
        fused = matrix.expand(fused, geometry, input.shape[2:])
        output = fused * _scatter(None, votes, geometry)
    return output.flatten(1, 2)


def _scatter(fused: Tensor | None, votes: Tensor, geometry: Geometry) -> Tensor:
    """D (N, G, C, H', W') from M (N, G, C, H, W) and V (N, G, k², H, W); without M, as
    of ones, (N, G, 1, H', W')."""
    k, s, p, output_size, _ = geometry
    # position u lies in plane r, shifted by q pixels: u - p = s·q + r
    shifts = [divmod(u - p, s) for u in range(k)]
    before = max(max(q for q, _ in shifts), 0)
    # a plane has at most this many pixels more than the input
    longer = -(-(k - 2 * p + s - 1) // s) - 1
    after = max(longer - min(q for q, _ in shifts), 0)
    pad = (before, after, before, after)
    groups, width = geometry.groups, 1
    if fused is not None:
        width = int(sizes_of(fused)[2])
        fused = F.pad(fused.flatten(1, 2), pad).unflatten(1, (groups, width))
    votes = F.pad(votes.flatten(1, 2), pad).unflatten(1, (groups, k**2))
    h, w = ((side + s - 1) // s for side in output_size)

    def shifted(x: Tensor, down: int, right: int) -> Tensor:
        top, left = before - down, before - right
        return x[..., top : top + h, left : left + w]

    def plane(row: int, column: int) -> Tensor:
        total = None
        for u, (down, r) in enumerate(shifts):
            for v, (right, t) in enumerate(shifts):
                if (r, t) == (row, column):
                    term = shifted(votes[:, :, u * k + v, None], down, right)
                    if fused is not None:
                        term = shifted(fused, down, right) * term
                    total = term if total is None else total + term
        if total is None:  # s > k: no vote reaches these pixels
            like = votes[:, :, :1] if fused is None else fused
            total = torch.zeros_like(shifted(like, 0, 0))
        return total

    planes = [plane(r, t) for r in range(s) for t in range(s)]
    output = F.pixel_shuffle(torch.stack(planes, 3).flatten(1, 3), s)
    return output[..., : output_size[0], : output_size[1]].unflatten(1, (groups, width))
