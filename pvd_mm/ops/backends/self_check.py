# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Whether a backend is right on the device at hand.

Kernels that are compiled on the user's machine, by a compiler and for a device that
nobody may have tried, are held against :mod:`.matrix` before they are trusted: a small
forward and backward pass at strides 1 and 2, at the first use on a device with a dtype
and a formulation.

It runs in a thread of its own. There grad mode, inference mode, autocast, modes of
``torch.func`` and of the dispatcher, the default device, the current GPU and its
stream are as in a new process, whatever the caller has set; and the numbers come from a
generator of its own.
"""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from types import ModuleType

import torch
from torch import Tensor

from ...version import __version__
from ..checks import Geometry
from . import matrix

_KERNEL_SIZE = 3
_STRIDES = (1, 2)
_CHANNELS, _GROUPS, _SIZE = 3, 2, (3, 5)  # channels of a group
_RESULTS = ('forward pass', 'gradient by input', 'gradient by votes')
_REPORT = (
    'Please report this, with what `python tools/benchmark_gpu.py` of the repository '
    'prints'
)

_problems = {}  # by backend, device, dtype and formulation; None where there is none
_lock = threading.Lock()


class _NoMemory(Exception):
    """There was none left for the check."""


def find_problem(
    backend: ModuleType, device: torch.device, dtype: torch.dtype, formulation: str
) -> str | None:
    """What is wrong with a backend there; None if it is right.

    Also None where nobody can look now, since the GPU may not be waited for (while a
    CUDA graph is captured, under ``torch.cuda.set_sync_debug_mode``) or has no memory
    left. Then the next use is the first one.

    Args:
        backend (module): A backend, which says that it can run there.
        device (torch.device): Where the tensors are.
        dtype (torch.dtype): Their dtype.
        formulation (str): 'exact' or 'factored'.
    """
    key = backend, device, dtype, formulation
    if key not in _problems and _can_wait_for(device):
        with _lock:
            if key not in _problems:
                try:
                    _problems[key] = _in_a_thread(_check, *key)
                except _NoMemory:
                    return None
    return _problems.get(key)


def _can_wait_for(device: torch.device) -> bool:
    return device.type != 'cuda' or not (
        torch.cuda.is_current_stream_capturing() or torch.cuda.get_sync_debug_mode()
    )


def _in_a_thread(function, *arguments):
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(function, *arguments).result()


def _check(
    backend: ModuleType, device: torch.device, dtype: torch.dtype, formulation: str
) -> str | None:
    on_device = torch.cuda.device(device) if device.type == 'cuda' else nullcontext()
    with on_device:
        try:
            error = _compare(backend, device, dtype, formulation)
        except Exception as exception:
            if 'out of memory' in str(exception):  # torch's, Triton's or CUDA's
                raise _NoMemory from exception
            error = _shortened(f'{type(exception).__name__}: {exception}')
        return error and (
            f'its self-check on {device} with {dtype}, formulation {formulation!r}, '
            f'failed: {error}\n{_REPORT}. {describe(device)}'
        )


def _compare(
    backend: ModuleType, device: torch.device, dtype: torch.dtype, formulation: str
) -> str | None:
    """The first difference from what :mod:`.matrix` computes in double precision from
    the same numbers."""
    generator = torch.Generator('cpu').manual_seed(0)
    for stride in _STRIDES:
        output_size = tuple(side * stride for side in _SIZE)
        geometry = Geometry(_KERNEL_SIZE, stride, 1, output_size, _GROUPS)
        grad, input, votes = (
            torch.randn(
                *(2, _GROUPS * channels, *size),
                generator=generator,
                dtype=torch.float64,
                device='cpu',
            ).to(device, dtype)
            for channels, size in (
                (_CHANNELS, output_size),
                (_CHANNELS, _SIZE),
                (_KERNEL_SIZE**2, _SIZE),
            )
        )
        maps = [x.double() for x in (grad, input, votes)]
        found = _results(backend, (grad, input, votes), geometry, formulation)
        truth = _results(matrix, maps, geometry, formulation)
        # the sums of their terms' magnitudes, which the errors are bounded by
        terms = _results(matrix, [x.abs() for x in maps], geometry, formulation)
        for name, *tensors in zip(_RESULTS, found, truth, terms):
            wrong = _difference(*tensors, dtype, stride)
            if wrong:
                return f'the {name} at stride {stride} {wrong}'
    return None


def _results(
    backend: ModuleType, maps: Sequence[Tensor], geometry: Geometry, formulation: str
) -> tuple[Tensor, ...]:
    grad, input, votes = maps
    return (
        backend.forward(input, votes, geometry, formulation),
        *backend.backward(grad, input, votes, geometry, formulation, (True, True)),
    )


def _difference(
    found: Tensor, truth: Tensor, terms: Tensor, dtype: torch.dtype, stride: int
) -> str | None:
    wanted = dtype, truth.device, truth.shape
    if (found.dtype, found.device, found.shape) != wanted:
        return (
            f'is of {found.dtype}, on {found.device}, of shape {tuple(found.shape)}, '
            f'and should be of {dtype}, on {truth.device}, of shape '
            f'{tuple(truth.shape)}'
        )
    # Rounded once to dtype; before that, in at least single precision, on its way from
    # a term to the result at most once for each vote, output pixel and channel that is
    # summed over. Each rounding is off by eps / 2 times the terms' magnitudes at most;
    # twice as much is allowed, for other rounding modes and for the truth's own error;
    # and what is below the normal numbers may be flushed to 0.
    summing = torch.promote_types(dtype, torch.float32)
    summands = _KERNEL_SIZE**2 + stride**2 + _CHANNELS
    unit = torch.finfo(dtype).eps + summands * torch.finfo(summing).eps
    allowed = unit * terms + torch.finfo(dtype).tiny
    found, truth, allowed = (
        x.cpu().double().flatten() for x in (found, truth, allowed)
    )
    wrong = ~((found - truth).abs() <= allowed)  # NaN is wrong, too
    if not wrong.any():
        return None
    at = int(wrong.int().argmax())
    return (
        f'is wrong in {int(wrong.sum())} of {wrong.numel()} numbers: {found[at]:.6g} '
        f'where matrix has {truth[at]:.6g} ± {allowed[at]:.1g}'
    )


def _shortened(text: str, most: int = 2000) -> str:
    """Without its middle: a compiler's message may hold the whole source."""
    text = text.strip()
    half = most // 2
    return text if len(text) <= most else f'{text[:half]}\n[...]\n{text[-half:]}'


def describe(device: torch.device) -> str:
    """Versions and GPU, for a report."""
    try:
        from triton import __version__ as triton
    except ImportError:
        triton = 'is not installed'
    where = str(device)
    if device.type == 'cuda':
        capability = '.'.join(map(str, torch.cuda.get_device_capability(device)))
        name = torch.cuda.get_device_name(device)
        where = f'{name} (compute capability {capability})'
    return f'torch {torch.__version__}, triton {triton}, pvd_mm {__version__}, {where}'
