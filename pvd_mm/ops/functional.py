# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op as a function."""

from collections.abc import Sequence

import torch
from torch import Tensor

from . import standard_operators
from .backends import check_backend
from .checks import check_arguments
from .compatibility import autocast_dtype
from .op import deconv


def dynamic_deconv2d(
    input: Tensor,
    votes: Tensor,
    kernel_size: int = 3,
    stride: int = 1,
    padding: int | None = None,
    output_size: Sequence[int] | None = None,
    groups: int = 1,
    formulation: str = 'exact',
    backend: str = 'auto',
) -> Tensor:
    """Transposed convolution whose kernel differs from pixel to pixel.

    Every input pixel scatters its value, weighted by its own k² votes, over its
    k×k window of the output::

        D[n, c, s·i + u - p, s·j + v - p] +=
            M[n, c, i, j] · V[n, g(c)·k² + u·k + v, i, j]

    With votes that are constant over the map this is
    ``torch.nn.functional.conv_transpose2d`` with that kernel for every
    channel (``groups=C``).

    Shape shorthand: N batch, C channels, G groups, k kernel size, s stride,
    (H, W) input size, (H', W') output size.

    Args:
        input (Tensor): The map M to decode, (N, C, H, W), floating point.
        votes (Tensor): The votes V, also called pixel association degrees,
            (N, G·k², H, W): for each group the k×k window of each input
            pixel, row-major.
        kernel_size (int): Side k of the window, odd. Defaults to 3.
        stride (int): Stride s, the upsampling factor. Defaults to 1.
        padding (int, optional): Pixels p cut from each side of the full
            result. Defaults to None, which means (k - 1) / 2.
        output_size (Sequence[int], optional): (H', W'); per side any of the
            s sizes from (H - 1)·s - 2p + k on. Defaults to None, which means
            the largest of them: s·H × s·W with the default padding.
        groups (int): Number G of channel groups, each with votes of its own.
            Defaults to 1.
        formulation (str): 'exact' is the sum above (eqs. 5-9 and 11).
            'factored' (eqs. 10, 12 and 13) takes, at every output pixel, the
            input of that pixel's own source, M at (floor(y/s), floor(x/s)),
            times the sum of all votes that reach the output pixel.
            Defaults to 'exact'.
        backend (str): 'cpp' (CPU), 'triton' (GPU), 'matrix', 'reference' or
            'auto', the fastest that is there; the environment variable
            ``PVD_MM_BACKEND`` can say what 'auto' means. Defaults to 'auto'.

    Returns:
        Tensor: The decoded map D, (N, C, H', W'), of the dtype of ``input``;
        under autocast of the autocast dtype, as for ``conv_transpose2d``.

    Raises:
        TypeError: If a tensor is not dense or has no floating point numbers of
            16 bits or more, if the dtypes of ``input`` and ``votes`` differ,
            or if a number is not an int.
        ValueError: If shapes, devices or numbers don't fit each other, or if
            ``formulation`` or ``backend`` is unknown.
        RuntimeError: If a backend is asked for that cannot run on the
            tensors' device, or is wrong there; the message says why.

    Example:
        >>> fused, votes = torch.rand(2, 19, 4, 4), torch.rand(2, 9, 4, 4)
        >>> dynamic_deconv2d(fused, votes, stride=2, output_size=(7, 7)).shape
        torch.Size([2, 19, 7, 7])
    """
    input, votes = _autocast(input, votes)
    geometry = check_arguments(
        input, votes, kernel_size, stride, padding, output_size, groups, formulation
    )
    check_backend(backend)
    if standard_operators.are_wanted():
        return standard_operators.dynamic_deconv2d(input, votes, geometry, formulation)
    return deconv(input, votes, *geometry, formulation, backend)


def _autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast to the autocast dtype what ``conv_transpose2d`` would cast."""
    first = tensors[0]
    if not isinstance(first, Tensor):
        return tensors
    dtype = autocast_dtype(first.device.type)
    if dtype is None:
        return tensors
    return tuple(
        t.to(dtype)
        if isinstance(t, Tensor) and t.is_floating_point() and t.dtype != torch.float64
        else t
        for t in tensors
    )
