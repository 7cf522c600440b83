# Copyright (c) PVD-MM contributors. Apache-2.0.
"""How the sizes of two maps and the stride between them go together.

An encoder step of stride s makes ceil(H / s) of H where its convolution is
padded, and floor(H / s) where it is not, as 2×2 pooling and the merging of
patches. What the decoder does at the edge follows from the sizes alone.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from pvd_mm.ops.tracing import sizes_of


def fits_stride(
    stride: int, fine: Sequence[int], coarse: Sequence[int], given: bool = False
) -> bool:
    """Does a step of this stride make a coarse map of this size of the fine one?

    Args:
        stride (int): s.
        fine (Sequence[int]): (H_A, W_A).
        coarse (Sequence[int]): (H_B, W_B).
        given (bool): Whether the stride is known rather than guessed: then
            H_B may also be one less than floor(H_A / s), as behind a
            convolution without padding, or floor(H_A / s) + 1. Defaults to
            False: rounded up or down.
    """
    slack = int(given)
    return all(
        stride * (b - 1) < a + slack and a < stride * (b + 1 + slack)
        for a, b in zip(fine, coarse)
    )


def match_size(x: Tensor, size: Sequence[int]) -> Tensor:
    """Cut a map (N, C, H, W) at its right and lower edge to a size, or go on
    with its last column and row up to there."""
    for dim, side in enumerate(size, 2):
        missing = side - sizes_of(x)[dim]
        if missing > 0:
            # not F.pad, whose backward pass is not deterministic on a GPU
            x = torch.cat([x, *[x.narrow(dim, -1, 1)] * missing], dim)
        elif missing < 0:
            x = x.narrow(dim, 0, side)
    return x
