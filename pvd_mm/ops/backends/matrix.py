# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The paper's matrix form (sections 3.4 and 3.5): shift and add.

One pass over the map for each of the k² positions in the window, for any
stride: the position (u, v) of all windows together is a strided slice of the
output. Products are added in place, so that no temporary is larger than the
output, let alone k² times as large.

Shape shorthand: N batch, G groups, C channels per group, K = k² positions,
(H, W) input size, (H', W') output size.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from ..checks import Geometry

Gradients = tuple[Tensor | None, Tensor | None]


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """It runs everywhere."""
    return None


def forward(
    input: Tensor, votes: Tensor, geometry: Geometry, formulation: str
) -> Tensor:
    """See :mod:`pvd_mm.ops.backends`."""
    fused, votes = _by_groups(geometry, input, votes)
    if formulation == 'exact':
        output = _scatter(fused, votes, geometry)
    else:
        output = expand(fused, geometry) * _vote_sum(votes, geometry)
    return output.flatten(1, 2)


def backward(
    grad: Tensor,
    input: Tensor,
    votes: Tensor,
    geometry: Geometry,
    formulation: str,
    needs: tuple[bool, bool],
) -> Gradients:
    """See :mod:`pvd_mm.ops.backends`."""
    maps = _by_groups(geometry, grad, input, votes)
    function = _exact_grads if formulation == 'exact' else _factored_grads
    return tuple(
        None if gradient is None else gradient.flatten(1, 2)
        for gradient in function(*maps, geometry, needs)
    )


def _by_groups(geometry: Geometry, *maps: Tensor) -> tuple[Tensor, ...]:
    """(N, G·C, H, W) to (N, G, C, H, W)."""
    g = geometry.groups
    return tuple(x.unflatten(1, (g, x.size(1) // g)) for x in maps)


def _shifts(
    geometry: Geometry, height: int, width: int
) -> Iterator[tuple[int, tuple, tuple]]:
    """For each position: its number, which input pixels reach the output
    from there, and the output pixels they reach."""
    k, s, p, (out_h, out_w), _ = geometry

    def side(offset: int, size: int, out: int) -> tuple | None:
        # pixel i reaches s·i + offset, which must lie in [0, out)
        first = max(0, -(offset // s))
        last = min(size, -((offset - out) // s))
        if first >= last:
            return None
        start = s * first + offset
        return (slice(first, last), slice(start, start + s * (last - first - 1) + 1, s))

    for u in range(k):
        rows = side(u - p, height, out_h)
        for v in range(k):
            cols = side(v - p, width, out_w)
            if rows and cols:
                yield (u * k + v, (..., rows[0], cols[0]), (..., rows[1], cols[1]))


def _accumulator(like: Tensor, *shape: int) -> Tensor:
    """Zeros to add to: half precision is summed in single, as torch's own
    convolutions do."""
    dtype = like.dtype
    if dtype in (torch.half, torch.bfloat16):
        dtype = torch.float32
    return like.new_zeros(shape, dtype=dtype)


def _scatter(fused: Tensor, votes: Tensor, geometry: Geometry) -> Tensor:
    """D from M (N, G, C, H, W) and V (N, G, K, H, W): eqs. 8, 9 and 11."""
    n, g, c, h, w = fused.shape
    output = _accumulator(fused, n, g, c, *geometry.output_size)
    for position, source, target in _shifts(geometry, h, w):
        # addcmul wants one dtype; the slices of half maps are small casts
        output[target].addcmul_(
            fused[source].to(output.dtype),
            votes[:, :, position, None][source].to(output.dtype),
        )
    return output.to(fused.dtype)


def _gather(grad: Tensor, votes: Tensor, geometry: Geometry) -> Tensor:
    """The gradient by M: every pixel sums its window of ∂D by its votes."""
    n, g, _, h, w = votes.shape
    fused_grad = _accumulator(grad, n, g, grad.size(2), h, w)
    for position, source, target in _shifts(geometry, h, w):
        fused_grad[source].addcmul_(
            grad[target].to(fused_grad.dtype),
            votes[:, :, position, None][source].to(fused_grad.dtype),
        )
    return fused_grad.to(grad.dtype)


def _correlate(grad: Tensor, fused: Tensor, geometry: Geometry) -> Tensor:
    """The gradient by V: ∂D at (u, v) of a pixel's window times its M, summed
    over the channels of the group."""
    n, g, _, h, w = fused.shape
    votes_grad = _accumulator(grad, n, g, geometry.kernel_size**2, h, w)
    for position, source, target in _shifts(geometry, h, w):
        votes_grad[:, :, position][source] = torch.sum(
            grad[target] * fused[source], dim=2, dtype=votes_grad.dtype
        )
    return votes_grad.to(grad.dtype)


def _exact_grads(
    grad: Tensor,
    fused: Tensor,
    votes: Tensor,
    geometry: Geometry,
    needs: tuple[bool, bool],
) -> Gradients:
    return (
        _gather(grad, votes, geometry) if needs[0] else None,
        _correlate(grad, fused, geometry) if needs[1] else None,
    )


def _own_sources(
    size: Sequence[int], geometry: Geometry, device: torch.device
) -> Iterator[tuple[int, Tensor]]:
    """The dimensions in which M is expanded, and which row (or column) of
    the input each row of the output belongs to, (H',)."""
    centre = (geometry.kernel_size - 1) // 2 - geometry.padding
    for side, out in enumerate(geometry.output_size):
        if geometry.stride == 1 and centre == 0:
            continue  # every pixel is its own source
        own = (torch.arange(out, device=device) - centre) // geometry.stride
        # in this order, for a size may be 0, or a tensor while it is traced
        yield 3 + side, own.clamp(max=size[side] - 1).clamp(min=0)


def expand(
    fused: Tensor, geometry: Geometry, size: Sequence[int] | None = None
) -> Tensor:
    """M of every output pixel's own source, (N, G, C, H', W'). Where M's own shape
    can't be trusted, ``size`` is (H, W)."""
    size = fused.shape[3:] if size is None else size
    for dim, own in _own_sources(size, geometry, fused.device):
        fused = fused.index_select(dim, own)
    return fused


def _contract(grad: Tensor, size: tuple[int, int], geometry: Geometry) -> Tensor:
    """The adjoint of :func:`expand`."""
    for dim, own in _own_sources(size, geometry, grad.device):
        shape = list(grad.shape)
        shape[dim] = size[dim - 3]
        grad = grad.new_zeros(shape).index_add_(dim, own, grad)
    return grad


def _vote_sum(votes: Tensor, geometry: Geometry) -> Tensor:
    """Σ of the votes that reach each output pixel, (N, G, 1, H', W')."""
    ones = votes.new_ones(()).expand(votes[:, :, :1].shape)
    return _scatter(ones, votes, geometry)


def _factored_grads(
    grad: Tensor,
    fused: Tensor,
    votes: Tensor,
    geometry: Geometry,
    needs: tuple[bool, bool],
) -> Gradients:
    fused_grad = votes_grad = None
    if needs[0]:
        fused_grad = _contract(
            grad * _vote_sum(votes, geometry), tuple(fused.shape[3:]), geometry
        )
    if needs[1]:
        sum_grad = (grad * expand(fused, geometry)).sum(2, keepdim=True)
        ones = fused.new_ones(()).expand(fused[:, :, :1].shape)
        votes_grad = _correlate(sum_grad, ones, geometry)
    return fused_grad, votes_grad
