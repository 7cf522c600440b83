# Copyright (c) PVD-MM contributors. Apache-2.0.
"""How results of a backend are held against those of another."""

import torch

FORMATS = torch.contiguous_format, torch.channels_last


def is_laid_out_like(found, like):
    """Of a part of a map the op itself decides, which comes after the backends."""
    formats = [x for x in FORMATS if like.is_contiguous(memory_format=x)]
    return any(found.is_contiguous(memory_format=x) for x in formats or FORMATS)


def compare(found, truth, like):
    """Against double precision, in which the numbers are the same."""
    assert found.dtype == like.dtype and found.device == like.device
    assert is_laid_out_like(found, like)
    eps = torch.finfo(found.dtype).eps
    scale = 8.0 if found.dtype in (torch.float32, torch.float64) else 1.0
    torch.testing.assert_close(
        found.cpu().double(),
        truth,
        rtol=2 * scale * eps,
        atol=8 * scale * eps,
        equal_nan=True,
    )
