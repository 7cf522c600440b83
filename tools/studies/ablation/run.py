# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The trainings of a grid that have no result yet, each in its own process."""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import IO

from pvd_mm.engine.checkpoint import latest_checkpoint
from pvd_mm.engine.config import resolve_config
from pvd_mm.engine.records import read_records, records_of
from pvd_mm.utils.errors import MissingDataError, UserError
from pvd_mm.utils.files import make_folder
from pvd_mm.utils.shipped_configs import mim_root

from .grid import Grid, GridError, Trial
from .results import RESULTS, read_results, results_of, summarize

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# the last line of a traceback, and how the tools end with a user's mistake
_ERROR = re.compile(r'([\w.]*(Error|Exception)|error)\b: ')


def command(
    tool: str,
    trial: Trial,
    seed: int,
    work_dir: str,
    data: str | None = None,
    arguments: Sequence[str] = (),
) -> list[str]:
    """The call of a tool for one training.

    Args:
        tool (str): 'train' or 'test'.
        trial (Trial): What is trained or tested.
        seed (int): Of the training.
        work_dir (str): Where the tool logs.
        data (str, optional): Root of the data in place of the config's.
        arguments (Sequence[str]): What comes after the config. Defaults to none.
    """
    options = {'randomness.seed': seed, **trial.options}
    if data:
        for split in ('train', 'val', 'test'):
            options[f'{split}_dataloader.dataset.data_root'] = data
    return [
        sys.executable,
        str(mim_root() / f'tools/{tool}.py'),
        resolve_config(trial.config),
        *arguments,
        '--work-dir',
        work_dir,
        '--cfg-options',
        *(f'{key}={_option(value)}' for key, value in options.items()),
    ]


def _option(value) -> str:
    if isinstance(value, (list, tuple)):
        return f'[{",".join(map(str, value))}]'
    return str(value)


def _call(words: Sequence[str], training: str, log: Path) -> None:
    """Run a tool; its failure is a UserError with the last error of its log."""
    with open(log, 'a', encoding='utf-8') as file:
        status = subprocess.run(words, stdout=file, stderr=subprocess.STDOUT).returncode
    if status:
        lines = log.read_text(encoding='utf-8', errors='replace').splitlines()
        errors = [line for line in lines if _ERROR.match(line)]
        reason = (errors or lines or ['no output'])[-1]
        tool = Path(words[1]).name
        raise UserError(f'{training}: {tool} ended with {status}: {reason} (see {log})')


def _train_and_test(
    trial: Trial, seed: int, out: Path, data: str | None, metrics: Sequence[str]
) -> dict:
    training = f'{trial.name}, seed {seed}'
    work_dir = make_folder(out / trial.folder(seed))
    test_dir = str(work_dir / 'test')
    train = command('train', trial, seed, str(work_dir), data, ['--resume'])
    _call(train, training, work_dir / 'train.log')
    checkpoint = latest_checkpoint(work_dir)
    if checkpoint is None:
        raise UserError(f'{training}: its training left no checkpoint in {work_dir}')
    test = command('test', trial, seed, test_dir, data, [checkpoint])
    _call(test, training, work_dir / 'test.log')
    records, _ = read_records([test_dir])
    measured = records_of(records, 'test')[-1]['result']
    absent = sorted(set(metrics) - set(measured))
    if absent:
        raise UserError(
            f'{training}: its test does not measure '
            f'{", ".join(absent)}, but {", ".join(measured)}'
        )
    return dict(
        name=trial.name,
        config=trial.config,
        options=trial.options,
        seed=seed,
        metrics=measured,
        **summarize(str(work_dir)),
        date=time.strftime('%Y-%m-%d'),
    )


def _to_train(
    grid: Grid, out: Path, only: Sequence[str] | None
) -> list[tuple[Trial, int]]:
    """Trials and seeds without a result; first seeds first, for an early view
    of the whole grid."""
    results = read_results(str(out))
    missing = [
        (order, trial, seed)
        for trial in grid.trials
        for order, seed in enumerate(trial.seeds)
        if seed not in results_of(trial, results) and (not only or trial.name in only)
    ]
    missing.sort(key=lambda entry: entry[0])
    return [(trial, seed) for _, trial, seed in missing]


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
    names = [trial.name for trial in grid.trials]
    unknown = sorted(set(only or ()) - set(names))
    if unknown:
        raise GridError(
            f'no trial is called {", ".join(unknown)}; there are {", ".join(names)}'
        )
    data = data or grid.data
    if data and not Path(data).is_dir():
        raise MissingDataError(f'the data in {data} does not exist.')
    data = data and str(Path(data).resolve()) + '/'
    folder, lock, failed = make_folder(out).resolve(), Lock(), []
    metrics = list(grid.metrics.values())
    os.environ.setdefault('OMP_NUM_THREADS', '1')

    def train(trial: Trial, seed: int) -> None:
        try:
            result = _train_and_test(trial, seed, folder, data, metrics)
        except UserError as error:
            with lock:
                failed.append(str(error))
                report(str(error))
            return
        with lock, open(folder / RESULTS, 'a', encoding='utf-8') as file:
            file.write(json.dumps(dict(result, jobs=jobs)) + '\n')
        report(
            f'{trial.name}, seed {seed}: {metrics[0]} '
            f'{result["metrics"][metrics[0]]:.2f}, {result["seconds"]:.0f} s'
        )

    with _lock(folder), ThreadPoolExecutor(jobs) as pool:
        list(pool.map(lambda pair: train(*pair), _to_train(grid, folder, only)))
    return failed
