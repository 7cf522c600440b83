# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op as torch knows it: ``torch.ops.pvd_mm.dynamic_deconv2d``.

One operator stands in front of all backends, so that autograd,
``torch.compile``, ``torch.export``, ``torch.func`` and torch's FLOP counter
see the same thing whatever runs. Its arguments are not checked here:
:func:`pvd_mm.ops.dynamic_deconv2d` does that.

D is linear in M and linear in V, in both formulations. So the gradients of
the gradients are made of the op and its gradients again, and derivatives of
any order cost no further code. With T(∂D, M, V) = <∂D, D(M, V)>, the backward
pass returns ∂T/∂M and ∂T/∂V.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter

from .backends import get_backend
from .checks import Geometry, format_like

_NUMBERS = (
    'int kernel_size, int stride, int padding, SymInt[2] output_size, '
    'int groups, str formulation, str backend'
)

LIBRARY = torch.library.Library('pvd_mm', 'FRAGMENT')
LIBRARY.define(f'dynamic_deconv2d(Tensor input, Tensor votes, {_NUMBERS}) -> Tensor')
LIBRARY.define(
    'dynamic_deconv2d_backward(Tensor grad, Tensor input, Tensor '
    f'votes, {_NUMBERS}, bool[2] needs) -> (Tensor, Tensor)'
)

forward_op = torch.ops.pvd_mm.dynamic_deconv2d.default
backward_op = torch.ops.pvd_mm.dynamic_deconv2d_backward.default


def _run(
    input: Tensor,
    votes: Tensor,
    kernel_size: int,
    stride: int,
    padding: int,
    output_size: Sequence[int],
    groups: int,
    formulation: str,
    backend: str,
) -> Tensor:
    geometry = Geometry(kernel_size, stride, padding, tuple(output_size), groups)
    output = get_backend(backend, input.device, input.dtype).forward(
        input, votes, geometry, formulation
    )
    return output.contiguous(memory_format=format_like(input))


