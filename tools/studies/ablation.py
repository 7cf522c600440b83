# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A grid of trainings: run what is missing, tabulate and plot what is there.

A grid is a YAML file: tables of named trials, each a config, overrides and
seeds. Every training is a ``mim train`` in a folder of its own, so that an
interrupted one goes on where it stopped, and a ``mim test`` of its last
checkpoint; what came out of it is a line in ``results.jsonl``.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import IO

import yaml

from pvd_mm.engine.config import resolve_config
from pvd_mm.engine.records import read_records, records_of
from pvd_mm.utils.errors import MissingDataError, UserError
from pvd_mm.utils.files import make_folder
from pvd_mm.utils.markdown import fill_blocks, markdown_table

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

RESULTS = 'results.jsonl'
_GRID_KEYS = {'data', 'metrics', 'baseline', 'anchors', 'tables'}
# the last line of a traceback, and how the tools end with a user's mistake
_ERROR = re.compile(r'(?!.*CalledProcessError)([\w.]*(Error|Exception)|train)\b: ')
_TRIAL_KEYS = {'config', 'options', 'seeds'}


class GridError(UserError, ValueError):
    """A mistake in a grid, or one that its results don't belong to."""


@dataclass(frozen=True)
class Trial:
    """A row of a table.

    Args:
        name (str): What the tables call it.
        config (str): Path or name of a config.
        options (dict): Overrides, dotted key to value.
        seeds (tuple[int]): It is trained once with each.
    """

    name: str
    config: str
    options: dict = field(default_factory=dict)
    seeds: tuple = (0,)

    def folder(self, seed: int) -> str:
        """Name of the work directory of one training."""
        words = ''.join(c if c.isalnum() else ' ' for c in self.name).split()
        return f'{"-".join(words).lower()}_seed{seed}'


@dataclass(frozen=True)
class Grid:
    """What a grid file says.

    Args:
        tables (dict): Title of a table to its trials.
        metrics (dict): Title of a column to the metric's name.
        baseline (str): The trial whose training time is 1.
        data (str, optional): Root of the data, for all three splits.
    """

    tables: dict
    metrics: dict
    baseline: str
    data: str | None = None

    @property
    def trials(self) -> list[Trial]:
        """All trials, each once."""
        rows = [one for table in self.tables.values() for one in table]
        return list({one.name: one for one in rows}.values())


def _refuse_unknown(where: str, found: dict, allowed: set) -> None:
    unknown = sorted(set(found) - allowed)
    if unknown:
        raise GridError(
            f'{where}: unknown {", ".join(unknown)}; allowed are '
            f'{", ".join(sorted(allowed))}'
        )


def load_grid(path: str) -> Grid:
    """Read a grid.

    Raises:
        MissingDataError: If there is no such file.
        GridError: If it is not a grid; names the place.
        UsageError: If a config does not exist.
    """
    if not Path(path).is_file():
        raise MissingDataError(f'{path} does not exist.')
    try:
        content = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise GridError(f'{path} is not YAML: {error}') from error
    if not isinstance(content, dict):
        raise GridError(f'{path} must hold a mapping')
    _refuse_unknown(path, content, _GRID_KEYS)
    for key in ('metrics', 'tables'):
        if not isinstance(content.get(key), dict) or not content[key]:
            raise GridError(f'{path}: {key} must be a mapping, not empty')
    tables, known = {}, {}
    for title, rows in content['tables'].items():
        tables[title] = []
        for name, given in rows.items():
            where = f'{path}: {title}: {name}'
            if given is None and name in known:  # shown in a second table
                tables[title].append(known[name])
                continue
            if not isinstance(given, dict) or 'config' not in given:
                raise GridError(f'{where} must give a config')
            _refuse_unknown(where, given, _TRIAL_KEYS)
            seeds = given.get('seeds', [0])
            if not seeds or not all(isinstance(seed, int) for seed in seeds):
                raise GridError(
                    f'{where}: seeds must be a list of integers, but is {seeds}'
                )
            trial = Trial(
                name, given['config'], given.get('options') or {}, tuple(seeds)
            )
            if name in known:
                raise GridError(
                    f'{where} is there twice; the second time give the name alone'
                )
            if trial.folder(0) in {one.folder(0) for one in known.values()}:
                raise GridError(
                    f'{where}: another trial would have the same '
                    f'folder, {trial.folder(0)}'
                )
            resolve_config(trial.config)
            known[name] = trial
            tables[title].append(trial)
    baseline = content.get('baseline')
    if baseline not in known:
        raise GridError(
            f'{path}: baseline must be one of the trials, but is {baseline!r}'
        )
    return Grid(tables, content['metrics'], baseline, content.get('data'))


