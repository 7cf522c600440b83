# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The backends of the op, a file each.

A backend is a module with three functions. They get checked arguments and
know nothing of autograd, which ``pvd_mm.ops.op`` adds once for all:

``why_not(device, dtype)``
    Why it cannot run there, or None.
``forward(input, votes, geometry, formulation)``
    D, (N, C, H', W').
``backward(grad, input, votes, geometry, formulation, needs)``
    The gradients by input and votes, None where ``needs`` is False.

A further one is a further file and a further name in ``BACKENDS``.
"""

import functools
import importlib
import os
import warnings
from types import ModuleType

import torch

from ..checks import check_choice

#: A module of this package each, imported when it is first asked for.
BACKENDS = ('cpp', 'triton', 'matrix', 'reference')

#: What 'auto' takes by device; matrix on all others, and where it's missing.
FASTEST = {'cpu': 'cpp', 'cuda': 'triton'}

#: Names what 'auto' means; an argument has precedence.
VARIABLE = 'PVD_MM_BACKEND'


def check_backend(name: str) -> None:
    """Refuse a name that no backend has.

    Raises:
        ValueError: If ``name`` is neither 'auto' nor a backend.
    """
    check_choice('backend', name, ('auto', *BACKENDS))


def get_backend(name: str, device: torch.device, dtype: torch.dtype) -> ModuleType:
    """The backend to run on tensors of this device and dtype.

    'auto' is what the environment variable ``PVD_MM_BACKEND`` names, or else
    the fastest one that runs there.

    Raises:
        ValueError: If there is no backend of that name.
        RuntimeError: If one is asked for by name and cannot run there.
    """
    if name != 'auto':
        return _named(name, 'backend', device, dtype)
    name = os.environ.get(VARIABLE) or 'auto'
    if name != 'auto':
        return _named(name, f'environment variable {VARIABLE}', device, dtype)
    return _fastest(device.type, dtype)


def load(name: str) -> ModuleType:
    """The module of a backend."""
    return importlib.import_module(f'{__name__}.{name}')


@functools.cache
def _named(
    name: str, source: str, device: torch.device, dtype: torch.dtype
) -> ModuleType:
    check_choice(source, name, ('auto', *BACKENDS))
    reason = load(name).why_not(device, dtype)
    if reason:
        raise RuntimeError(
            f'{source}={name!r} cannot run on {device} with {dtype}: {reason}'
        )
    return load(name)


@functools.cache
def _fastest(kind: str, dtype: torch.dtype) -> ModuleType:
    device = torch.device(kind)
    first = FASTEST.get(kind, 'matrix')
    reason = load(first).why_not(device, dtype)
    if reason is None:
        return load(first)
    _warn_once(first, reason)
    return load('matrix')


@functools.cache
def _warn_once(name: str, reason: str) -> None:
    warnings.warn(
        f'dynamic_deconv2d runs on its slower backend matrix, for '
        f'{name} is not there: {reason}'
    )
