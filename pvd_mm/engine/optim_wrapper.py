# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Mixed precision on a CPU."""

from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Mixed precision on a CPU: bfloat16 autocast without loss scaling.

    mmengine's ``AmpOptimWrapper`` refuses to work without an accelerator.
    bfloat16 has float32's range, so nothing needs to be scaled.

    Args:
        dtype (str): ``'bfloat16'``; other types are refused.
        **kwargs: See mmengine's ``OptimWrapper``.

    Raises:
        ValueError: If ``dtype`` is not ``'bfloat16'``.
    """

    def __init__(self, dtype: str = 'bfloat16', **kwargs) -> None:
        if dtype not in ('bfloat16', torch.bfloat16):
            raise ValueError(
                f'CPUAmpOptimWrapper: dtype must be "bfloat16", got {dtype!r}'
            )
        super().__init__(**kwargs)

    @contextmanager
    def optim_context(self, model: torch.nn.Module):
        """Run the model's forward pass under bfloat16 autocast."""
        with super().optim_context(model), torch.autocast('cpu', dtype=torch.bfloat16):
            yield
