# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op in standard operators, for files that are run without pvd_mm.

A multiplication makes the k² votes of every pixel its contributions to the output,
and ``fold`` (ONNX: Col2Im, from opset 18 on) adds up what overlaps: the sum of eqs.
5-9 and 11 in two operators. torch's older ONNX exporter gets a transposed convolution
in the place of ``fold``. Shapes may be symbolic.

Shape shorthand: N batch, G groups, C channels per group, (H, W) input size,
(H', W') output size.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends import matrix
from .checks import Geometry
from .tracing import sizes_of

_requested = False  # no ContextVar: compilers before torch 2.4 can't look into one


@contextmanager
def use_standard_operators() -> Iterator[None]:
    """Within it, in all threads, :func:`pvd_mm.ops.dynamic_deconv2d` consists of
    torch's own operators: what ``torch.export`` and ``torch.jit.trace`` record there
    runs without pvd_mm. An export to ONNX needs no such request."""
    global _requested
    before, _requested = _requested, True
    try:
        yield
    finally:
        _requested = before


def are_wanted() -> bool:
    """Whether the op is to be written in standard operators."""
    return _requested or torch.onnx.is_in_onnx_export()


def dynamic_deconv2d(
    input: Tensor, votes: Tensor, geometry: Geometry, formulation: str
) -> Tensor:
    """See :func:`pvd_mm.ops.dynamic_deconv2d`; arguments are checked."""
    n, channels, *size = sizes_of(input)
    k, groups = geometry.kernel_size, geometry.groups
    if formulation == 'exact':
        if groups == 1:  # fewer operators in a file
            terms = input.unsqueeze(2) * votes.unsqueeze(1)
        else:
            fused = input.unflatten(1, (groups, channels // groups)).unsqueeze(3)
            terms = fused * votes.unflatten(1, (groups, 1, k**2))
        return _add_up(terms, (n, channels), geometry)
    sums = _add_up(votes, (n, groups), geometry)
    own = matrix.expand(
        input.unflatten(1, (groups, channels // groups)),
        geometry._replace(output_size=tuple(map(_followed, geometry.output_size))),
        list(map(_followed, size)),
    )
    return (own * sums.unsqueeze(2)).flatten(1, 2)


def _followed(side: int) -> int | Tensor:
    """What a tracer follows, where one is at work."""
    return getattr(side, 'tensor', side)


def _add_up(terms: Tensor, shape: tuple[int, int], geometry: Geometry) -> Tensor:
    """(N, C, H', W') from the terms in this order: N, C, k², H, W; ``shape`` is N and
    C."""
    (n, channels), (k, s, p, (height, width), _) = shape, geometry
    if torch.onnx.is_in_onnx_export() and torch.jit.is_tracing():
        # the older exporter has no fold of a size that it follows
        terms = terms.flatten(1, -3)
        window = torch.eye(k**2, dtype=terms.dtype).view(k**2, 1, k, k)
        windows = window.repeat(int(channels), 1, 1, 1)
        most = F.conv_transpose2d(terms, windows, None, s, p, s - 1, int(channels))
        return most[..., : _followed(height), : _followed(width)]
    if 0 in (height, width):  # fold refuses it
        return terms.new_zeros(n, channels, height, width)
    pixels = terms.shape[-2:]
    fixed = all(isinstance(side, int) for side in pixels)
    length = pixels.numel() if fixed else -1  # without RoIs, -1 could be anything
    terms = terms.reshape(_followed(n), int(channels) * k**2, length)
    size = _followed(height), _followed(width)
    return F.fold(terms, size, k, padding=p, stride=s)
