# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The private parts of torch that the op asks, a function each.

Both are short cuts. Where torch no longer has the name, the answer is True,
and the op goes through torch's public machinery: slower, with the same
results.
"""

import torch


def functorch_may_be_active() -> bool:
    """Whether a transform of ``torch.func`` is at work.

    Seen in torch 2.13, where ``torch.autograd.Function.apply`` asks the same.
    When it is gone, every call goes through ``apply``.
    """
    query = getattr(torch._C, '_are_functorch_transforms_active', None)
    return query is None or query()


def dispatch_may_be_observed() -> bool:
    """Whether a ``TorchDispatchMode`` wants to see operators.

    Seen in torch 2.13, behind ``torch.utils._python_dispatch``. When it is
    gone, every call goes through the dispatcher.
    """
    query = getattr(torch._C, '_len_torch_dispatch_stack', None)
    return query is None or query() > 0
