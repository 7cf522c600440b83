# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What the dynamic deconvolution costs: Tables 3 and 4 and Fig. 8 of the paper
with all backends, next to what else one could call.

All candidates of one map size take turns in one process, the slow ones less often (see
:mod:`pvd_mm.utils.timing`). Nothing of one call is alive in the next.

Every turn begins with an untimed call of the same candidate, whichever it is: what is
timed finds the caches, the allocator and the threads as its own kind left them, not as
the candidate before did.
"""

import datetime
import gc
import math
import platform
import statistics
import time
from collections.abc import Callable, Sequence

import torch

from pvd_mm.utils.machine import describe_processor
from pvd_mm.utils.timing import current_device, take_turns, time_calls
from pvd_mm.version import __version__

from .memory import peak_memory
from .op_candidates import KINDS, Candidate, Settings, check, make_candidates, tolerated
from .op_report import best_backend, in_ms, label, summary

# One sample of a fast call is a loop of about this many seconds; longer on a GPU, whose
# samples end with waiting for it, some microseconds.
_SAMPLE = dict(cpu=5e-4, cuda=5e-3)


def time_candidates(
    candidates: Sequence[Candidate], kind: str, settings: Settings
) -> tuple[dict[str, dict], dict[str, str]]:
    """Time candidates in turn, on the current device.

    Args:
        candidates (Sequence[Candidate]): What is timed.
        kind (str): One of ``KINDS``.
        settings (Settings): As :func:`.op_candidates.check` returns them.

    Returns:
        tuple[dict[str, dict], dict[str, str]]: By name ``median_s``,
        ``best_s``, ``quartiles_s``, ``samples``, ``calls`` per sample and
        ``scale``, which is in the times already; and by name why a candidate failed.
    """
    actions, first, calls, rounds, failed = {}, {}, {}, {}, {}
    least = _SAMPLE[torch.device(settings.device).type]
    for candidate in candidates:
        name, action = candidate.name, candidate.action(kind)
        try:
            time_calls(action)  # compiles, and warms up
            seconds = time_calls(action)
        except Exception as error:
            failed[name] = tolerated(name, error)
            continue
        actions[name] = action
        calls[name] = max(1, math.ceil(least / max(seconds, 1e-9)))
        first[name] = [seconds] if calls[name] == 1 else []
        rounds[name] = max(
            settings.least_runs - len(first[name]),
            round(settings.budget / (seconds * calls[name])),
        )
    samples = take_turns(actions, rounds, calls, warm_up=1)
    results = {}
    for candidate in candidates:
        name, scale = candidate.name, candidate.scale
        if name in failed:
            continue
        seconds = sorted(value * scale for value in first[name] + samples[name])
        quartiles = (
            statistics.quantiles(seconds, n=4, method='inclusive')
            if len(seconds) > 1
            else seconds
        )
        results[name] = dict(
            median_s=statistics.median(seconds),
            best_s=seconds[0],
            quartiles_s=[quartiles[0], quartiles[-1]],
            samples=len(seconds),
            calls=calls[name],
            scale=scale,
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
        for each candidate, size, stride and kind; ``memory``, likewise at
        the largest size; ``left_out``, by name why; ``summary``.
    """
    settings = check(settings)
    started = time.time()
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
        left_out={},
    )
    # conv_transpose2d at its best, but without TF32, which nothing else has
    flags = torch.backends.cudnn.flags(
        enabled=True, benchmark=True, deterministic=False, allow_tf32=False
    )
    try:  # what is there so far stays, so that collecting garbage is quick
        gc.collect()
        gc.freeze()
        with flags, current_device(settings.device):
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
        candidates, left_out = make_candidates(settings, size, stride, largest)
        for name, reason in left_out.items():
            result['left_out'].setdefault(name, reason)
        for kind in KINDS:
            place = dict(size=size, stride=stride, kind=kind)
            gc.collect()
            with torch.set_grad_enabled(kind != 'forward'):
                times, failed = time_candidates(candidates, kind, settings)
                candidates = [c for c in candidates if c.name not in failed]
                if largest:
                    result['memory'] += [
                        _memory(candidate, settings.device, place)
                        for candidate in candidates
                    ]
            for name, reason in failed.items():
                start = f'from {size}², stride {stride}, {kind} on'
                result['left_out'].setdefault(name, f'{reason} ({start})')
            result['times'] += [
                dict(name=name, **place, **values) for name, values in times.items()
            ]
            shown = ', '.join(
                f'{label(name)} {in_ms(values["median_s"])}'
                for name, values in times.items()
            )
            report(
                f'[{number + 1}/{len(cases)}, {time.time() - started:.0f} s] '
                f'{size}², stride {stride}, {kind}: {shown} (ms)'
            )
        del candidates
        gc.collect()
        if settings.device.startswith('cuda'):
            torch.cuda.empty_cache()


def _memory(candidate: Candidate, device: str, place: dict) -> dict:
    """The MiB that torch holds at most, beyond what was given."""
    mib = candidate.scale * peak_memory(candidate.action(place['kind']), device)
    return dict(name=candidate.name, **place, peak_mib=mib, scale=candidate.scale)
