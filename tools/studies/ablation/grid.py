# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a grid file says."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from pvd_mm.engine.config import resolve_config
from pvd_mm.utils.errors import MissingDataError, UserError

_GRID_KEYS = {'data', 'metrics', 'baseline', 'anchors', 'tables'}
_TRIAL_KEYS = {'config', 'options', 'seeds'}


class GridError(UserError, ValueError):
    """A mistake in a grid, or results that belong to another one."""


@dataclass(frozen=True)
class Trial:
    """A row of a table.

    Args:
        name (str): Its name in the tables.
        config (str): Path or name of a config.
        options (dict): Overrides, dotted key to value.
        seeds (tuple[int]): It is trained once with each.
    """

    name: str
    config: str
    options: dict = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)

    def folder(self, seed: int) -> str:
        """Name of the work directory of one training."""
        words = ''.join(c if c.isalnum() else ' ' for c in self.name).split()
        return f'{"-".join(words).lower()}_seed{seed}'


@dataclass(frozen=True)
class Grid:
    """A grid of trainings.

    Args:
        tables (dict): Title of a table to its trials.
        metrics (dict): Title of a column to the metric's name.
        baseline (str): The trial whose training time is 1.
        data (str, optional): Root of the data, for all three splits.
    """

    tables: dict[str, list[Trial]]
    metrics: dict[str, str]
    baseline: str
    data: str | None = None

    @property
    def trials(self) -> list[Trial]:
        """All trials, each once."""
        rows = [trial for table in self.tables.values() for trial in table]
        return list({trial.name: trial for trial in rows}.values())

    def trial(self, name: str) -> Trial:
        """The trial of that name."""
        return next(trial for trial in self.trials if trial.name == name)


def load_grid(path: str) -> Grid:
    """Read a grid.

    Raises:
        MissingDataError: If there is no such file.
        GridError: If it is not a grid; names the place.
        UserError: If a config does not exist.
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
    tables, trials = {}, {}
    for title, rows in content['tables'].items():
        tables[title] = []
        for name, settings in rows.items():
            if settings is not None or name not in trials:
                place = f'{path}: {title}: {name}'
                trials[name] = _trial(place, name, settings, trials)
            # else: shown in a second table
            tables[title].append(trials[name])
    baseline = content.get('baseline')
    if baseline not in trials:
        raise GridError(
            f'{path}: baseline must be one of the trials, but is {baseline!r}'
        )
    return Grid(tables, content['metrics'], baseline, content.get('data'))


def _trial(place: str, name: str, settings, others: dict[str, Trial]) -> Trial:
    if not isinstance(settings, dict) or 'config' not in settings:
        raise GridError(f'{place} must give a config')
    _refuse_unknown(place, settings, _TRIAL_KEYS)
    seeds = settings.get('seeds', [0])
    if not seeds or not all(isinstance(seed, int) for seed in seeds):
        raise GridError(f'{place}: seeds must be a list of integers, but is {seeds}')
    if name in others:
        raise GridError(f'{place} is there twice; the second time give the name alone')
    trial = Trial(name, settings['config'], settings.get('options') or {}, tuple(seeds))
    if trial.folder(0) in {other.folder(0) for other in others.values()}:
        raise GridError(
            f'{place}: another trial would have the same folder, {trial.folder(0)}'
        )
    resolve_config(trial.config)
    return trial


def _refuse_unknown(place: str, settings: dict, allowed: set[str]) -> None:
    unknown = sorted(set(settings) - allowed)
    if unknown:
        raise GridError(
            f'{place}: unknown {", ".join(unknown)}; allowed are '
            f'{", ".join(sorted(allowed))}'
        )
