# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What the dynamic deconvolution costs: Tables 3 and 4 and Fig. 8 of the paper
with all backends, next to what else one could call.

All contestants of one map size take turns in one process. Slow ones sit
rounds out, evenly, so that everyone's median is taken over the same minutes
of a machine that may be busy. Nothing of one call is alive in the next.
"""

import datetime
import gc
import importlib
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NamedTuple, Optional

import torch
import torch.nn.functional as F
from torch import Tensor

from pvd_mm.ops import dynamic_deconv2d, standard
from pvd_mm.ops.backends import BACKENDS, FASTEST
from pvd_mm.ops.checks import FORMULATIONS, Geometry
from pvd_mm.version import __version__

MIB = 2**20
KERNEL_SIZE = 3
KINDS = ('forward', 'forward+backward')
DTYPES = ('float32', 'float64', 'float16', 'bfloat16')
PEERS = (
    'fold',
    'compiled',
    'conv_transpose2d',
    'conv2d',
    'carafe',
    'copy',
    'copy_reused',
)
FILES = ('op_speed.json', 'op_speed.md', 'fig8.png')

LABELS = {
    'reference': 'step update',
    'fold': 'F.fold',
    'compiled': 'torch.compile',
    'carafe': 'CARAFE',
    'copy_reused': 'copy, no allocation',
}
NOTES = {
    'reference': 'the step update of the paper, a loop over the pixels; ≈: timed on '
    'a part of {crop}×{crop} pixels of the map and multiplied up to all of them',
    'fold': 'the products as k²·C columns, summed by `F.fold`',
    'compiled': 'the sum of `matrix` in operators that are not in place '
    '(`pvd_mm.ops.standard`), compiled by inductor for each size; inductor makes '
    'slower code of the in-place form',
    'conv_transpose2d': '{channels}→{channels} channels, k = 3, the same stride',
    'conv2d': '{channels}→{channels} channels, k = 3, the same stride',
    'carafe': "mmcv's, k = 3, at scale 2; its masks have the size of the output",
    'copy': 'into fresh memory, as many bytes read and written together as the op '
    'must at least: input, votes and output once each; backward the gradients and '
    'the same tensors once each',
    'copy_reused': 'the same into memory that is there already',
}

# One sample of a fast call is a loop of about this many seconds.
_SAMPLE = 5e-4


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
        budget (float): Seconds for each contestant, size, stride and kind.
        least_runs (int): Samples that are taken even beyond the budget.
        step_pixels (int): The step update is timed on at most so many pixels.
        without (Sequence[str]): Contestants to leave out.
    """

    sizes: Sequence[int] = tuple(2**i for i in range(3, 11))
    strides: Sequence[int] = (1, 2)
    channels: int = 19
    device: Optional[str] = None
    dtype: str = 'float32'
    formulation: str = 'exact'
    budget: float = 0.2
    least_runs: int = 5
    step_pixels: int = 1024
    without: Sequence[str] = ()


class Contestant(NamedTuple):
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


def check_folder(out: str, force: bool = False) -> Path:
    """The folder for the results, which need not exist.

    Raises:
        ValueError: If it is a file, or holds results and ``force`` is False.
    """
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f'{out} is not a folder')
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise ValueError(
            f'{out} already holds {", ".join(there)}; take another folder, or '
            '--force to replace them'
        )
    return folder


class _Case:
    """The tensors of one size and stride, which all contestants share."""

    def __init__(self, settings: Settings, size: int, stride: int) -> None:
        self.size, self.stride = size, stride
        self.channels = settings.channels
        self.device = torch.device(settings.device)
        self.dtype = getattr(torch, settings.dtype)
        self._generator = torch.Generator(self.device).manual_seed(0)
        self.input = self.leaf(1, self.channels, size, size)
        self.votes = self.leaf(1, KERNEL_SIZE**2, size, size)
        self.weight = self.leaf(
            self.channels, self.channels, KERNEL_SIZE, KERNEL_SIZE
        )
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

    def crop(self, pixels: int) -> 'tuple[int, tuple[Tensor, ...]]':
        """The side of a part of at most so many pixels; its input, votes and
        gradient."""
        side = min(self.size, math.isqrt(pixels))
        input, votes = (
            x.detach()[..., :side, :side].contiguous().requires_grad_()
            for x in (self.input, self.votes)
        )
        grad = self.grad[..., : side * self.stride, : side * self.stride]
        return side, (input, votes, grad.contiguous())


