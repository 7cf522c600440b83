# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Whether the kernels for GPUs are right on this one."""

import time
from collections.abc import Sequence

import torch

from pvd_mm.ops.backends import why_not
from pvd_mm.ops.checks import FORMULATIONS
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.markdown import markdown_table

BACKEND = 'triton'


def find_device(name: str) -> torch.device:
    """The device of a name, with its number; 'cpu' stands in for a GPU in tests.

    Raises:
        UserError: If torch finds no such GPU.
    """
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ('cpu', 'cuda'):
        raise UserError(f'--device must be cuda, cuda:N or cpu, but got {name!r}')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device.type == 'cpu':
        return device
    if (device.index or 0) >= count:
        raise UserError(
            f'torch {torch.__version__} finds '
            f'{f"{count} GPUs, not {name}" if count else "no GPU"} here, and this '
            'measures one; everything else of pvd_mm runs on a CPU as well'
        )
    return torch.device('cuda', device.index or 0)


def self_checks(device: torch.device, dtypes: Sequence[str]) -> list[dict]:
    """The self-check of the kernels (:mod:`pvd_mm.ops.backends.self_check`).

    Args:
        device (torch.device): Where it runs.
        dtypes (Sequence[str]): Names of dtypes, such as 'float32'.

    Returns:
        list[dict]: For each dtype and formulation ``dtype``, ``formulation``,
        ``seconds`` and ``problem``, '' where there is none.
    """
    results = []
    for dtype in dtypes:
        for formulation in FORMULATIONS:
            start = time.perf_counter()
            problem = why_not(BACKEND, device, getattr(torch, dtype), formulation)
            results.append(
                dict(
                    dtype=dtype,
                    formulation=formulation,
                    seconds=time.perf_counter() - start,
                    problem=problem or '',
                )
            )
    return results


def markdown(checks: Sequence[dict]) -> str:
    """A table of :func:`self_checks`, and below it each problem once."""
    rows = [
        [
            check['dtype'],
            check['formulation'],
            'FAILED' if check['problem'] else 'right',
            f'{check["seconds"]:.2f}',
        ]
        for check in checks
    ]
    table = markdown_table(['dtype', 'formulation', 'self-check', 'seconds'], rows)
    problems = dict.fromkeys(check['problem'] for check in checks if check['problem'])
    return '\n\n'.join([table, *problems])
