# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Every argument check of the op, once, in front of all backends."""

from collections.abc import Sequence
from collections.abc import Sequence as SequenceType
from typing import NamedTuple

import torch
from torch import Tensor

from .tracing import TracedSide, sizes_of, traced_side

FORMULATIONS = ('exact', 'factored')


class Geometry(NamedTuple):
    """What a backend needs to know besides the two tensors, in the order of
    the op's arguments."""

    kernel_size: int
    stride: int
    padding: int
    output_size: tuple[int, int]
    groups: int


def format_like(tensor: Tensor) -> torch.memory_format:
    """What a result is laid out as: like its argument, as a convolution's."""
    last = tensor.is_contiguous(memory_format=torch.channels_last)
    if tensor.is_contiguous() if not last else not tensor.is_contiguous():
        return torch.channels_last if last else torch.contiguous_format
    # both, of one channel or pixel, or neither, a part of a map: the strides tell
    if _has_strides_of_channels_last(tensor):
        return torch.channels_last
    return torch.contiguous_format


def _has_strides_of_channels_last(tensor: Tensor) -> bool:
    """What a convolution asks of a map (N, C, H, W): the channels vary fastest, then
    columns, rows and images."""
    sides, strides = tensor.shape, tensor.stride()
    if 0 in sides or strides[1] == 0:
        return False
    least = 0
    for dim in (1, 3, 2, 0):
        if strides[dim] < least or (dim == 0 and least == strides[1]):
            return False
        least = strides[dim] * sides[dim]
    return True


def laid_out_like(tensor: Tensor, like: Tensor) -> Tensor:
    """The tensor (N, C, H, W) in the format of ``like``, to the very strides."""
    if format_like(like) == torch.contiguous_format:
        return tensor.contiguous()
    tensor = tensor.contiguous(memory_format=torch.channels_last)
    _, channels, height, width = tensor.shape
    row = width * channels
    strides = height * row, 1, row, channels
    # those of a single channel or pixel may be anything
    return (
        tensor
        if tensor.stride() == strides
        else tensor.as_strided(tensor.shape, strides)
    )


def check_integer(name: str, value, least: int) -> int:
    """The value as it is, if it is an int of at least ``least``.

    Raises:
        TypeError: If it is not an int.
        ValueError: If it is less.
    """
    if isinstance(value, Tensor) and torch.jit.is_tracing():
        value = traced_side(value)
    if isinstance(value, bool) or not isinstance(value, (int, torch.SymInt)):
        raise TypeError(
            f'{name} must be an int, but got {value!r} of type {type(value).__name__}'
        )
    if value < least:
        raise ValueError(f'{name} must be at least {least}, but got {value}')
    return value


def check_odd(name: str, value) -> None:
    """Raise unless ``value`` can be the side of a convolution that keeps a
    map's size."""
    if check_integer(name, value, 1) % 2 == 0:
        raise ValueError(f'{name} must be odd, but got {value}')


def check_kernel(
    kernel_size: int, stride: int, padding: int | None, groups: int
) -> int:
    """Check the numbers a module is built with; returns the padding.

    Raises:
        TypeError: If one of them is not an int.
        ValueError: If ``kernel_size`` is even, or one is out of range.
    """
    check_integer('kernel_size', kernel_size, 1)
    if kernel_size % 2 == 0:
        raise ValueError(
            'kernel_size must be odd, so that a window has a '
            f'centre, but got {kernel_size}'
        )
    check_integer('stride', stride, 1)
    check_integer('groups', groups, 1)
    if padding is None:
        return (kernel_size - 1) // 2
    return check_integer('padding', padding, 0)


