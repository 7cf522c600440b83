# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What differs from one torch to another, and the private parts of torch that the op
asks, a function each.

The private ones are short cuts. Where torch no longer has the name, the op goes
through torch's public machinery: slower, with the same results.
"""

import operator
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import _C, Tensor
from torch.autograd import forward_ad
from torch.library import Library
from torch.utils import flop_counter


def forward_mode_is_active() -> bool:
    """Whether a level of forward-mode AD is entered, also by ``torch.func``.

    Seen in torch 2.1 to 2.15. When it is gone, a dual tensor is made for a trial.
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

    Seen in torch 2.1 to 2.15, where ``torch.autograd.Function.apply`` asks the same.
    When it is gone, every call goes through ``apply``.
    """
    query = getattr(_C, '_are_functorch_transforms_active', None)
    return query is None or query()


def dispatch_may_be_observed() -> bool:
    """Whether a ``TorchDispatchMode`` wants to see operators.

    Seen in torch 2.1 to 2.15, behind ``torch.utils._python_dispatch``. When it is
    gone, every call goes through the dispatcher.
    """
    query = getattr(_C, '_len_torch_dispatch_stack', None)
    return query is None or query() > 0


def functionalization_is_active() -> bool:
    """Whether ``torch.func.functionalize`` is among the transforms at work.

    Seen in torch 2.4 to 2.15. torch 2.1 tells the innermost transform alone. When both
    are gone, the op can't be functionalized.
    """
    if not functorch_may_be_active():
        return False
    functorch = _C._functorch
    if hasattr(functorch, 'get_interpreter_stack'):
        stack = functorch.get_interpreter_stack()
    else:
        stack = [getattr(functorch, 'peek_interpreter_stack', bool)()]
    return any(each.key().name == 'Functionalize' for each in stack or () if each)


def is_batched_by_autograd(tensor: Tensor) -> bool:
    """Whether a tensor stands for many, as gradients with ``is_grads_batched`` do,
    which no transform of ``torch.func`` makes. Only an operator can loop over them.

    Seen in torch 2.4 to 2.15; torch 2.1 knows it by the tensor's dispatch keys.
    """
    query = getattr(_C._functorch, 'is_legacy_batchedtensor', None)
    if query is not None:
        return query(tensor)
    return 'Batched' in repr(_C._dispatch_keys(tensor))


def _query_of_compiling():
    """torch<2.3 has a private one, which it recognises when it compiles."""
    if hasattr(torch.compiler, 'is_compiling'):
        return torch.compiler.is_compiling
    return torch._utils.is_compiling


#: Whether a compiler records what is done.
is_compiling = _query_of_compiling()


@torch.compiler.assume_constant_result
def _knows_autocast(device: str) -> bool:
    """A constant, for the compiler of torch 2.4 can't look into it."""
    return torch.amp.is_autocast_available(device)


def autocast_dtype(device: str) -> torch.dtype | None:
    """What autocast casts to on this kind of device now, or None.

    torch<2.4 has functions of their own for each device. Unnecessary once
    ``torch.amp.is_autocast_available`` is everywhere.
    """
    if hasattr(torch.amp, 'is_autocast_available'):
        # to ask for a device that autocast does not know, as 'meta', is an error
        if _knows_autocast(device) and torch.is_autocast_enabled(device):
            return torch.get_autocast_dtype(device)
    elif device == 'cpu' and torch.is_autocast_cpu_enabled():
        return torch.get_autocast_cpu_dtype()
    elif device == 'cuda' and torch.is_autocast_enabled():
        return torch.get_autocast_gpu_dtype()
    return None


def exports_any_size() -> bool:
    """Whether ``torch.export`` takes sizes that are only known when the program runs,
    and ``torch.onnx.export`` is built on it: from torch 2.6 on."""
    from torch import export

    return hasattr(getattr(export, 'Dim', None), 'DYNAMIC')


@contextmanager
def pool_without_guards() -> Iterator[None]:
    """Within it, in all threads, the size that a pooled map gets is computed without
    asking whether the division has a remainder.

    The answer changes no size, for ``//`` rounds down by itself. But torch 2.9's rule
    asks, the exported program keeps the answer for its example as a guard, and
    ``ExportedProgram.module``, which checks guards from torch 2.9 on, then refuses
    images of other sizes. Unnecessary with torch>=2.13, whose rule does not ask. Where
    torch no longer has the private name, nothing is replaced.
    """
    rules = getattr(torch, '_meta_registrations', None)
    before = getattr(rules, 'div_rtn', None)
    if before is None:
        yield
        return
    rules.div_rtn = operator.floordiv
    try:
        yield
    finally:
        rules.div_rtn = before


def crop(x: Tensor, height: int, width: int) -> Tensor:
    """The first rows and columns of maps (N, C, H, W).

    torch 2.9's shape rules ask of a slice whether it is contiguous. Where it is the
    whole map in the example, the exported program is then for maps alone that are not
    cropped. A selection is a map of its own. Unnecessary with torch>=2.13.
    """
    if not is_compiling():
        return x[..., :height, :width]
    rows = torch.arange(height, device=x.device)
    return x.index_select(2, rows).index_select(3, torch.arange(width, device=x.device))


def register_fake(op, kernel, library: Library) -> None:
    """Say which shapes and dtypes an operator gives.

    torch<2.4 has other ways; a kernel for 'meta' tensors serves fake ones, too.
    """
    if hasattr(torch.library, 'register_fake'):
        torch.library.register_fake(op.name(), kernel, lib=library)
    else:
        library.impl(op, kernel, 'Meta')


def register_autograd(op, function, library: Library) -> None:
    """Give an operator the derivatives of a ``torch.autograd.Function`` whose forward
    pass calls it.

    torch<2.4 wants a kernel for that.
    """
    if hasattr(torch.library, 'register_autograd'):
        torch.library.register_autograd(
            op.name(),
            function.backward,
            setup_context=function.setup_context,
            lib=library,
        )
        return

    def kernel(*arguments):
        if torch.is_grad_enabled() and any(
            isinstance(x, Tensor) and x.requires_grad for x in arguments
        ):
            return function.apply(*arguments)
        with _C._AutoDispatchBelowAutograd():
            return op(*arguments)

    library.impl(op, kernel, 'Autograd')


def register_vmap(op, rule, library: Library) -> None:
    """Let ``torch.func.vmap`` map an operator that is called by itself.

    torch<2.5 can't.
    """
    if hasattr(torch.library, 'register_vmap'):
        torch.library.register_vmap(op.name(), rule, lib=library)


def register_flop_formula(op, formula) -> None:
    """Let torch's FLOP counter count an operator.

    torch 2.1 has a table and no function for it, and that of torch 2.4 enters the
    operator's overloads, where the counter looks for the operator. Unnecessary with
    torch>=2.8.
    """
    if not hasattr(flop_counter, 'register_flop_formula'):
        flop_counter.flop_mapping[op] = formula
        return
    flop_counter.register_flop_formula(op)(formula)
    table = getattr(flop_counter, 'flop_registry', {})
    if op not in table and op.default in table:
        table[op] = table[op.default]
