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
import threading
import warnings
from types import ModuleType

import torch

from ..checks import check_choice
from .self_check import find_problem

#: A module of this package each, imported when it is first asked for.
BACKENDS = ('cpp', 'triton', 'matrix', 'reference')

#: What 'auto' takes by device; matrix on all others, and where it's missing.
FASTEST = {'cpu': 'cpp', 'cuda': 'triton'}

#: Names what 'auto' means; an argument has precedence.
VARIABLE = 'PVD_MM_BACKEND'
_VARIABLE_IN_WORDS = f'environment variable {VARIABLE}'

#: Compared with matrix first, for they are compiled on the user's machine.
SELF_CHECKED = ('triton',)

_warned = set()
_lock = threading.Lock()


def check_backend(name: str) -> None:
    """Refuse a name that no backend has.

    Raises:
        ValueError: If ``name`` is neither 'auto' nor a backend.
    """
    check_choice('backend', name, ('auto', *BACKENDS))


def get_backend(
    name: str, device: torch.device, dtype: torch.dtype, formulation: str
) -> ModuleType:
    """The backend to run on tensors of this device and dtype.

    'auto' is what the environment variable ``PVD_MM_BACKEND`` names, or else
    the fastest one that runs there.

    Raises:
        ValueError: If there is no backend of that name.
        RuntimeError: If one is asked for by name and cannot run there, or fails
            its self-check.
    """
    source = 'backend'
    if name == 'auto':
        name, source = os.environ.get(VARIABLE) or 'auto', _VARIABLE_IN_WORDS
    if name != 'auto':
        check_choice(source, name, ('auto', *BACKENDS))
        reason = why_not(name, device, dtype, formulation)
        if reason:
            raise RuntimeError(
                f'{source}={name!r} cannot run on {device} with {dtype}: {reason}'
            )
        return load(name)
    fastest = FASTEST.get(device.type, 'matrix')
    reason = why_not(fastest, device, dtype, formulation)
    if reason:
        _warn_once(fastest, reason)
        return load('matrix')
    return load(fastest)


def why_not(
    name: str, device: torch.device, dtype: torch.dtype, formulation: str
) -> str | None:
    """Why a backend cannot run there, or fails its self-check; None if it can."""
    reason = _why_not(name, device, dtype)
    if reason is None and name in SELF_CHECKED:
        return find_problem(load(name), device, dtype, formulation)
    return reason


@functools.cache
def load(name: str) -> ModuleType:
    """The module of a backend."""
    return importlib.import_module(f'{__name__}.{name}')


@functools.cache
def _why_not(name: str, device: torch.device, dtype: torch.dtype) -> str | None:
    return load(name).why_not(device, dtype)


def _warn_once(name: str, reason: str) -> None:
    with _lock:
        if reason not in _warned:
            warnings.warn(
                f'dynamic_deconv2d runs on its slower backend matrix, for '
                f'{name} cannot be used: {reason}'
            )
            _warned.add(reason)