# ------------------------------------------------------------------ results


def read_log(work_dir: str) -> tuple[dict, dict]:
    """What a training has logged, over all its parts if it was resumed.

    Returns:
        tuple[dict, dict]: Step to record of training; step to metrics of
        validation.
    """
    training, validation = {}, {}
    for path in sorted(Path(work_dir).glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                record = json.loads(line)
            except ValueError:  # cut off in the middle of a line
                continue
            (training if 'lr' in record else validation)[record['step']] = record
    return training, validation


def summarise(work_dir: str) -> dict:
    """The figures of a finished training.

    Returns:
        dict: ``steps``; ``curve``, step to metrics of validation;
        ``step_seconds``, the median over the log's intervals; ``seconds`` of
        all steps, without validation.

    Raises:
        UserError: If it has not been validated.
    """
    training, validation = read_log(work_dir)
    if not validation:
        raise UserError(f'{work_dir} has no validation in its log')
    timing = ('step', 'time', 'data_time')
    curve = {
        str(step): {k: v for k, v in validation[step].items() if k not in timing}
        for step in sorted(validation)
    }
    steps = max(validation)
    seconds, before = 0.0, 0
    for step in sorted(training):
        seconds += training[step]['time'] * (step - before)
        before = step
    return dict(
        steps=steps,
        curve=curve,
        step_seconds=statistics.median(record['time'] for record in training.values()),
        seconds=seconds,
    )


def read_results(out: str) -> list[dict]:
    """The lines of a results file; a broken one is reported and left out."""
    path = Path(out) / RESULTS
    results = []
    lines = path.read_text(encoding='utf-8').splitlines() if path.is_file() else []
    for number, line in enumerate(lines, 1):
        try:
            one = json.loads(line)
            missing = {
                'name',
                'config',
                'options',
                'seed',
                'metrics',
                'seconds',
                'step_seconds',
                'curve',
            } - set(one)
        except (ValueError, TypeError) as error:
            print(f'{path}:{number} is left out: {error}', file=sys.stderr)
            continue
        if missing:
            print(
                f'{path}:{number} is left out, it lacks {", ".join(sorted(missing))}',
                file=sys.stderr,
            )
            continue
        results.append(one)
    return results


def of_trial(results: Sequence[dict], trial: Trial) -> dict[int, dict]:
    """The results of a trial, seed to result.

    Raises:
        GridError: If a result of that name is of another config or has
            other options: the grid was changed since.
    """
    found = {}
    for one in results:
        if one['name'] != trial.name:
            continue
        if (Path(one['config']).stem, one['options']) != (
            Path(trial.config).stem,
            trial.options,
        ):
            raise GridError(
                f'{trial.name}: its result of seed {one["seed"]} is of '
                f'{one["config"]} with {one["options"]}, but the grid has '
                f'{trial.config} with {trial.options}. Give the changed trial '
                'another name, or use another --out'
            )
        found[one['seed']] = one
    return found


# ----------------------------------------------------------------- training


def _option(key: str, value) -> str:
    if isinstance(value, (list, tuple)):
        value = f'[{",".join(map(str, value))}]'
    return f'{key}={value}'


def command(
    what: str, trial: Trial, seed: int, work_dir: str, data: str | None = None
) -> list[str]:
    """The ``mim train`` or ``mim test`` (``what``) of one training."""
    options = {'randomness.seed': seed, **trial.options}
    if data:
        for split in ('train', 'val', 'test'):
            options[f'{split}_dataloader.dataset.data_root'] = data
    return [
        'mim',
        what,
        'pvd_mm',
        resolve_config(trial.config),
        '--gpus',
        '0',
        '--work-dir',
        work_dir,
        '--cfg-options',
        *(_option(*item) for item in options.items()),
    ]


def _reason(log: Path) -> str:
    """The error that ended a training, not mim's about its child."""
    lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or ['no output'])[-1]


