# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What the dynamic deconvolution costs: Tables 3 and 4 and Fig. 8 of the paper
with all backends, next to what else one could call.

All contestants of one map size take turns in one process. Slow ones sit
rounds out, evenly, so that everyone's median is taken over the same minutes
of a machine that may be busy. Nothing of one call is alive in the next.

Every turn begins with an untimed call of the same contestant, whoever it is:
what is timed finds the caches, the allocator and the threads as its own
kind left them, not as the contestant before did.
"""

import datetime
import gc
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch

from pvd_mm.utils.machine import describe_processor
from pvd_mm.version import __version__

from .op_candidates import (
    KINDS,
    Contestant,
    Settings,
    check,
    contestants,
    tolerated,
)
from .op_report import best_backend, in_ms, label, summary

# One sample of a fast call is a loop of about this many seconds.
_SAMPLE = 5e-4


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


def time_all(
    entrants: Sequence[Contestant], kind: str, settings: Settings
) -> 'tuple[dict[str, dict], dict[str, str]]':
    """Time contestants in turn.

    Args:
        entrants (Sequence[Contestant]): Who takes turns.
        kind (str): One of ``KINDS``.
        settings (Settings): As :func:`.op_contestants.check` returns them.

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
            failed[one.name] = tolerated(one.name, error)
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
                action = one.action(kind)
                _seconds(action, 1, device)  # not timed
                samples[one.name].append(_seconds(action, repeats[one.name], device))
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
        from . import models  # noqa: F401
    except ImportError as error:
        left_out['memory'] = f'it is not measured: {error}'
    result = dict(
        machine=describe_processor(settings.device),
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
    result['best'] = best_backend(result)
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
                f'{label(name)} {in_ms(found["median_s"])}'
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
    from .models import peak_memory

    for one in entrants:
        mib = one.scale * peak_memory(one.action(place['kind']), settings.device)
        result['memory'].append(
            dict(name=one.name, **place, peak_mib=mib, scale=one.scale)
        )
