# Copyright (c) PVD-MM contributors. Apache-2.0.
"""How results of a backend are held against those of another."""

import torch


def wanted_format(like):
    if not like.is_contiguous() and like.is_contiguous(
        memory_format=torch.channels_last
    ):
        return torch.channels_last
    return torch.contiguous_format


def compare(found, truth, like):
    """Against double precision, in which the numbers are the same."""
    assert found.dtype == like.dtype and found.device == like.device
    assert found.is_contiguous(memory_format=wanted_format(like))
    eps = torch.finfo(found.dtype).eps
    scale = 8.0 if found.dtype in (torch.float32, torch.float64) else 1.0
    torch.testing.assert_close(
        found.cpu().double(),
        truth,
        rtol=2 * scale * eps,
        atol=8 * scale * eps,
        equal_nan=True,
    )