def _mim(words: Sequence[str], what: str, log: Path) -> None:
    with open(log, 'a', encoding='utf-8') as file:
        status = subprocess.run(
            [sys.executable, '-m', *words], stdout=file, stderr=subprocess.STDOUT
        ).returncode
    if status:
        raise UserError(
            f'{what}: mim {words[1]} ended with {status}: {_reason(log)} (see {log})'
        )


def _run(
    trial: Trial,
    seed: int,
    out: Path,
    data: str | None,
    metrics: Sequence[str],
    jobs: int,
) -> dict:
    work_dir, what = out / trial.folder(seed), f'{trial.name}, seed {seed}'
    make_folder(work_dir)
    train = command('train', trial, seed, str(work_dir), data)
    last = work_dir / 'last_checkpoint'
    if last.is_file() and Path(last.read_text().strip()).is_file():
        train.insert(train.index('--cfg-options'), '--resume')
    _mim(train, what, work_dir / 'train.log')
    test = command('test', trial, seed, str(work_dir / 'test'), data)
    at = test.index('--gpus')
    test[at:at] = ['--checkpoint', last.read_text().strip()]
    _mim(test, what, work_dir / 'test.log')
    records, _ = read_records([str(work_dir / 'test')])
    found = records_of(records, 'test')[-1]['result']
    absent = sorted(set(metrics) - set(found))
    if absent:
        raise UserError(
            f'{what}: its test does not measure '
            f'{", ".join(absent)}, but {", ".join(found)}'
        )
    return dict(
        name=trial.name,
        config=trial.config,
        options=trial.options,
        seed=seed,
        metrics=found,
        jobs=jobs,
        **summarise(str(work_dir)),
        date=time.strftime('%Y-%m-%d'),
    )


def _missing(grid: Grid, out: Path, only: Sequence[str] | None) -> Iterator[tuple]:
    results = read_results(str(out))
    # first seeds first: the whole picture early
    todo = [
        (order, trial, seed)
        for trial in grid.trials
        for order, seed in enumerate(trial.seeds)
        if seed not in of_trial(results, trial) and (not only or trial.name in only)
    ]
    for _, trial, seed in sorted(todo, key=lambda one: one[0]):
        yield trial, seed


def _lock(folder: Path) -> IO:
    """Keep a second run, which would train the same, out of a folder."""
    file = open(folder / '.lock', 'a')  # noqa: SIM115, held by the caller
    try:
        if fcntl:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise GridError(f'another run is at work in {folder}') from error
    return file


def run(
    grid: Grid,
    out: str,
    data: str | None = None,
    jobs: int = 1,
    only: Sequence[str] | None = None,
    report: Callable[[str], None] = print,
) -> list[str]:
    """Train what has no result yet.

    Args:
        grid (Grid): From :func:`load_grid`.
        out (str): Folder of the results and the work directories.
        data (str, optional): Root of the data in place of the grid's.
        jobs (int): Trainings at a time, of one thread each. Defaults to 1.
        only (Sequence[str], optional): Names of trials. Defaults to all.
        report (Callable): Called with a line after each training.

    Returns:
        list[str]: What failed, a message each; the others were trained.

    Raises:
        GridError: If ``only`` names an unknown trial, a result in ``out`` is
            of another grid, or another run is at work there.
        MissingDataError: If there is no data.
    """
    unknown = set(only or ()) - {trial.name for trial in grid.trials}
    if unknown:
        raise GridError(
            f'no trial is called {", ".join(sorted(unknown))}; '
            'there are '
            f'{", ".join(trial.name for trial in grid.trials)}'
        )
    data = data or grid.data
    if data and not Path(data).is_dir():
        raise MissingDataError(f'the data in {data} does not exist.')
    data = data and str(Path(data).resolve()) + '/'
    folder, lock, failed = make_folder(out).resolve(), Lock(), []
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    held = _lock(folder)
    if jobs > 1:
        # mim's first process makes a cache folder, over which two would stumble
        subprocess.run([sys.executable, '-m', 'mim', '--version'], capture_output=True)

    def one(trial: Trial, seed: int) -> None:
        try:
            result = _run(trial, seed, folder, data, list(grid.metrics.values()), jobs)
        except UserError as error:
            with lock:
                failed.append(str(error))
                report(str(error))
            return
        with lock, open(folder / RESULTS, 'a', encoding='utf-8') as file:
            file.write(json.dumps(result) + '\n')
        first = next(iter(grid.metrics.values()))
        report(
            f'{trial.name}, seed {seed}: {first} '
            f'{result["metrics"][first]:.2f}, {result["seconds"]:.0f} s'
        )

    with held, ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda pair: one(*pair), _missing(grid, folder, only)))
    return failed


