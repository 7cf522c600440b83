# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Trained models and their test data: loading, running and timing them."""

import json
import os.path as osp
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS

from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.engine.config import resolve_config
from pvd_mm.utils.errors import MissingDataError, UserError
from pvd_mm.utils.timing import take_turns, time_calls

from .kinds import task_of

WARM_UP = 2  # passes of a candidate that are not timed
_TIMED = 15  # passes of a candidate that are timed, at least


@dataclass
class Run:
    """A trained model.

    Args:
        name (str): Its name in tables and pictures.
        config (str): Path of its config, or the name of a shipped one.
        checkpoint (str): Its checkpoint, a file or a URL.
        work_dir (str, optional): The work directory of its test, which holds
            its metrics (``<time>/<time>.json``). Defaults to None: they are
            computed.
    """

    name: str
    config: str
    checkpoint: str
    work_dir: str | None = None


@dataclass
class Candidate:
    """A run on its test data.

    Args:
        run (Run): The run.
        inferencer (BaseInferencer): Its model, from :func:`load_run`.
        dataset (BaseDataset): Its test data.
        seconds (list[float]): Of every pass, from the loaded image to the
            label map or the masks.
    """

    run: Run
    inferencer: object
    dataset: object
    seconds: list[float] = field(default_factory=list)

    @property
    def task(self) -> str:
        """See :func:`task_of`."""
        return task_of(self.inferencer)

    def load(self, index: int) -> dict:
        """Load an image and its annotations, as a batch."""
        return pseudo_collate([self.dataset[index]])

    def predict(self, index: int):
        """The data sample of an image, with ground truth and prediction; its
        time is noted."""
        batch, samples = self.load(index), []
        self.seconds.append(
            time_calls(lambda: samples.extend(self.inferencer.forward(batch)))
        )
        return samples[0]

    def input_shape(self, index: int) -> tuple[int, ...]:
        """Channels, height and width of an image as the network sees it."""
        batch = self.inferencer.model.data_preprocessor(self.load(index), False)
        return tuple(batch['inputs'].shape[1:])


def load_run(run: Run, device: str | None = None):
    """Load a run's model.

    Args:
        run (Run): The run.
        device (str, optional): See :func:`.load_inferencer`.

    Returns:
        BaseInferencer: See :func:`.load_inferencer`.

    Raises:
        MissingDataError: The config or the checkpoint is missing.
        UserError: What :func:`.load_inferencer` raises; names the run.
    """
    try:
        resolve_config(run.config)
    except UserError as error:
        raise MissingDataError(
            f"run '{run.name}': the config '{run.config}' does not exist. {error}"
        ) from error
    if '://' not in run.checkpoint and not osp.isfile(run.checkpoint):
        raise MissingDataError(
            f"run '{run.name}': the checkpoint '{run.checkpoint}' does not exist."
        )
    try:
        return load_inferencer(run.config, run.checkpoint, device)
    except UserError as error:
        raise UserError(f"run '{run.name}': {error}") from error


def load_candidates(runs: Sequence[Run], device: str) -> list[Candidate]:
    """Load runs that are compared, and their test data.

    Raises:
        ValueError: There is no run, two have the same name, or their test
            data differ (:func:`check_same_data`).
        UserError: What :func:`load_run` raises.
    """
    if not runs:
        raise ValueError('give at least one run.')
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f'the names {names} are not distinct.')
    candidates = []
    for run in runs:
        inferencer = load_run(run, device)
        dataset = build_dataset(inferencer.cfg, 'test')
        candidates.append(Candidate(run, inferencer, dataset))
    check_same_data(candidates)
    return candidates


def build_dataset(cfg: Config, split: str):
    """Build the data of a split, 'test' or 'val', of a config."""
    return DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, lazy_init=False))


def image_paths(dataset) -> list[str]:
    """The image files of a data set."""
    return [dataset.get_data_info(i)['img_path'] for i in range(len(dataset))]


def evenly_spread(total: int, number: int) -> list[int]:
    """Indices of at most ``number`` of ``total`` images."""
    if total <= number:
        return list(range(total))
    return np.linspace(0, total - 1, number).astype(int).tolist()


def check_same_data(candidates: Sequence[Candidate]) -> None:
    """Are the candidates tested on the same images, for the same task?

    Raises:
        ValueError: They are not.
    """
    first = candidates[0]
    for other in candidates[1:]:
        for feature, of in (
            ('task', lambda c: c.task),
            ('classes', lambda c: list(c.dataset.metainfo['classes'])),
            ('number of images', lambda c: len(c.dataset)),
            ('images', lambda c: list(map(osp.realpath, image_paths(c.dataset)))),
        ):
            if of(first) != of(other):
                raise ValueError(
                    f"the test data of '{first.run.name}' and "
                    f"'{other.run.name}' differ in their {feature}; only "
                    'methods that are tested on the same data compare.'
                )


def read_metrics(work_dir: str, names: Iterable[str]) -> dict | None:
    """Read the metrics of the last test in a work directory.

    Args:
        work_dir (str): As given to ``tools/test.py`` (``--work-dir``).
        names (Iterable[str]): The metrics that are wanted.

    Returns:
        dict | None: Name of a metric to its value, from the newest
        ``<time>/<time>.json`` that has any of them, if it has all; else
        None.

    Raises:
        MissingDataError: The directory does not exist.
    """
    root = Path(work_dir)
    if not root.is_dir():
        raise MissingDataError(f"the work directory '{root}' does not exist.")
    names = set(names)
    files = [p for p in root.glob('*/*.json') if p.stem == p.parent.name]
    for path in sorted(files, key=lambda p: p.parent.name, reverse=True):
        try:
            content = json.loads(path.read_text())
        except ValueError:
            continue
        if isinstance(content, dict) and names & set(content):
            return content if names <= set(content) else None
    return None


def add_passes(candidates: Sequence[Candidate], index: int) -> None:
    """Add passes over an image, in turn, until there are enough to time."""
    actions = {
        candidate.run.name: partial(candidate.inferencer.forward, candidate.load(index))
        for candidate in candidates
    }
    seconds = take_turns(actions, WARM_UP + _TIMED - len(candidates[0].seconds))
    for candidate in candidates:
        candidate.seconds += seconds[candidate.run.name]
