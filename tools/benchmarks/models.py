# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a pass through a model costs: time and memory, models side by side.

Times mean something only next to each other: on a busy machine all models
must be busy with it. So they take turns, round by round, in one process.
"""

import gc
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.utils import set_random_seed
from torch import nn

from pvd_mm.apis.complexity import count_macs, count_params
from pvd_mm.utils.markdown import markdown_table

MIB = 2**20


class Subject(ABC):
    """A model of a config, with random weights, on random data.

    Args:
        cfg (Config): Of the framework that the class is for. Pretrained
            weights are left out.
        name (str): What the tables call it.
        size (tuple[int, int]): Height and width of the images.
        batch_size (int): Images of a training step; inference takes one.
        device (str): Where it runs.
    """

    #: Methods that are measured, which is also what the tables call them
    kinds: tuple[str, ...] = ('forward', 'train')
    #: Images that a training step needs
    least_batch_size = 1

    def __init__(
        self,
        cfg: Config,
        name: str,
        size: tuple[int, int],
        batch_size: int,
        device: str,
    ) -> None:
        self.cfg = cfg
        self.name = name
        self.size = size
        self.batch_size = batch_size
        self.device = device
        self.model = None

    def load(self) -> None:
        """Build the model, its optimizer and its data."""
        set_random_seed(0)
        init_default_scope(self.cfg.default_scope)
        cfg = self.cfg.model.copy()
        cfg.pop('pretrained', None)
        self.model = MODELS.build(cfg)
        # a process of its own needs no SyncBN, nor does a CPU take it
        self.model = _without_sync_bn(self.model).to(self.device)
        self.optimizer = build_optim_wrapper(self.model, self.cfg.optim_wrapper.copy())
        self.load_data()

    @staticmethod
    @abstractmethod
    def default_size(cfg: Config) -> tuple[int, int]:
        """Height and width, where none are given."""

    @abstractmethod
    def load_data(self) -> None:
        """Make images and their annotations."""

    @abstractmethod
    def forward(self) -> None:
        """One image through the network."""

    @abstractmethod
    def losses(self) -> dict:
        """The losses of a batch."""

    @abstractmethod
    def title(self) -> str:
        """What the measured passes hold."""

    def train(self) -> None:
        """One training step: losses, gradients and the optimizer's step."""
        self.model.train()
        loss, _ = self.model.parse_losses(self.losses())
        self.optimizer.update_params(loss)

    def complexity(self) -> dict[str, int]:
        """``params``, those of inference, and ``forward_macs``; likewise of
        other kinds, training steps apart."""
        kinds = [kind for kind in self.kinds if kind != 'train']
        return dict(
            params=count_params(self.model),
            **{f'{kind}_macs': count_macs(getattr(self, kind)) for kind in kinds},
        )


def _without_sync_bn(model: nn.Module) -> nn.Module:
    from mmengine.model import revert_sync_batchnorm

    return revert_sync_batchnorm(model)


def _synchronise(device: str) -> None:
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)


def _seconds(action: Callable[[], None], device: str) -> float:
    _synchronise(device)
    start = time.perf_counter()
    action()
    _synchronise(device)
    return time.perf_counter() - start


def peak_memory(action: Callable[[], None], device: str) -> float:
    """Memory in MiB that torch holds at most while ``action`` runs, beyond
    what it held before: activations, gradients and workspaces of torch, not
    what libraries take beside it.

    On a CPU from the allocations that torch's profiler records.
    """
    gc.collect()
    if device.startswith('cuda'):
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        action()
        _synchronise(device)
        return (torch.cuda.max_memory_allocated(device) - before) / MIB
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        action()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak / MIB


def benchmark(
    subjects: Sequence[Subject],
    rounds: int = 3,
    train_rounds: int | None = None,
    report: Callable[[str], None] = print,
) -> list[dict]:
    """Measure subjects of one class in turn.

    Args:
        subjects (Sequence[Subject]): What to measure, baseline first.
        rounds (int): Timed passes of each; the median counts. One more
            before them warms up and is where memory is measured.
            Defaults to 3.
        train_rounds (int, optional): Timed training steps; with 0 training
            steps are not measured at all. Defaults to None: as ``rounds``.
        report (Callable): Called with a line after each measurement.

    Returns:
        list[dict]: For each subject ``name``, ``params`` and for each of its
        kinds, such as ``forward`` and ``train``, ``forward_s`` (median
        seconds), ``forward_mib`` (peak memory) and, but for ``train``,
        ``forward_macs``.
    """
    if train_rounds is None:
        train_rounds = rounds
    kinds = [kind for kind in subjects[0].kinds if kind != 'train' or train_rounds]
    results = []
    for subject in subjects:
        subject.load()
        result = dict(name=subject.name, **subject.complexity())
        for kind in kinds:
            result[f'{kind}_mib'] = peak_memory(getattr(subject, kind), subject.device)
        subject.optimizer.zero_grad()
        report(f'{subject.name}: {result["params"] / 1e6:.1f} M parameters')
        for kind in kinds:
            macs = (
                f'{result[f"{kind}_macs"] / 1e9:.1f} GMACs, '
                if f'{kind}_macs' in result
                else ''
            )
            report(f'{subject.name}, {kind}: {macs}{result[f"{kind}_mib"]:.0f} MiB')
        results.append(result)
    times = {}
    for turn in range(max(rounds, train_rounds)):
        for subject in subjects:
            for kind in kinds:
                most = train_rounds if kind == 'train' else rounds
                if turn >= most:
                    continue
                seconds = _seconds(getattr(subject, kind), subject.device)
                times.setdefault((subject.name, kind), []).append(seconds)
                report(
                    f'round {turn + 1}/{most}, {subject.name}, {kind}: {seconds:.3f} s'
                )
            subject.optimizer.zero_grad()
    for result in results:
        for kind in kinds:
            result[f'{kind}_s'] = statistics.median(times[result['name'], kind])
    return results


def markdown(results: Sequence[dict]) -> str:
    """A table of :func:`benchmark`'s results; ratios to the first row, the
    measured values beside them."""
    base = results[0]
    columns = [('params', 'params (M)', 1e6, '.1f')]
    for kind in [key[:-2] for key in base if key.endswith('_s')]:
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
    for one in results:
        row = [one['name']]
        for key, _, unit, form in columns:
            row += [f'{one[key] / unit:{form}}', f'{one[key] / base[key]:.3f}']
        rows.append(row)
    return markdown_table(head, rows)
