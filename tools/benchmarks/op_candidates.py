# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The candidates of the op's benchmark (:mod:`benchmarks.op`): the backends, and
what else one could call."""

import math
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from pvd_mm.ops import dynamic_deconv2d, standard_operators
from pvd_mm.ops.backends import BACKENDS, why_not
from pvd_mm.ops.checks import FORMULATIONS, Geometry

KERNEL_SIZE = 3
KINDS = ('forward', 'forward+backward')
DTYPES = ('float32', 'float64', 'float16', 'bfloat16')


class Settings(NamedTuple):
    """What to measure.

    Args:
        sizes (Sequence[int]): Sides of the square input maps. Memory and
            Table 4 are of the largest.
        strides (Sequence[int]): Strides of the op.
        channels (int): Channels of the maps. Defaults to 19.
        device (str, optional): Defaults to None: 'cuda' where there is one,
            or else 'cpu'.
        dtype (str): One of ``DTYPES``. Defaults to 'float32'.
        formulation (str): See :func:`pvd_mm.ops.dynamic_deconv2d`.
        budget (float): Timed seconds for each candidate, size, stride and
            kind.
        least_runs (int): Samples that are taken even beyond the budget.
        step_pixels (int): The step update is timed on at most so many pixels.
        without (Sequence[str]): Names of candidates to leave out.
    """

    sizes: Sequence[int] = tuple(2**i for i in range(3, 11))
    strides: Sequence[int] = (1, 2)
    channels: int = 19
    device: str | None = None
    dtype: str = 'float32'
    formulation: str = 'exact'
    budget: float = 0.2
    least_runs: int = 5
    step_pixels: int = 1024
    without: Sequence[str] = ()


class Candidate(NamedTuple):
    """Something to time.

    Args:
        name (str): Its name in the results.
        forward (Callable): The forward pass, called without autograd.
        both (Callable): The forward and the backward pass.
        scale (float): What times and memory are multiplied by.
    """

    name: str
    forward: Callable[[], object]
    both: Callable[[], object]
    scale: float = 1.0

    def action(self, kind: str) -> Callable[[], object]:
        """The pass of this kind."""
        return self.forward if kind == 'forward' else self.both


def check(settings: Settings) -> Settings:
    """Resolve the device, sort sizes and strides, and refuse what can't be.

    Raises:
        ValueError: If a setting is out of range or not available here.
    """
    numbers = dict(
        sizes=settings.sizes,
        strides=settings.strides,
        channels=[settings.channels],
        least_runs=[settings.least_runs],
        step_pixels=[settings.step_pixels],
    )
    for name, values in numbers.items():
        if not values or min(values) < 1:
            raise ValueError(f'{name} must be at least 1, but got {values}')
    if not 0 < settings.budget < math.inf:
        raise ValueError(f'budget must be seconds > 0, but got {settings.budget}')
    choices = dict(dtype=DTYPES, formulation=FORMULATIONS)
    for name, allowed in choices.items():
        if getattr(settings, name) not in allowed:
            raise ValueError(
                f'{name} must be one of {list(allowed)}, but got '
                f'{getattr(settings, name)!r}'
            )
    known = (*BACKENDS, *PEERS)
    for name in settings.without:
        if name not in known:
            raise ValueError(f'without: {name!r} is none of {list(known)}')
    if 'matrix' in settings.without:
        raise ValueError('without: matrix is what the others are compared with')
    device = settings.device
    if device is None:
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
    try:
        kind, index = torch.device(device).type, torch.device(device).index
    except RuntimeError:
        kind = index = None
    if kind not in ('cpu', 'cuda'):
        raise ValueError(f'device must be cpu, cuda or cuda:N, but got {device!r}')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == 'cuda' and (index or 0) >= count:
        raise ValueError(f'device {device!r} is not there: torch finds {count} GPUs')
    return settings._replace(
        device=device,
        sizes=tuple(sorted(set(settings.sizes))),
        strides=tuple(sorted(set(settings.strides))),
    )


class _Case:
    """The tensors of one size and stride, which all candidates share."""

    def __init__(self, settings: Settings, size: int, stride: int) -> None:
        self.size, self.stride = size, stride
        self.channels = settings.channels
        self.device = torch.device(settings.device)
        self.dtype = getattr(torch, settings.dtype)
        self._generator = torch.Generator(self.device).manual_seed(0)
        self.input = self.leaf(1, self.channels, size, size)
        self.votes = self.leaf(1, KERNEL_SIZE**2, size, size)
        self.weight = self.leaf(self.channels, self.channels, KERNEL_SIZE, KERNEL_SIZE)
        self.output_size = (size * stride, size * stride)
        self.grad = self.leaf(1, self.channels, *self.output_size).detach()
        self.geometry = Geometry(
            KERNEL_SIZE, stride, KERNEL_SIZE // 2, self.output_size, 1
        )

    def leaf(self, *shape: int) -> Tensor:
        """Random numbers that gradients are taken by."""
        made = torch.rand(
            shape, generator=self._generator, dtype=self.dtype, device=self.device
        )
        return made.requires_grad_()

    def crop(self, pixels: int) -> tuple[int, tuple[Tensor, ...]]:
        """The side of a part of at most so many pixels; its input, votes and
        gradient."""
        side = min(self.size, math.isqrt(pixels))
        input, votes = (
            x.detach()[..., :side, :side].contiguous().requires_grad_()
            for x in (self.input, self.votes)
        )
        grad = self.grad[..., : side * self.stride, : side * self.stride]
        return side, (input, votes, grad.contiguous())


def traffic(channels: int, size: int, stride: int, itemsize: int) -> tuple[int, int]:
    """Bytes that the forward and the backward pass must at least read and
    write."""
    given = (channels + KERNEL_SIZE**2) * size**2 * itemsize
    output = channels * (size * stride) ** 2 * itemsize
    return given + output, output + 2 * given


def _by_autograd(
    name: str,
    function: Callable[..., Tensor],
    arguments: Sequence[Tensor],
    grad: Tensor,
    scale: float = 1.0,
) -> Candidate:
    def both() -> tuple:
        output = function(*arguments)
        return output, torch.autograd.grad(output, arguments, grad)

    return Candidate(name, lambda: function(*arguments), both, scale)


def _backend(name: str, case: _Case, settings: Settings) -> Candidate:
    arguments, grad, scale = (case.input, case.votes), case.grad, 1.0
    if name == 'reference':
        side, (*arguments, grad) = case.crop(settings.step_pixels)
        scale = (case.size / side) ** 2

    def function(input: Tensor, votes: Tensor) -> Tensor:
        return dynamic_deconv2d(
            input,
            votes,
            KERNEL_SIZE,
            case.stride,
            formulation=settings.formulation,
            backend=name,
        )

    return _by_autograd(name, function, arguments, grad, scale)


def _fold(case: _Case, settings: Settings) -> Candidate:
    def folded(columns: Tensor) -> Tensor:
        return F.fold(
            columns,
            case.output_size,
            KERNEL_SIZE,
            padding=KERNEL_SIZE // 2,
            stride=case.stride,
        )

    def exact(input: Tensor, votes: Tensor) -> Tensor:
        return folded((input[:, :, None] * votes[:, None]).flatten(3).flatten(1, 2))

    def factored(input: Tensor, votes: Tensor) -> Tensor:
        own = F.interpolate(input, scale_factor=case.stride)
        return own * folded(votes.flatten(2))

    function = exact if settings.formulation == 'exact' else factored
    return _by_autograd('fold', function, (case.input, case.votes), case.grad)


def _compiled(case: _Case, settings: Settings) -> Candidate:
    def function(input: Tensor, votes: Tensor) -> Tensor:
        return standard_operators.dynamic_deconv2d(
            input, votes, case.geometry, settings.formulation
        )

    torch.compiler.reset()  # every size is a program of its own
    function = torch.compile(function, fullgraph=True, dynamic=False)
    return _by_autograd('compiled', function, (case.input, case.votes), case.grad)


def _conv_transpose2d(case: _Case, settings: Settings) -> Candidate:
    def function(input: Tensor, weight: Tensor) -> Tensor:
        return F.conv_transpose2d(
            input,
            weight,
            stride=case.stride,
            padding=KERNEL_SIZE // 2,
            output_padding=case.stride - 1,
        )

    return _by_autograd(
        'conv_transpose2d', function, (case.input, case.weight), case.grad
    )


def _conv2d(case: _Case, settings: Settings) -> Candidate:
    def function(input: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(input, weight, stride=case.stride, padding=KERNEL_SIZE // 2)

    side = (case.size - 1) // case.stride + 1
    grad = case.leaf(1, case.channels, side, side).detach()
    return _by_autograd('conv2d', function, (case.input, case.weight), grad)


def _carafe(case: _Case, settings: Settings) -> Candidate:
    from mmcv.ops import carafe

    masks = case.leaf(1, KERNEL_SIZE**2, *case.output_size)

    def function(input: Tensor, masks: Tensor) -> Tensor:
        return carafe(input, masks, KERNEL_SIZE, 1, case.stride)

    return _by_autograd('carafe', function, (case.input, masks), case.grad)


def _copy(case: _Case, settings: Settings, fresh: bool = True) -> Candidate:
    # a copy reads its bytes and writes them, so it takes half of them
    halves = [
        each // 2
        for each in traffic(case.channels, case.size, case.stride, case.dtype.itemsize)
    ]
    source = torch.ones(max(halves), dtype=torch.uint8, device=case.device)
    target = None if fresh else torch.empty_like(source)

    def copy(half: int) -> Tensor:
        if fresh:
            return source[:half].clone()
        return target[:half].copy_(source[:half])

    return Candidate(
        'copy' if fresh else 'copy_reused',
        lambda: copy(halves[0]),
        lambda: (copy(halves[0]), copy(halves[1])),
    )


_PEERS = dict(
    fold=_fold,
    compiled=_compiled,
    conv_transpose2d=_conv_transpose2d,
    conv2d=_conv2d,
    carafe=_carafe,
    copy=_copy,
    copy_reused=partial(_copy, fresh=False),
)
PEERS = tuple(_PEERS)


def _why_not(name: str, case: _Case, formulation: str) -> str | None:
    """Why a candidate cannot run here, if it cannot."""
    if name == 'triton' and os.environ.get('TRITON_INTERPRET', '0') != '0':
        return "TRITON_INTERPRET is set, and an interpreter's speed says nothing"
    if name in BACKENDS:
        return why_not(name, case.input.device, case.dtype, formulation)
    if name == 'carafe' and case.device.type != 'cuda':
        return 'it runs on GPUs alone'
    return None


def _first_words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith('raised:')]
    return (lines or [type(error).__name__])[0][:200]


def _is_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        'not enough memory' in str(error) or "can't allocate memory" in str(error)
    )


def tolerated(name: str, error: Exception) -> str:
    """Why a candidate is left out after an error; errors of our own backends
    are none of those, but for memory."""
    if _is_memory(error):
        return 'out of memory'
    if name in PEERS:
        return _first_words(error)
    raise error


def make_candidates(
    settings: Settings, size: int, stride: int, largest: bool = False
) -> tuple[list[Candidate], dict[str, str]]:
    """The candidates at a size and stride.

    Args:
        settings (Settings): As :func:`check` returns them.
        size (int): Side of the input map.
        stride (int): Stride of the op.
        largest (bool): Also conv2d, which Table 4 alone has.
            Defaults to False.

    Returns:
        tuple[list[Candidate], dict[str, str]]: Those that run here, and by name
        why the others do not.
    """
    case = _Case(settings, size, stride)
    skipped = set(settings.without)
    if not largest:
        skipped.add('conv2d')
    if stride != 2 and case.device.type == 'cuda':
        skipped.add('carafe')
    backends = sorted(BACKENDS, key=lambda name: name != 'reference')
    candidates, left_out = [], {}
    for name in (*backends, *PEERS):
        if name in skipped:
            continue
        make = _PEERS.get(name) or partial(_backend, name)
        try:
            reason = _why_not(name, case, settings.formulation)
            if reason is None:
                candidates.append(make(case, settings))
        except Exception as error:
            reason = tolerated(name, error)
        if reason is not None:
            left_out[name] = reason
    return candidates, left_out