def check_choice(name: str, value, allowed: Sequence) -> None:
    """Raise a ``ValueError`` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f'{name} must be one of {list(allowed)}, but got {value!r}')


def check_not_negative(name: str, value) -> None:
    """Raise a ``ValueError`` if ``value`` is below zero."""
    if value < 0:
        raise ValueError(f'{name} must not be negative, but got {value}')


def check_positive(name: str, value) -> None:
    """Raise a ``ValueError`` unless ``value`` is above zero."""
    if not value > 0:
        raise ValueError(f'{name} must be positive, but got {value}')


def _check_tensors(input: Tensor, votes: Tensor) -> None:
    for name, tensor in (('input', input), ('votes', votes)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f'{name} must be a Tensor, but got {type(tensor).__name__}')
        if tensor.dim() != 4:
            raise ValueError(
                f'{name} must have 4 dimensions (N, C, H, W), '
                f'but got shape {tuple(tensor.shape)}'
            )
        if not tensor.is_floating_point() or tensor.dtype.itemsize < 2:
            raise TypeError(
                f'{name} must be a floating point tensor of 16 '
                f'bits or more, but got {tensor.dtype}'
            )
        if tensor.layout != torch.strided:
            raise TypeError(
                f'{name} must be a dense tensor, but its layout is {tensor.layout}'
            )
    if input.device != votes.device:
        raise ValueError(
            'input and votes must be on one device, but got '
            f'{input.device} and {votes.device}'
        )
    if input.dtype != votes.dtype:
        raise TypeError(
            'input and votes must have one dtype, but got '
            f'{input.dtype} and {votes.dtype}'
        )


def _check_sizes(
    input: Sequence[int], votes: Sequence[int], kernel_size: int, groups: int
) -> None:
    if input[1] % groups:
        raise ValueError(
            f'groups must divide the {input[1]} channels '
            f'of input, but got groups={groups}'
        )
    expected = groups * kernel_size**2
    if votes[1] != expected:
        raise ValueError(
            f'votes must have groups * kernel_size**2 = {groups} * '
            f'{kernel_size}**2 = {expected} channels, but got '
            f'{votes[1]}'
        )
    if (input[0], *input[2:]) != (votes[0], *votes[2:]):
        raise ValueError(
            'votes must have the batch size, height and width of input, but '
            f'got votes {votes} for input {input}'
        )


def _check_output_size(
    size: Sequence[int], output_size, kernel_size: int, stride: int, padding: int
) -> tuple[int, int]:
    least = tuple((side - 1) * stride - 2 * padding + kernel_size for side in size)
    most = tuple(side + stride - 1 for side in least)
    if output_size is None:
        if min(most) < 0:
            raise ValueError(
                f'padding={padding} leaves nothing of an input of '
                f'{size} with kernel_size={kernel_size} '
                f'and stride={stride}'
            )
        return most
    if (
        not isinstance(output_size, SequenceType)
        or isinstance(output_size, str)
        or len(output_size) != 2
    ):
        raise ValueError(
            f'output_size must be (height, width), but got {output_size!r}'
        )
    sides = tuple(
        check_integer('each side of output_size', side, 0) for side in output_size
    )
    for side, low, high in zip(sides, least, most):
        if not max(low, 0) <= side <= high:
            raise ValueError(
                f'output_size must be between {least} and {most} for an '
                f'input of {size} with kernel_size='
                f'{kernel_size}, stride={stride} and padding={padding}, but '
                f'got {sides}'
            )
    return sides


def check_arguments(
    input: Tensor,
    votes: Tensor,
    kernel_size: int,
    stride: int,
    padding: int | None,
    output_size: Sequence[int] | None,
    groups: int,
    formulation: str,
) -> Geometry:
    """Check all arguments of the op; returns the resolved geometry.

    Raises:
        TypeError: If a tensor is not dense or not floating point, the dtypes
            differ, or a number is not an int.
        ValueError: If sizes, channels, devices or numbers don't fit.
    """
    padding = check_kernel(kernel_size, stride, padding, groups)
    check_choice('formulation', formulation, FORMULATIONS)
    _check_tensors(input, votes)
    sizes = sizes_of(input)
    _check_sizes(sizes, sizes_of(votes), kernel_size, groups)
    output_size = _check_output_size(
        sizes[2:], output_size, kernel_size, stride, padding
    )
    if isinstance(sizes[2], TracedSide):
        output_size = tuple(map(traced_side, output_size))
    return Geometry(kernel_size, stride, padding, output_size, groups)