def _run_backward(
    grad: Tensor,
    input: Tensor,
    votes: Tensor,
    kernel_size: int,
    stride: int,
    padding: int,
    output_size: Sequence[int],
    groups: int,
    formulation: str,
    backend: str,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    geometry = Geometry(kernel_size, stride, padding, tuple(output_size), groups)
    grads = get_backend(backend, input.device, input.dtype).backward(
        grad, input, votes, geometry, formulation, tuple(needs)
    )
    # an operator cannot return None
    return tuple(
        like.new_empty(0)
        if one is None
        else one.contiguous(memory_format=format_like(like))
        for one, like in zip(grads, (input, votes))
    )


def _fake(
    input: Tensor,
    votes: Tensor,
    kernel_size: int,
    stride: int,
    padding: int,
    output_size: Sequence[int],
    *_,
) -> Tensor:
    shape = (*input.shape[:2], *output_size)
    return torch.empty(
        shape, dtype=input.dtype, device=input.device, memory_format=format_like(input)
    )


def _fake_backward(
    grad: Tensor, input: Tensor, votes: Tensor, *rest
) -> tuple[Tensor, Tensor]:
    return tuple(
        torch.empty_like(like, memory_format=format_like(like))
        if need
        else like.new_empty(0)
        for need, like in zip(rest[-1], (input, votes))
    )


def _save(ctx, inputs, output) -> None:
    input, votes, *ctx.numbers = inputs
    ctx.save_for_backward(input, votes)
    ctx.save_for_forward(input, votes)


def _grads(ctx, grad: Tensor):
    needs = list(ctx.needs_input_grad[:2])
    grads = deconv_backward(grad, *ctx.saved_tensors, *ctx.numbers, needs)
    return (*_where(needs, grads), *[None] * 7)


def _save_backward(ctx, inputs, output) -> None:
    grad, input, votes, *ctx.numbers, ctx.needs = inputs
    ctx.save_for_backward(grad, input, votes)


def _second_grads(ctx, for_input: Tensor | None, for_votes: Tensor | None):
    """What comes back for ∂T/∂M and ∂T/∂V goes where M and V stand in T."""
    grad, input, votes = ctx.saved_tensors
    for_input, for_votes = _where(ctx.needs, (for_input, for_votes))
    by_grad = by_input = by_votes = None
    if ctx.needs_input_grad[0]:
        terms = [
            deconv(*pair, *ctx.numbers)
            for pair in ((for_input, votes), (input, for_votes))
            if pair[0] is not None and pair[1] is not None
        ]
        by_grad = sum(terms) if terms else None
    needs = [
        ctx.needs_input_grad[1] and for_votes is not None,
        ctx.needs_input_grad[2] and for_input is not None,
    ]
    if any(needs):
        by_input, by_votes = _where(
            needs,
            deconv_backward(
                grad,
                input if for_input is None else for_input,
                votes if for_votes is None else for_votes,
                *ctx.numbers,
                needs,
            ),
        )
    return (by_grad, by_input, by_votes, *[None] * 8)


def _where(needs: Sequence[bool], grads: Sequence[Tensor | None]) -> tuple:
    return tuple(one if need else None for need, one in zip(needs, grads))


def _fold(info, in_dims, tensors: Sequence[Tensor]) -> list:
    """What is mapped over becomes part of the batch."""
    return [
        (
            x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        ).flatten(0, 1)
        for x, dim in zip(tensors, in_dims)
    ]


def _vmap(info, in_dims, input: Tensor, votes: Tensor, *numbers):
    output = deconv(*_fold(info, in_dims, (input, votes)), *numbers)
    return output.unflatten(0, (info.batch_size, -1)), 0


def _vmap_backward(info, in_dims, grad: Tensor, input: Tensor, votes: Tensor, *rest):
    grads = deconv_backward(*_fold(info, in_dims, (grad, input, votes)), *rest)
    needs = rest[-1]  # what is not needed is empty and has no batch
    return (
        tuple(
            one.unflatten(0, (info.batch_size, -1)) if need else one
            for one, need in zip(grads, needs)
        ),
        tuple(0 if need else None for need in needs),
    )


class _Deconv(torch.autograd.Function):
    """For ``torch.func``, which can't look into a registered derivative, and
    for eager mode, where it costs less than the way through the dispatcher."""

    forward = staticmethod(lambda *arguments: _execute(2, forward_op, _run, arguments))
    setup_context = staticmethod(_save)
    backward = staticmethod(_grads)
    vmap = staticmethod(_vmap)

    @staticmethod
    def jvp(ctx, by_input: Tensor | None, by_votes: Tensor | None, *_):
        input, votes = ctx.saved_tensors
        terms = []
        if by_input is not None:
            terms.append(deconv(by_input, votes, *ctx.numbers))
        if by_votes is not None:
            terms.append(deconv(input, by_votes, *ctx.numbers))
        return sum(terms)


class _DeconvBackward(torch.autograd.Function):
    forward = staticmethod(
        lambda *arguments: _execute(3, backward_op, _run_backward, arguments)
    )
    setup_context = staticmethod(_save_backward)
    backward = staticmethod(_second_grads)
    vmap = staticmethod(_vmap_backward)


def _is_recorded() -> bool:
    """By a compiler or a tracer, which must see the operator."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def _plain(tensors: Sequence[Tensor]) -> bool:
    return all(type(x) in (Tensor, Parameter) for x in tensors)


def _execute(tensors: int, op, run, arguments):
    """Directly, unless somebody wants to see the operator: for a small map
    the way through the dispatcher takes longer than the op itself."""
    if (
        _is_recorded()
        or torch._C._len_torch_dispatch_stack()
        or not _plain(arguments[:tensors])
    ):
        return op(*arguments)
    return run(*arguments)


def _derive(tensors: int, function, op, run, arguments):
    """By the autograd Function in eager mode and for ``torch.func``; the
    operator has its own derivative."""
    maps = arguments[:tensors]
    if (
        torch._C._are_functorch_transforms_active()
        or forward_ad._current_level >= 0
        or torch.is_grad_enabled()
        and not _is_recorded()
        and _plain(maps)
        and any(x.requires_grad for x in maps)
    ):
        return function.apply(*arguments)
    return _execute(tensors, op, run, arguments)


def deconv(*arguments) -> Tensor:
    """The op; the arguments are those of its schema."""
    return _derive(2, _Deconv, forward_op, _run, arguments)


def deconv_backward(*arguments) -> tuple[Tensor, Tensor]:
    """Its backward pass; an empty tensor for what is not needed."""
    return _derive(3, _DeconvBackward, backward_op, _run_backward, arguments)


LIBRARY.impl('dynamic_deconv2d', _run, 'CompositeExplicitAutograd')
LIBRARY.impl('dynamic_deconv2d_backward', _run_backward, 'CompositeExplicitAutograd')
for _name, _fake_kernel, _setup, _backward, _map in (
    ('dynamic_deconv2d', _fake, _save, _grads, _vmap),
    (
        'dynamic_deconv2d_backward',
        _fake_backward,
        _save_backward,
        _second_grads,
        _vmap_backward,
    ),
):
    torch.library.register_fake(f'pvd_mm::{_name}', _fake_kernel, lib=LIBRARY)
    torch.library.register_autograd(
        f'pvd_mm::{_name}', _backward, setup_context=_setup, lib=LIBRARY
    )
    torch.library.register_vmap(f'pvd_mm::{_name}', _map, lib=LIBRARY)
