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

import functools
import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from . import standard_operators
from .backends import get_backend
from .checks import Geometry, format_like, laid_out_like
from .compatibility import (
    dispatch_may_be_observed,
    forward_mode_is_active,
    functionalization_is_active,
    functorch_may_be_active,
    is_batched_by_autograd,
    is_compiling,
    register_autograd,
    register_fake,
    register_vmap,
)
from .tracing import TracedSide

_NUMBERS = (
    'int kernel_size, int stride, int padding, SymInt[2] output_size, '
    'int groups, str formulation, str backend'
)

LIBRARY = torch.library.Library('pvd_mm', 'FRAGMENT')
LIBRARY.define(f'dynamic_deconv2d(Tensor input, Tensor votes, {_NUMBERS}) -> Tensor')
# torch.jit.trace follows a tensor, but no ints
LIBRARY.define(
    'dynamic_deconv2d.traced(Tensor input, Tensor votes, '
    f'{_NUMBERS.replace("SymInt[2]", "Tensor")}) -> Tensor'
)
LIBRARY.define(
    'dynamic_deconv2d_backward(Tensor grad, Tensor input, Tensor '
    f'votes, {_NUMBERS}, bool[2] needs) -> (Tensor, Tensor)'
)

forward_op = torch.ops.pvd_mm.dynamic_deconv2d.default
traced_op = torch.ops.pvd_mm.dynamic_deconv2d.traced
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
    output = get_backend(backend, input.device, input.dtype, formulation).forward(
        input, votes, geometry, formulation
    )
    return laid_out_like(output, input)


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
    grads = get_backend(backend, input.device, input.dtype, formulation).backward(
        grad, input, votes, geometry, formulation, tuple(needs)
    )
    # an operator cannot return None
    return tuple(
        like.new_empty(0) if gradient is None else laid_out_like(gradient, like)
        for gradient, like in zip(grads, (input, votes))
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


def _fold(info, in_dims, tensors: Sequence[Tensor]) -> tuple[list, Sequence[int]]:
    """What is mapped over becomes part of the batch; also what that was."""
    mapped = [
        x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
        for x, dim in zip(tensors, in_dims)
    ]
    return [x.flatten(0, 1) for x in mapped], mapped[0].shape[:2]


def _vmap(run, info, in_dims, input: Tensor, votes: Tensor, *numbers):
    maps, batch = _fold(info, in_dims, (input, votes))
    return run(*maps, *numbers).unflatten(0, batch), 0


def _vmap_backward(
    run, info, in_dims, grad: Tensor, input: Tensor, votes: Tensor, *rest
):
    maps, batch = _fold(info, in_dims, (grad, input, votes))
    grads = run(*maps, *rest)
    needs = rest[-1]  # what is not needed is empty and has no batch
    return (
        tuple(
            grad.unflatten(0, batch) if need else grad
            for grad, need in zip(grads, needs)
        ),
        tuple(0 if need else None for need in needs),
    )


def _product_rule(
    numbers: Sequence,
    input: Tensor,
    votes: Tensor,
    input_part: Tensor | None,
    votes_part: Tensor | None,
) -> Tensor | None:
    """D(M', V) + D(M, V'), where None means zero."""
    terms = [
        deconv(*pair, *numbers)
        for pair in ((input_part, votes), (input, votes_part))
        if pair[0] is not None and pair[1] is not None
    ]
    return sum(terms) if terms else None


def _backward_product_rule(
    ctx, input_part: Tensor | None, votes_part: Tensor | None, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """∂T/∂M at V' and ∂T/∂V at M', where None means zero."""
    grad, input, votes = ctx.saved_tensors
    needs = [
        needs[0] and votes_part is not None,
        needs[1] and input_part is not None,
    ]
    if not any(needs):
        return None, None
    grads = deconv_backward(
        grad,
        input if input_part is None else input_part,
        votes if votes_part is None else votes_part,
        *ctx.numbers,
        needs,
    )
    return _if_needed(needs, grads)


def _if_needed(needs: Sequence[bool], grads: Sequence[Tensor | None]) -> tuple:
    return tuple(grad if need else None for need, grad in zip(needs, grads))


class _Deconv(torch.autograd.Function):
    """The op's derivatives, for ``torch.func``, which can't look into those
    of an operator, and for eager mode, where this costs less than the way
    through the dispatcher. The operator is registered with the same."""

    @staticmethod
    def forward(*arguments):
        return _execute(forward_op, _run, arguments[:2], arguments[2:])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        input, votes, *ctx.numbers = inputs
        ctx.save_for_backward(input, votes)
        ctx.save_for_forward(input, votes)

    @staticmethod
    def backward(ctx, grad: Tensor):
        needs = list(ctx.needs_input_grad[:2])
        grads = deconv_backward(grad, *ctx.saved_tensors, *ctx.numbers, needs)
        return (*_if_needed(needs, grads), *[None] * 7)

    @staticmethod
    def jvp(ctx, input_tangent: Tensor | None, votes_tangent: Tensor | None, *_):
        return _product_rule(
            ctx.numbers, *ctx.saved_tensors, input_tangent, votes_tangent
        )

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return _vmap(deconv, info, in_dims, *arguments)


class _DeconvBackward(torch.autograd.Function):
    """The backward pass's own derivatives."""

    @staticmethod
    def forward(*arguments):
        return _execute(backward_op, _run_backward, arguments[:3], arguments[3:])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        grad, input, votes, *ctx.numbers, ctx.needs = inputs
        ctx.save_for_backward(grad, input, votes)
        ctx.save_for_forward(grad, input, votes)

    @staticmethod
    def backward(ctx, input_part: Tensor | None, votes_part: Tensor | None):
        """What comes back for ∂T/∂M and ∂T/∂V goes where M and V stand in T."""
        parts = _if_needed(ctx.needs, (input_part, votes_part))
        grad_grad = None
        if ctx.needs_input_grad[0]:
            grad_grad = _product_rule(ctx.numbers, *ctx.saved_tensors[1:], *parts)
        return (
            grad_grad,
            *_backward_product_rule(ctx, *parts, ctx.needs_input_grad[1:3]),
            *[None] * 8,
        )

    @staticmethod
    def jvp(
        ctx,
        grad_tangent: Tensor | None,
        input_tangent: Tensor | None,
        votes_tangent: Tensor | None,
        *_,
    ):
        """T is linear in each of its three arguments."""
        maps = ctx.saved_tensors[1:]
        if grad_tangent is None:
            tangents = [
                torch.zeros_like(x) if need else x.new_empty(0)
                for x, need in zip(maps, ctx.needs)
            ]
        else:
            tangents = deconv_backward(grad_tangent, *maps, *ctx.numbers, ctx.needs)
        parts = _backward_product_rule(ctx, input_tangent, votes_tangent, ctx.needs)
        return tuple(
            tangent if part is None else tangent + part
            for tangent, part in zip(tangents, parts)
        )

    @staticmethod
    def vmap(info, in_dims, *arguments):
        return _vmap_backward(deconv_backward, info, in_dims, *arguments)


def _is_recorded() -> bool:
    """By a compiler or a tracer, which must see the operator."""
    return is_compiling() or torch.jit.is_tracing()


def _is_differentiated(maps: Sequence[Tensor]) -> bool:
    """In forward mode, in which the operator has no derivative; or, unless it
    is recorded, in reverse mode or by ``torch.func``."""
    if forward_mode_is_active():
        return True
    return not _is_recorded() and (
        functorch_may_be_active()
        or (torch.is_grad_enabled() and any(x.requires_grad for x in maps))
    )


def _execute(op, run, maps: Sequence[Tensor], rest: Sequence):
    """Directly, unless somebody wants to see the operator: for a small map
    the way through the dispatcher takes longer than the op itself."""
    if _is_recorded() or dispatch_may_be_observed() or not all(map(_is_plain, maps)):
        return op(*maps, *rest)
    return run(*maps, *rest)


def _is_plain(x: Tensor) -> bool:
    return type(x) in (Tensor, Parameter) and not is_batched_by_autograd(x)


def deconv(input: Tensor, votes: Tensor, *rest) -> Tensor:
    """The op; the arguments are those of its schema."""
    maps = input, votes
    if _is_differentiated(maps):
        if functionalization_is_active():
            # it can't look into a torch.autograd.Function
            *numbers, formulation, _ = rest
            geometry = Geometry(*numbers)
            return standard_operators.dynamic_deconv2d(*maps, geometry, formulation)
        return _Deconv.apply(*maps, *rest)
    if isinstance(rest[3][0], TracedSide):
        output_size = torch.stack([side.tensor for side in rest[3]])
        return traced_op(*maps, *rest[:3], output_size, *rest[4:])
    return _execute(forward_op, _run, maps, rest)


def deconv_backward(
    grad: Tensor, input: Tensor, votes: Tensor, *rest
) -> tuple[Tensor, Tensor]:
    """Its backward pass; an empty tensor for what is not needed."""
    maps = grad, input, votes
    if _is_differentiated(maps):
        return _DeconvBackward.apply(*maps, *rest)
    return _execute(backward_op, _run_backward, maps, rest)


def _run_traced(input: Tensor, votes: Tensor, *rest) -> Tensor:
    return forward_op(input, votes, *rest[:3], rest[3].tolist(), *rest[4:])


LIBRARY.impl(traced_op, _run_traced, 'CompositeImplicitAutograd')
for _op, _kernel, _fake_kernel, _function, _vmap_of in (
    (forward_op, _run, _fake, _Deconv, _vmap),
    (backward_op, _run_backward, _fake_backward, _DeconvBackward, _vmap_backward),
):
    LIBRARY.impl(_op, _kernel, 'CompositeExplicitAutograd')
    register_fake(_op, _fake_kernel, LIBRARY)
    register_autograd(_op, _function, LIBRARY)
    # the transform is still at work there, so that apply must not be reached
    register_vmap(_op, functools.partial(_vmap_of, _op), LIBRARY)
    # apply asks for it at every call, and works it out where it is not at hand
    _function.forward.__signature__ = inspect.signature(_function.forward)
