# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What not every torch has, a mark each for the tests that need it."""

import inspect
import warnings

import pytest
import torch
import torch.export

Dim = getattr(torch.export, 'Dim', None)


def _needs(there: bool, what: str):
    return pytest.mark.skipif(
        not there, reason=f'torch {torch.__version__} has no {what}'
    )


def skip_module(mark) -> None:
    """Skip a file of tests that a torch without it cannot even import."""
    if mark.mark.args[0]:
        pytest.skip(mark.mark.kwargs['reason'], allow_module_level=True)


def _casts_to_half_on_a_cpu() -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        try:
            with torch.autocast('cpu', torch.half):
                return True
        except RuntimeError:
            return False


needs_opcheck = _needs(hasattr(torch.library, 'opcheck'), 'torch.library.opcheck')
needs_export = _needs(Dim is not None, 'torch.export.Dim')
needs_automatic_sizes = _needs(hasattr(Dim, 'AUTO'), 'torch.export.Dim.AUTO')
needs_safe_loading = _needs(
    hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'),
    'allow-list of names, and loads any pickle by default',
)
needs_vmap_of_operators = _needs(
    hasattr(torch.library, 'register_vmap'), 'torch.library.register_vmap'
)
needs_stack_of_transforms = _needs(
    hasattr(torch._C._functorch, 'get_interpreter_stack'),
    "way to see all of torch.func's transforms",
)
needs_half_autocast = _needs(_casts_to_half_on_a_cpu(), 'autocast to half on a CPU')
needs_dynamic_compile = _needs(
    hasattr(torch.compiler, 'is_compiling'), 'compiler of dynamic shapes for the op'
)

#: Arguments of ``torch.onnx.export`` for the exporter that traces.
OLDER_EXPORTER = dict(dynamo=False)
if 'dynamo' not in inspect.signature(torch.onnx.export).parameters:
    OLDER_EXPORTER = {}  # there is no other
