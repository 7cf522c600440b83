# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Trained methods: loading them, running them, timing them."""

import json
import os.path as osp
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DATASETS, MODELS, init_default_scope
from torch import nn

from pvd_mm.engine.config import resolve_config
from pvd_mm.utils.errors import UsageError

WARM_UP = 2  # passes per method that are not timed
_TIMED = 15  # passes per method that are timed, at least


@dataclass
class Run:
    """One trained method.

    Args:
        name (str): What the table calls it.
        config (str): Path of its config, or the name of a shipped one.
        checkpoint (str): Path of its checkpoint.
        work_dir (str, optional): Where ``mim test`` has left its figures
            (``<time>/<time>.json``). Defaults to None: they are computed.
    """

    name: str
    config: str
    checkpoint: str
    work_dir: str | None = None


@dataclass
class Method:
    """A run, loaded, and what is collected on the way."""

    run: Run
    cfg: Config
    model: nn.Module
    dataset: object
    figures: dict | None = None
    metrics: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    input_shape: tuple = ()

    @property
    def scope(self) -> str:
        """The framework of its config, 'mmseg' or 'mmdet'."""
        return scope_of(self.cfg)


def scope_of(cfg: Config) -> str:
    """The framework of a config, 'mmseg' or 'mmdet'."""
    return cfg.get('default_scope', 'mmseg')


def load(run: Run, device: str) -> Method:
    """Build a run's model with its weights, and its test data.

    Raises:
        FileNotFoundError: The config or the checkpoint is missing.
        ValueError: The checkpoint is not of the config's model.
    """
    try:
        cfg = Config.fromfile(resolve_config(run.config))
    except UsageError as error:
        raise FileNotFoundError(
            f"run '{run.name}': the config '{run.config}' does not exist. {error}"
        ) from error
    if not osp.isfile(run.checkpoint):
        raise FileNotFoundError(
            f"run '{run.name}': the checkpoint '{run.checkpoint}' does not exist."
        )
    init_default_scope(scope_of(cfg))
    dataset = DATASETS.build(dict(cfg.test_dataloader.dataset, lazy_init=False))
    # built, not initialized: pretrained weights are not downloaded
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    _load_weights(model, run)
    return Method(run, cfg, model.to(device).eval(), dataset)


def load_all(runs: Sequence[Run], device: str) -> list[Method]:
    """Load runs that are compared.

    Raises:
        ValueError: There is no run, two have the same name, or their test
            data differ (:func:`check_same_data`); and what :func:`load`
            raises.
    """
    if not runs:
        raise ValueError('give at least one run.')
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f'the names {names} are not distinct.')
    methods = [load(run, device) for run in runs]
    check_same_data(methods)
    return methods


def _load_weights(model: nn.Module, run: Run) -> None:
    content = torch.load(run.checkpoint, map_location='cpu', weights_only=True)
    weights = content.get('state_dict', content)
    there, given = model.state_dict(), dict(weights)
    missing = sorted(set(there) - set(given))
    unexpected = sorted(set(given) - set(there))
    misfit = sorted(
        key for key in set(there) & set(given) if there[key].shape != given[key].shape
    )
    if missing or unexpected or misfit:
        parts = [
            f'{what}: {", ".join(keys[:3])}'
            + (f' and {len(keys) - 3} more' if len(keys) > 3 else '')
            for what, keys in (
                ('missing', missing),
                ('not in the model', unexpected),
                ('of another shape', misfit),
            )
            if keys
        ]
        raise ValueError(
            f"run '{run.name}': the checkpoint '{run.checkpoint}' is not of "
            f"the model in '{run.config}' ({'; '.join(parts)})."
        )
    model.load_state_dict(given)


def read_figures(work_dir: str, names: Iterable[str]) -> dict | None:
    """Read what the last test run has left in a work directory.

    Args:
        work_dir (str): As given to ``mim test`` (``--work-dir``).
        names (Iterable[str]): The figures that are wanted.

    Returns:
        dict | None: Name of a figure to its value, from the newest
        ``<time>/<time>.json`` that has any of them, if it has all; else
        None.

    Raises:
        FileNotFoundError: The directory does not exist.
    """
    root = Path(work_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"the work directory '{root}' does not exist.")
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


def check_same_data(methods: Sequence[Method]) -> None:
    """Are the methods tested on the same images, for the same task?

    Raises:
        ValueError: They are not.
    """
    first = methods[0]
    for other in methods[1:]:
        for what, look in (
            ('task', lambda m: m.scope),
            ('classes', lambda m: list(m.dataset.metainfo['classes'])),
            ('number of images', lambda m: len(m.dataset)),
            ('images', _image_paths),
        ):
            if look(first) != look(other):
                raise ValueError(
                    f"the test data of '{first.run.name}' and "
                    f"'{other.run.name}' differ in their {what}; only "
                    'methods that are tested on the same data compare.'
                )


def _image_paths(method: Method) -> list[str]:
    data = method.dataset
    return [osp.realpath(data.get_data_info(i)['img_path']) for i in range(len(data))]


def predict(method: Method, index: int, data=None):
    """Predict one image and note the time; the sample that comes back."""
    if data is None:
        data = pseudo_collate([method.dataset[index]])
    if not method.input_shape:
        with torch.no_grad():
            batch = method.model.data_preprocessor(data, False)
        method.input_shape = tuple(batch['inputs'].shape[1:])
    cuda = next(method.model.parameters()).is_cuda
    start = _now(cuda)
    with torch.no_grad():
        sample = method.model.test_step(data)[0]
    method.seconds.append(_now(cuda) - start)
    return sample


def _now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def add_passes(methods: Sequence[Method], index: int) -> None:
    """Add passes, in turn, until there are enough of them to time."""
    data = [pseudo_collate([m.dataset[index]]) for m in methods]
    while len(methods[0].seconds) < WARM_UP + _TIMED:
        for method, batch in zip(methods, data, strict=True):
            predict(method, index, batch)