def traffic(channels: int, size: int, stride: int, itemsize: int) -> 'tuple[int, int]':
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
) -> Contestant:
    def both() -> tuple:
        output = function(*arguments)
        return output, torch.autograd.grad(output, arguments, grad)

    return Contestant(name, lambda: function(*arguments), both, scale)


def _backend(name: str, case: _Case, settings: Settings) -> Contestant:
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


def _fold(case: _Case, settings: Settings) -> Contestant:
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


def _compiled(case: _Case, settings: Settings) -> Contestant:
    def function(input: Tensor, votes: Tensor) -> Tensor:
        return standard.dynamic_deconv2d(
            input, votes, case.geometry, settings.formulation
        )

    torch.compiler.reset()  # every size is a program of its own
    function = torch.compile(function, fullgraph=True, dynamic=False)
    return _by_autograd('compiled', function, (case.input, case.votes), case.grad)


def _conv_transpose2d(case: _Case, settings: Settings) -> Contestant:
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


def _conv2d(case: _Case, settings: Settings) -> Contestant:
    def function(input: Tensor, weight: Tensor) -> Tensor:
        return F.conv2d(input, weight, stride=case.stride, padding=KERNEL_SIZE // 2)

    side = (case.size - 1) // case.stride + 1
    grad = case.leaf(1, case.channels, side, side).detach()
    return _by_autograd('conv2d', function, (case.input, case.weight), grad)


def _carafe(case: _Case, settings: Settings) -> Contestant:
    from mmcv.ops import carafe

    masks = case.leaf(1, KERNEL_SIZE**2, *case.output_size)

    def function(input: Tensor, masks: Tensor) -> Tensor:
        return carafe(input, masks, KERNEL_SIZE, 1, case.stride)

    return _by_autograd('carafe', function, (case.input, masks), case.grad)


def _copy(case: _Case, settings: Settings, fresh: bool = True) -> Contestant:
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

    return Contestant(
        'copy' if fresh else 'copy_reused',
        lambda: copy(halves[0]),
        lambda: (copy(halves[0]), copy(halves[1])),
    )


def _copy_reused(case: _Case, settings: Settings) -> Contestant:
    return _copy(case, settings, fresh=False)


def _missing_backend(name: str, case: _Case) -> Optional[str]:
    if name == 'triton' and os.environ.get('TRITON_INTERPRET', '0') != '0':
        return "TRITON_INTERPRET is set, and an interpreter's speed says nothing"
    module = importlib.import_module(f'pvd_mm.ops.backends.{name}')
    return module.why_not(case.device, case.dtype)


def contestants(
    settings: Settings, size: int, stride: int, largest: bool = False
) -> 'tuple[list[Contestant], dict[str, str]]':
    """Who takes part at one size and stride.

    Args:
        settings (Settings): As :func:`check` returns them.
        size (int): Side of the input map.
        stride (int): Stride of the op.
        largest (bool): Also conv2d, which Table 4 alone has.
            Defaults to False.

    Returns:
        tuple[list[Contestant], dict[str, str]]: Who does, and why the others
        do not.
    """
    case = _Case(settings, size, stride)
    found, left_out = [], {}

    def add(name: str, reason: Optional[str], make: Callable[[], Contestant]) -> None:
        if name in settings.without:
            return
        try:
            if reason is None:
                found.append(make())
        except Exception as error:
            reason = _tolerated(name, error)
        if reason is not None:
            left_out[name] = reason

    order = sorted(BACKENDS, key=lambda name: name != 'reference')
    for name in order:
        add(
            name,
            _missing_backend(name, case),
            lambda name=name: _backend(name, case, settings),
        )
    add('fold', None, lambda: _fold(case, settings))
    add('compiled', None, lambda: _compiled(case, settings))
    add('conv_transpose2d', None, lambda: _conv_transpose2d(case, settings))
    if largest:
        add('conv2d', None, lambda: _conv2d(case, settings))
    if stride == 2 or case.device.type != 'cuda':
        reason = None if case.device.type == 'cuda' else 'it runs on GPUs alone'
        add('carafe', reason, lambda: _carafe(case, settings))
    add('copy', None, lambda: _copy(case, settings))
    add('copy_reused', None, lambda: _copy_reused(case, settings))
    return found, left_out


def _seconds(action: Callable[[], object], repeats: int, device: str) -> float:
    """Seconds of a call, the mean of a loop. What a call returns is freed
    before the next."""
    if not device.startswith('cuda'):
        start = time.perf_counter()
        for _ in range(repeats):
            action()
        return (time.perf_counter() - start) / repeats
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        action()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / repeats


def _first_words(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lines = [line for line in lines if not line.endswith('raised:')]
    return (lines or [type(error).__name__])[0][:200]


def _is_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or (
        'not enough memory' in str(error) or "can't allocate memory" in str(error)
    )


def _tolerated(name: str, error: Exception) -> str:
    """Why a contestant is left out after an error; errors of our own backends
    are none of those, but for memory."""
    if _is_memory(error):
        return 'out of memory'
    if name in PEERS:
        return _first_words(error)
    raise error


def time_all(
    entrants: Sequence[Contestant], kind: str, settings: Settings
) -> 'tuple[dict[str, dict], dict[str, str]]':
    """Time contestants in turn.

    Args:
        entrants (Sequence[Contestant]): Who takes turns.
        kind (str): One of ``KINDS``.
        settings (Settings): As :func:`check` returns them.

    Returns:
        tuple[dict[str, dict], dict[str, str]]: By name ``median_s``,
        ``best_s``, ``quartiles_s``, ``samples``, ``calls`` per sample and
        ``scale``, which is in the times already; and who failed, and why.
    """
    samples, repeats, rounds, failed = {}, {}, {}, {}
    device = settings.device
    for one in entrants:
        action = one.action(kind)
        try:
            _seconds(action, 1, device)  # compiles, and warms up
            seconds = _seconds(action, 1, device)
        except Exception as error:
            failed[one.name] = _tolerated(one.name, error)
            continue
        repeats[one.name] = max(1, math.ceil(_SAMPLE / max(seconds, 1e-9)))
        samples[one.name] = [seconds] if repeats[one.name] == 1 else []
        rounds[one.name] = max(
            settings.least_runs - len(samples[one.name]),
            round(settings.budget / (seconds * repeats[one.name])),
        )
    most = max(rounds.values(), default=0)
    for turn in range(most):
        for one in entrants:
            if one.name not in rounds:
                continue
            n = rounds[one.name]  # of `most` turns, evenly
            if (turn + 1) * n // most > turn * n // most:
                samples[one.name].append(
                    _seconds(one.action(kind), repeats[one.name], device)
                )
    scales = {one.name: one.scale for one in entrants}
    results = {}
    for name, raw in samples.items():
        scaled = sorted(value * scales[name] for value in raw)
        spread = (
            statistics.quantiles(scaled, n=4, method='inclusive')
            if len(scaled) > 1
            else scaled
        )
        results[name] = dict(
            median_s=statistics.median(scaled),
            best_s=scaled[0],
            quartiles_s=[spread[0], spread[-1]],
            samples=len(scaled),
            calls=repeats[name],
            scale=scales[name],
        )
    return results, failed


def measure(
    settings: Settings, report: Callable[[str], None] = print, command: str = ''
) -> dict:
    """Measure everything.

    Args:
        settings (Settings): What to measure.
        report (Callable): Called with a line after each size, stride and kind.
        command (str): How this was called, to be kept with the results.

    Returns:
        dict: ``machine``, ``settings``, versions and date; ``times``, a dict
        for each contestant, size, stride and kind; ``memory``, likewise at
        the largest size; ``left_out``, who and why; ``summary``.
    """
    settings = check(settings)
    started = time.time()
    left_out = {}
    try:
        from . import speed  # noqa: F401
    except ImportError as error:
        left_out['memory'] = f'it is not measured: {error}'
    result = dict(
        machine=machine(settings.device),
        torch=torch.__version__,
        pvd_mm=__version__,
        python=platform.python_version(),
        date=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec='seconds'),
        command=command,
        threads=torch.get_num_threads(),
        settings=settings._asdict(),
        times=[],
        memory=[],
        left_out=left_out,
    )
    # conv_transpose2d at its best, but without TF32, which nothing else has
    flags = torch.backends.cudnn.flags(
        enabled=True, benchmark=True, deterministic=False, allow_tf32=False
    )
    on_gpu = settings.device.startswith('cuda')
    try:  # what is there so far stays, so that collecting garbage is quick
        gc.collect()
        gc.freeze()
        with flags, torch.cuda.device(settings.device) if on_gpu else nullcontext():
            _measure_cases(settings, report, result)
    finally:
        gc.unfreeze()
    result['best'] = _best(result)
    result['seconds'] = round(time.time() - started, 1)
    result['summary'] = summary(result)
    return result


def _measure_cases(
    settings: Settings, report: Callable[[str], None], result: dict
) -> None:
    started = time.time()
    cases = [(size, stride) for size in settings.sizes for stride in settings.strides]
    for number, (size, stride) in enumerate(cases):
        largest = size == settings.sizes[-1]
        entrants, left_out = contestants(settings, size, stride, largest)
        for name, reason in left_out.items():
            result['left_out'].setdefault(name, reason)
        for kind in KINDS:
            place = dict(size=size, stride=stride, kind=kind)
            gc.collect()
            with torch.set_grad_enabled(kind != 'forward'):
                times, failed = time_all(entrants, kind, settings)
                entrants = [one for one in entrants if one.name not in failed]
                if largest:
                    _add_memory(entrants, settings, place, result)
            for name, reason in failed.items():
                place_name = f'from {size}², stride {stride}, {kind} on'
                result['left_out'].setdefault(name, f'{reason} ({place_name})')
            result['times'] += [
                dict(name=name, **place, **found) for name, found in times.items()
            ]
            shown = ', '.join(
                f'{label(name)} {_ms(found["median_s"])}'
                for name, found in times.items()
            )
            report(
                f'[{number + 1}/{len(cases)}, {time.time() - started:.0f} s] '
                f'{size}², stride {stride}, {kind}: {shown} (ms)'
            )
        del entrants
        gc.collect()
        if settings.device.startswith('cuda'):
            torch.cuda.empty_cache()


def _add_memory(
    entrants: Sequence[Contestant], settings: Settings, place: dict, result: dict
) -> None:
    """Measure the MiB that torch holds at most, beyond what was given."""
    if 'memory' in result['left_out']:
        return
    from .speed import peak_memory

    for one in entrants:
        mib = one.scale * peak_memory(one.action(place['kind']), settings.device)
        result['memory'].append(
            dict(name=one.name, **place, peak_mib=mib, scale=one.scale)
        )


def machine(device: str) -> str:
    """The machine in words."""
    if device.startswith('cuda'):
        return torch.cuda.get_device_name(device)
    name = platform.processor() or platform.machine()
    try:
        for line in Path('/proc/cpuinfo').read_text().splitlines():
            if line.startswith('model name'):
                name = line.split(':', 1)[1].strip()
                break
    except OSError:
        pass
    return f'{name} ({platform.machine()}, {os.cpu_count()} CPUs)'


def label(name: str) -> str:
    """What the tables call a contestant."""
    return LABELS.get(name, name)


def _times(result: dict) -> dict:
    return {
        (one['name'], one['size'], one['stride'], one['kind']): one['median_s']
        for one in result['times']
    }


def _best(result: dict) -> str:
    """The backend that all are compared with: what 'auto' takes."""
    device = torch.device(result['settings']['device']).type
    names = {one['name'] for one in result['times']}
    for name in (FASTEST.get(device), 'matrix', *BACKENDS):
        if name in names:
            return name
    return ''


def _mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def summary(result: dict) -> 'list[dict]':
    """Ratios in few numbers, as far as what they need was measured.

    Returns:
        list[dict]: Dicts of ``what`` and ``value``.
    """
    times, settings, best = _times(result), result['settings'], result['best']
    sizes, strides = settings['sizes'], settings['strides']
    lines = []

    def add(what: str, value: float) -> None:
        lines.append(dict(what=what, value=value))

    def ratios(
        over: str, under: str, kind: str, sizes: Sequence[int], strides: Sequence[int]
    ) -> 'list[float]':
        wanted = [(size, stride) for size in sizes for stride in strides]
        keys = [((over, *at, kind), (under, *at, kind)) for at in wanted]
        return [times[a] / times[b] for a, b in keys if a in times and b in times]

    middle = [size for size in sizes if 128 <= size <= 512]
    small = [size for size in sizes if 8 <= size <= 64]
    every = [(f'stride {stride}', [stride]) for stride in strides]
    every += [('all strides', strides)] if len(strides) > 1 else []
    for kind in KINDS:
        for other in ('matrix', 'conv_transpose2d', 'compiled'):
            if other == best:
                continue
            for words, chosen in every:
                found = ratios(other, best, kind, middle, chosen)
                if found:
                    add(
                        f'{label(other)} / {best}, {kind}, {middle[0]}² to '
                        f'{middle[-1]}², {words}, geometric mean',
                        _mean(found),
                    )
    for kind in KINDS:
        for copy in ('copy', 'copy_reused'):
            for stride in strides:
                for ratio in ratios(best, copy, kind, [512], [stride]):
                    add(f'{best} / {label(copy)}, {kind}, 512², stride {stride}', ratio)
    for kind in KINDS:
        for stride in strides:
            for size in small:
                for ratio in ratios(best, 'conv_transpose2d', kind, [size], [stride]):
                    add(
                        f'{best} / conv_transpose2d, {kind}, {size}², '
                        f'stride {stride}',
                        ratio,
                    )
        found = ratios(
            'conv_transpose2d', best, kind, [s for s in sizes if s >= 64], strides
        )
        if found:
            add(f'conv_transpose2d / {best}, {kind}, from 64² up, least', min(found))
    itemsize = getattr(torch, settings['dtype']).itemsize
    forward, both = KINDS
    for stride in strides:
        place = f'{sizes[-1]}², stride {stride}'
        seconds = {
            (name, kind): times.get((name, sizes[-1], stride, kind))
            for name in (best, 'copy_reused')
            for kind in KINDS
        }
        if None in seconds.values():
            continue
        copy = seconds['copy_reused', forward]
        moved = traffic(settings['channels'], sizes[-1], stride, itemsize)[0]
        add(f'copy bandwidth at {place}, GB/s', moved / copy / 1e9)
        add(f'{best}, share of that, forward, {place}', copy / seconds[best, forward])
        backward = [
            seconds[name, both] - seconds[name, forward]
            for name in ('copy_reused', best)
        ]
        if min(backward) > 0:
            add(
                f'{best}, share of that, backward (forward+backward less forward), '
                f'{place}',
                backward[0] / backward[1],
            )
    return lines


def _ms(seconds: Optional[float], scaled: bool = False) -> str:
    if seconds is None:
        return '–'
    ms = seconds * 1e3
    text = f'{ms:,.0f}' if ms >= 100 else f'{ms:.3g}'
    return '≈ ' + text if scaled else text


def _ratio(over: Optional[float], under: Optional[float]) -> str:
    if over is None or not under:
        return '–'
    value = over / under
    return f'{value:,.0f}' if value >= 100 else f'{value:.2f}'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ['---'] + ['---:'] * (len(head) - 1), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


class _Tables:
    """The tables of a result."""

    def __init__(self, result: dict) -> None:
        self.result = result
        self.times = _times(result)
        self.scaled = {
            (one['name'], one['size'], one['stride'])
            for one in result['times']
            if one['scale'] != 1
        }
        self.best = result['best']
        self.sizes = result['settings']['sizes']
        self.strides = result['settings']['strides']
        self.names = list(dict.fromkeys(one['name'] for one in result['times']))
        self.backends = [name for name in self.names if name in BACKENDS]

    def cell(self, name: str, size: int, stride: int, kind: str) -> 'tuple[str, str]':
        """A time, and its ratio to the best backend's."""
        seconds = self.times.get((name, size, stride, kind))
        base = self.times.get((self.best, size, stride, kind))
        scaled = (name, size, stride) in self.scaled
        return _ms(seconds, scaled), _ratio(seconds, base)

    def by_size(self, names: Sequence[str], strides: Sequence[int], kind: str) -> str:
        """Rows of sizes, columns of contestants and their ratios."""
        head, columns = ['input'], []
        for stride in strides:
            for name in names:
                mark = f', s = {stride}' if len(strides) > 1 else ''
                head.append(label(name) + mark)
                columns.append((name, stride, 0))
                if name != self.best:
                    head.append('ratio')
                    columns.append((name, stride, 1))
        rows = [
            [f'{size}²']
            + [self.cell(name, size, stride, kind)[i] for name, stride, i in columns]
            for size in reversed(self.sizes)
        ]
        return _table(head, rows)

    def table_4(self, kind: str) -> str:
        """Rows of contestants at the largest size; time and memory."""
        size = self.sizes[-1]
        memory = {
            (one['name'], one['stride']): one['peak_mib']
            for one in self.result['memory']
            if one['kind'] == kind
        }
        head = ['']
        for what in ('ms', 'peak MiB'):
            for stride in self.strides:
                head += [f'{what}, s = {stride}', 'ratio']
        first = ('conv2d', 'conv_transpose2d')
        names = [name for name in first if name in self.names]
        names += [name for name in self.names if name not in first]
        rows = []
        for name in names:
            row = [label(name)]
            for stride in self.strides:
                row += self.cell(name, size, stride, kind)
            for stride in self.strides:
                mib = memory.get((name, stride))
                scaled = (name, size, stride) in self.scaled
                row += [
                    '–' if mib is None else ('≈ ' if scaled else '') + f'{mib:,.1f}',
                    _ratio(mib, memory.get((self.best, stride))),
                ]
            rows.append(row)
        results = ['what a pass of the op returns'] + ['–'] * 2 * len(self.strides)
        for stride in self.strides:
            mib = _results_mib(self.result['settings'], stride, kind)
            base = memory.get((self.best, stride))
            results += [f'{mib:,.1f}', _ratio(mib, base)]
        return _table(head, [*rows, results])


def _results_mib(settings: dict, stride: int, kind: str) -> float:
    size, channels = settings['sizes'][-1], settings['channels']
    numbers = channels * (size * stride) ** 2
    if kind != 'forward':
        numbers += (channels + KERNEL_SIZE**2) * size**2
    return numbers * getattr(torch, settings['dtype']).itemsize / MIB


def markdown(result: dict) -> str:
    """The results of :func:`measure` as Markdown."""
    tables, settings = _Tables(result), result['settings']
    best, size = result['best'], settings['sizes'][-1]
    threads = '' if settings['device'].startswith('cuda') else (
        f', {result["threads"]} threads'
    )
    parts = [
        f'{result["machine"]}{threads}; torch {result["torch"]}, pvd_mm '
        f'{result["pvd_mm"]}, {result["date"][:10]}. {settings["dtype"]}, '
        f'{settings["channels"]} channels, k = {KERNEL_SIZE}, formulation '
        f'`{settings["formulation"]}`; medians in ms, everything in turn in one '
        f'process; ratio: to `{best}`, so that more than 1 is slower than it.'
    ]
    if result['command']:
        parts.append(f'```shell\n{result["command"]}\n```')
    for kind in KINDS:
        parts += [
            f'**Table 3, {kind}.** Step update and backends, by size and stride s '
            'of the input map.',
            tables.by_size(tables.backends, tables.strides, kind),
        ]
    for kind in KINDS:
        parts += [
            f'**Table 4, {kind}.** At {size}²: time, and the memory that is '
            'allocated at most, beyond the arguments.',
            tables.table_4(kind),
        ]
    peers = [best] + [
        name for name in tables.names if name in PEERS and name != 'conv2d'
    ]
    for stride in tables.strides:
        there = {name for name, _, at, _ in tables.times if at == stride}
        for kind in KINDS:
            parts += [
                f'**Peers, stride {stride}, {kind}.**',
                tables.by_size(
                    [name for name in peers if name in there], [stride], kind
                ),
            ]
    parts += ['**In short.**', _table(['', ''], _summary_rows(result))]
    crop = math.isqrt(settings['step_pixels'])
    notes = [
        f'- {label(name)}: ' + NOTES[name].format(
            crop=crop, channels=settings['channels']
        )
        for name in tables.names
        if name in NOTES
    ]
    notes += [
        f'- {label(name)} is left out: {reason}'
        for name, reason in result['left_out'].items()
    ]
    notes += [f'- {label(name)} is left out: asked to' for name in settings['without']]
    parts.append('\n'.join(notes))
    return '\n\n'.join(parts) + '\n'


def _summary_rows(result: dict) -> 'list[list[str]]':
    return [[one['what'], f'{one["value"]:.3g}'] for one in result['summary']]


def summary_text(result: dict) -> str:
    """The summary, a line each."""
    return '\n'.join(f'{value:>8}  {what}' for what, value in _summary_rows(result))


def draw(result: dict, path: str) -> None:
    """Fig. 8: Table 3 in log scale. Needs matplotlib.

    Args:
        result (dict): What :func:`measure` returned.
        path (str): Where to write the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tables = _Tables(result)
    figure = Figure(figsize=(11, 4.5), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(KINDS), sharey=True)
    for panel, kind in zip(panels, KINDS):
        for i, name in enumerate(tables.backends):
            for j, stride in enumerate(tables.strides):
                line = [
                    (size, tables.times[name, size, stride, kind] * 1e3)
                    for size in tables.sizes
                    if (name, size, stride, kind) in tables.times
                ]
                panel.plot(
                    *zip(*line),
                    color=f'C{i}',
                    linestyle=['-', '--', ':', '-.'][j % 4],
                    marker='o',
                    markersize=4,
                    label=f'{label(name)}, stride {stride}',
                )
        panel.set_xscale('log', base=2)
        panel.set_yscale('log')
        panel.set_xticks(tables.sizes, [f'{size}²' for size in tables.sizes])
        panel.set_xlabel('input map')
        panel.set_title(kind)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel('ms')
    panels[0].legend(fontsize='small')
    figure.savefig(path)


def write(result: dict, folder: Path) -> 'list[Path]':
    """Write ``op_speed.json``, ``op_speed.md`` and, where matplotlib is
    installed, ``fig8.png``.

    Returns:
        list[Path]: What was written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    data, text, picture = (folder / name for name in FILES)
    data.write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
    text.write_text(markdown(result), encoding='utf-8')
    try:
        draw(result, str(picture))
    except ImportError:
        return [data, text]
    return [data, text, picture]
