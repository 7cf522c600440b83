# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The CPU kernels in C++ (``pvd_mm/ops/csrc``), loaded on first use.

The library is no Python module: it registers ``torch.ops.pvd_mm_cpp``. Its
file is named after the torch that it was built for, and is loaded into no
other.

Tensors of any strides are read as they are. The output is ``channels_last``
where ``input`` is, as a convolution's is, and so is each gradient where its
tensor is; everything else is contiguous.
"""

import threading
from pathlib import Path

import torch
from torch import Tensor

from ..checks import Geometry

DTYPES = (torch.float32, torch.float64, torch.half, torch.bfloat16)

_FOLDER = Path(__file__).resolve().parents[1]
_lock = threading.Lock()
_state = {}  # 'problem', once loading was tried
_forward = _backward = None


def _release(version: str) -> str:
    return '.'.join(version.split('.')[:2])


def _find(folder: Path, version: str) -> tuple[Path | None, str]:
    """The library for a torch version, or why there is none."""
    libraries = {}
    for path in sorted(folder.glob('_cpp_torch*')):
        if path.suffix in ('.so', '.pyd', '.dylib'):
            release = path.name[len('_cpp_torch') :].split('.')[0]
            libraries[release.replace('_', '.')] = path
    release = _release(version)
    if release in libraries:
        return libraries[release], ''
    again = 'reinstall pvd_mm with pip install --no-build-isolation'
    if libraries:
        return None, (
            f'it was built for torch {" and ".join(libraries)}, and '
            f'this is {release}; {again}'
        )
    return None, (
        'it was not built when pvd_mm was installed, for want of '
        f'torch or a compiler; {again}'
    )


def _load() -> str | None:
    """Load the library, once; returns why that is impossible."""
    global _forward, _backward
    with _lock:
        if 'problem' not in _state:
            path, problem = _find(_FOLDER, torch.__version__)
            if path is not None:
                try:
                    torch.ops.load_library(str(path))
                    _forward = torch.ops.pvd_mm_cpp.forward.default
                    _backward = torch.ops.pvd_mm_cpp.backward.default
                except (OSError, RuntimeError, AttributeError) as error:
                    problem = f'its library cannot be loaded ({error})'
            _state['problem'] = problem or None
        return _state['problem']


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot run there; None if it can."""
    if device.type != 'cpu':
        return f'it runs on the CPU, and the tensors are on {device.type}'
    if dtype not in DTYPES:
        return f'it has no kernel for {dtype}'
    return _load()


def _ensure_loaded() -> None:
    problem = _load()
    if problem:
        raise RuntimeError(f"The backend 'cpp' cannot run: {problem}")


def forward(
    input: Tensor, votes: Tensor, geometry: Geometry, formulation: str
) -> Tensor:
    """D, (N, C, H', W'), from M (N, C, H, W) and V (N, G·k², H, W)."""
    if _forward is None:
        _ensure_loaded()
    k, s, p, (height, width), groups = geometry
    return _forward(
        input, votes, k, s, p, height, width, groups, formulation == 'factored'
    )


def backward(
    grad: Tensor,
    input: Tensor,
    votes: Tensor,
    geometry: Geometry,
    formulation: str,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients by M (N, C, H, W) and V (N, G·k², H, W) of ∂D
    (N, C, H', W'); None where ``needs`` is False."""
    if _backward is None:
        _ensure_loaded()
    k, s, p, _, groups = geometry
    input_grad, votes_grad = _backward(
        grad, input, votes, k, s, p, groups, formulation == 'factored', *needs
    )
    return (input_grad if needs[0] else None, votes_grad if needs[1] else None)
