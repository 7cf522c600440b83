# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a pass through a model costs: time and memory, models side by side, which take
turns (see :mod:`pvd_mm.utils.timing`)."""

import statistics
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from pvd_mm.engine.config import adapt_to_cpu, load_config
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.markdown import markdown_table
from pvd_mm.utils.timing import current_device, take_turns

from .base import ModelBenchmark
from .memory import peak_memory


def benchmark_class(scope: str) -> type[ModelBenchmark]:
    """The benchmark of a framework's models.

    Args:
        scope (str): A config's ``default_scope``, 'mmseg' or 'mmdet'.
    """
    if scope == 'mmdet':
        from .detectors import DetectorBenchmark

        return DetectorBenchmark
    from .segmentors import SegmentorBenchmark

    return SegmentorBenchmark


def load_benchmarks(
    configs: Sequence[str],
    size: Sequence[int] | None,
    batch_size: int,
    device: str,
    kinds: Collection[str] = ('mask', 'forward', 'train'),
    **options: int,
) -> list[ModelBenchmark]:
    """The benchmarks of configs of one framework, at one image size.

    Args:
        configs (Sequence[str]): Paths or names of shipped configs.
        size (Sequence[int], optional): Height and width; None is the default of the
            first config.
        batch_size (int): Images of a training step.
        device (str): Where they run.
        kinds (Collection[str]): What is measured, as far as the models have it.
            Defaults to all.
        **options (int): ``rois`` and ``objects`` of detectors.

    Raises:
        UserError: If these do not go together.
    """
    loaded = [load_config(config) for config in configs]
    scopes = {cfg.get('default_scope') for cfg in loaded}
    if len(scopes) > 1:
        raise UserError('segmentors and detectors cannot be compared')
    cls = benchmark_class(*scopes)
    kinds = tuple(kind for kind in cls.kinds if kind in kinds)
    if not kinds:
        raise UserError('these leave nothing to measure')
    if 'train' in kinds and batch_size < cls.least_batch_size:
        raise UserError(
            f'--batch-size must be at least {cls.least_batch_size} to train: batch '
            'norm over one pooled pixel needs two images'
        )
    for config, cfg in zip(configs, loaded):
        if 'train' in kinds and not cfg.get('optim_wrapper'):
            raise UserError(
                f'{config} has no optim_wrapper, so it cannot train; measure with '
                '--no-train'
            )
        adapt_to_cpu(cfg)
    if options and scopes != {'mmdet'}:
        raise UserError('--rois and --objects are for detectors')
    size = tuple(size or cls.default_size(loaded[0]))
    benchmarks = [
        cls(cfg, Path(config).stem, size, batch_size, device, **options)
        for config, cfg in zip(configs, loaded)
    ]
    for model in benchmarks:
        model.kinds = kinds
    return benchmarks


def benchmark(
    models: Sequence[ModelBenchmark],
    rounds: int = 3,
    train_rounds: int | None = None,
    report: Callable[[str], None] = print,
) -> list[dict]:
    """Measure models of one class, on one device, in turn.

    Args:
        models (Sequence[ModelBenchmark]): What to measure, baseline first.
        rounds (int): Timed passes of each; the median counts. One more
            before them warms up and is where memory is measured. With 0 nothing
            is measured, but parameters and multiply-accumulates are counted.
            Defaults to 3.
        train_rounds (int, optional): Timed training steps; with 0 training
            steps are not measured at all. Defaults to None: as ``rounds``.
        report (Callable): Called with a line after each measurement.

    Returns:
        list[dict]: For each model ``name``, ``params`` and for each of its
        kinds, such as ``forward`` and ``train``, ``forward_s`` (median
        seconds), ``forward_mib`` (peak memory) and, but for ``train``,
        ``forward_macs``.
    """
    if train_rounds is None:
        train_rounds = rounds
    kinds = [
        kind for kind in models[0].kinds if rounds and (kind != 'train' or train_rounds)
    ]
    planned = {
        (model, kind): train_rounds if kind == 'train' else rounds
        for model in models
        for kind in kinds
    }
    done = Counter()

    def report_turn(turn: tuple[ModelBenchmark, str], seconds: float) -> None:
        model, kind = turn
        done[turn] += 1
        report(
            f'round {done[turn]}/{planned[turn]}, {model.name}, {kind}: {seconds:.3f} s'
        )
        model.model.zero_grad()  # of memory that the next model needs

    with current_device(models[0].device):
        results = [_measure_once(model, kinds, report) for model in models]
        if not planned:
            return results
        actions = {(model, kind): getattr(model, kind) for model, kind in planned}
        samples = take_turns(actions, planned, report=report_turn)
    for model, result in zip(models, results):
        for kind in kinds:
            result[f'{kind}_s'] = statistics.median(samples[model, kind])
    return results


def _measure_once(
    model: ModelBenchmark, kinds: Sequence[str], report: Callable[[str], None]
) -> dict:
    """Load a model and measure all but time."""
    model.load()
    result = dict(name=model.name, **model.complexity())
    for kind in kinds:
        result[f'{kind}_mib'] = peak_memory(getattr(model, kind), model.device)
    model.model.zero_grad()
    report(f'{model.name}: {result["params"] / 1e6:.1f} M parameters')
    for kind in kinds:
        macs = result.get(f'{kind}_macs')
        counted = '' if macs is None else f'{macs / 1e9:.1f} GMACs, '
        report(f'{model.name}, {kind}: {counted}{result[f"{kind}_mib"]:.0f} MiB')
    return result


def markdown(results: Sequence[dict]) -> str:
    """A table of :func:`benchmark`'s results; ratios to the first row, the
    measured values beside them."""
    base = results[0]
    columns = [('params', 'params (M)', 1e6, '.1f')]
    timed = [key[:-2] for key in base if key.endswith('_s')]
    counted = [key[:-5] for key in base if key.endswith('_macs')]
    for kind in timed or counted:
        columns += [
            (f'{kind}_macs', f'{kind} GMACs', 1e9, '.1f'),
            (f'{kind}_s', f'{kind} (s)', 1, '.3f'),
            (f'{kind}_mib', f'{kind} memory (MiB)', 1, '.0f'),
        ]
    columns = [column for column in columns if column[0] in base]
    head = ['config']
    for _, title, _, _ in columns:
        head += [title, 'ratio']
    rows = []
    for result in results:
        row = [result['name']]
        for key, _, unit, form in columns:
            row += [f'{result[key] / unit:{form}}', f'{result[key] / base[key]:.3f}']
        rows.append(row)
    return markdown_table(head, rows)
