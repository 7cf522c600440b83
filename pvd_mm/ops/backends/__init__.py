# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The backends of the op, a file each.

A backend is a module with ``run(input, votes, geometry, formulation)``: it
gets checked arguments, returns the output, and is differentiable. A faster
one is a further file and a further line in ``BACKENDS``.
"""
from types import ModuleType

from ..checks import check_choice
from . import matrix, reference

BACKENDS = {'reference': reference, 'matrix': matrix}


def get_backend(name: str) -> ModuleType:
    """Look up a backend; 'auto' is the fastest one that is there.

    Raises:
        ValueError: If there is no backend of that name.
    """
    check_choice('backend', name, ('auto', *BACKENDS))
    return BACKENDS['matrix' if name == 'auto' else name]
