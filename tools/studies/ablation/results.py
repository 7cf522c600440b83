# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The results of a grid's trainings, a line of JSON for each."""

import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from pvd_mm.utils.errors import UserError
from studies.training_log import read_log

from .grid import GridError, Trial

RESULTS = 'results.jsonl'
_KEYS = {
    'name',
    'config',
    'options',
    'seed',
    'metrics',
    'seconds',
    'step_seconds',
    'curve',
}


def summarize(work_dir: str) -> dict:
    """The figures of a finished training.

    Returns:
        dict: ``steps``; ``curve``, step to metrics of validation;
        ``step_seconds``, the median over the log's intervals; ``seconds`` of
        all steps, without validation.

    Raises:
        UserError: If it has not been validated, or is shorter than the log's interval.
    """
    training, validation = read_log(work_dir)
    if not validation:
        raise UserError(f'{work_dir} has no validation in its log')
    if not training:
        raise UserError(
            f'{work_dir} has no training step in its log: it must take at least '
            'default_hooks.logger.interval of them'
        )
    timing = ('step', 'time', 'data_time')
    seconds, before = 0.0, 0
    for step in sorted(training):
        seconds += training[step]['time'] * (step - before)
        before = step
    return dict(
        steps=max(validation),
        curve={
            str(step): {k: v for k, v in metrics.items() if k not in timing}
            for step, metrics in sorted(validation.items())
        },
        step_seconds=statistics.median(record['time'] for record in training.values()),
        seconds=seconds,
    )


def read_results(out: str) -> list[dict]:
    """The lines of a results file; a broken one is reported and left out."""
    path = Path(out) / RESULTS
    lines = path.read_text(encoding='utf-8').splitlines() if path.is_file() else []
    results = []
    for number, line in enumerate(lines, 1):
        try:
            result = json.loads(line)
            missing = _KEYS - set(result)
        except (ValueError, TypeError) as error:
            problem = f': {error}'
        else:
            problem = missing and f', it lacks {", ".join(sorted(missing))}'
        if problem:
            print(f'{path}:{number} is left out{problem}', file=sys.stderr)
        else:
            results.append(result)
    return results


def results_of(trial: Trial, results: Sequence[dict]) -> dict[int, dict]:
    """The results of a trial, seed to result.

    Raises:
        GridError: If a result of that name is of another config or has
            other options: the grid was changed since.
    """
    by_seed = {}
    for result in results:
        if result['name'] != trial.name:
            continue
        if (Path(result['config']).stem, result['options']) != (
            Path(trial.config).stem,
            trial.options,
        ):
            raise GridError(
                f'{trial.name}: its result of seed {result["seed"]} is of '
                f'{result["config"]} with {result["options"]}, but the grid has '
                f'{trial.config} with {trial.options}. Give the changed trial '
                'another name, or use another --out'
            )
        by_seed[result['seed']] = result
    return by_seed
