# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The private parts of torch that the op asks, a function each.

All are short cuts. Where torch no longer has the name, the op goes through
torch's public machinery: slower, with the same results.
"""

import torch
from torch import _C
from torch.autograd import forward_ad


def forward_mode_is_active() -> bool:
    """Whether a level of forward-mode AD is entered, also by ``torch.func``.

    Seen in torch 2.13. When it is gone, a dual tensor is made for a trial.
    """
    level = getattr(forward_ad, '_current_level', None)
    return _can_make_dual() if level is None else level >= 0


@torch.compiler.assume_constant_result
def _can_make_dual() -> bool:
    """torch refuses to make one outside of all levels."""
    primal = torch.zeros(())
    try:
        forward_ad.make_dual(primal, primal)
    except RuntimeError:
        return False
    return True


def functorch_may_be_active() -> bool:
    """Whether a transform of ``torch.func`` is at work.

    Seen in torch 2.13, where ``torch.autograd.Function.apply`` asks the same.
    When it is gone, every call goes through ``apply``.
    """
    query = getattr(_C, '_are_functorch_transforms_active', None)
    return query is None or query()


def dispatch_may_be_observed() -> bool:
    """Whether a ``TorchDispatchMode`` wants to see operators.

    Seen in torch 2.13, behind ``torch.utils._python_dispatch``. When it is
    gone, every call goes through the dispatcher.
    """
    query = getattr(_C, '_len_torch_dispatch_stack', None)
    return query is None or query() > 0