# ------------------------------------------------------------ tables, plots


def _cell(values: Sequence[float], form: str = '.2f') -> str:
    if not values:
        return 'not run'
    mean = f'{statistics.fmean(values):{form}}'
    if len(values) == 1:
        return mean
    return f'{mean} ({min(values):{form}} to {max(values):{form}})'


def _alone(results: Sequence[dict]) -> bool:
    """Whether their times say something: each was trained by itself."""
    return bool(results) and all(one.get('jobs') == 1 for one in results)


def table(grid: Grid, title: str, results: Sequence[dict]) -> str:
    """A table in Markdown: mean, least and greatest over the seeds; the
    training time per step and in all as a ratio to the baseline's mean, of
    trainings that ran one at a time."""
    base = list(
        of_trial(
            results, next(one for one in grid.trials if one.name == grid.baseline)
        ).values()
    )
    times = {'time / step': 'step_seconds', 'time': 'seconds'}
    times = times if _alone(base) else {}
    head = ['Method', *grid.metrics, *times, 'steps', 'seeds']
    rows = []
    for trial in grid.tables[title]:
        found = list(of_trial(results, trial).values())
        cells = [
            _cell([one['metrics'][key] for one in found if key in one['metrics']])
            for key in grid.metrics.values()
        ]
        for key in times.values():
            own, other = ([one[key] for one in many] for many in (found, base))
            cells.append(
                f'{statistics.fmean(own) / statistics.fmean(other):.2f}'
                if _alone(found)
                else '-'
            )
        cells += [str(found[0]['steps']) if found else '-', str(len(found))]
        rows.append([trial.name, *cells])
    return markdown_table(head, rows)


def markdown(grid: Grid, results: Sequence[dict]) -> str:
    """All tables, each under its title."""
    return '\n\n'.join(
        f'### {title}\n\n{table(grid, title, results)}' for title in grid.tables
    )


def update_blocks(text: str, grid: Grid, results: Sequence[dict]) -> str:
    """Make a page's tables anew; a block's name is the table's title.

    Raises:
        ValueError: If a block names no table of the grid.
    """
    return fill_blocks(
        text, {title: partial(table, grid, title, results) for title in grid.tables}
    )


def plot(grid: Grid, title: str, results: Sequence[dict], path: str) -> None:
    """Draw the first metric of a table's trials, the mean over seeds and the
    range between them, over steps, and over training time if they were
    trained one at a time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    column, key = next(iter(grid.metrics.items()))
    timed = _alone(
        [
            one
            for trial in grid.tables[title]
            for one in of_trial(results, trial).values()
        ]
    )
    figure = Figure(figsize=(10 if timed else 6, 4), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + timed, sharey=True, squeeze=False)[0]
    for trial in grid.tables[title]:
        found = list(of_trial(results, trial).values())
        if not found:
            continue
        steps = sorted(
            set.intersection(*({int(step) for step in one['curve']} for one in found))
        )
        values = [[one['curve'][str(step)][key] for one in found] for step in steps]
        means = [statistics.fmean(one) for one in values]
        pace = statistics.fmean(one['seconds'] / one['steps'] for one in found)
        for ax, scale in zip(axes, (1.0, pace / 60)):
            x = [step * scale for step in steps]
            (line,) = ax.plot(x, means, marker='o', label=trial.name)
            ax.fill_between(
                x,
                [min(one) for one in values],
                [max(one) for one in values],
                alpha=0.15,
                color=line.get_color(),
                linewidth=0,
            )
    for ax, label in zip(axes, ('step', 'training time (minutes)')):
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel(f'{column} (%)')
    if axes[0].lines:
        axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
