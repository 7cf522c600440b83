# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a pass through a model costs: time and memory, models side by side.

Times mean something only next to each other: on a busy machine all models
must be busy with it. So they take turns, round by round, in one process.
"""

import gc
import statistics
import time
from collections.abc import Callable, Sequence

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope
from mmengine.runner.utils import set_random_seed
from mmengine.structures import PixelData
from torch import nn

from .complexity import model_complexity

MIB = 2**20


class Subject:
    """A model of a config, with random weights, on random images.

    Args:
        cfg (Config): A config of mmseg. Pretrained weights are left out.
        name (str): What the tables call it.
        size (tuple[int, int]): Height and width of the images.
        batch_size (int): Images of a training step; inference takes one.
        device (str): Where it runs.
    """

    def __init__(self, cfg: Config, name: str, size: tuple[int, int],
                 batch_size: int, device: str) -> None:
        self.cfg = cfg
        self.name = name
        self.size = size
        self.batch_size = batch_size
        self.device = device
        self.model = None

    def load(self) -> None:
        """Build the model, its optimizer and its data."""
        from mmseg.structures import SegDataSample

        set_random_seed(0)
        init_default_scope(self.cfg.default_scope)
        cfg = self.cfg.model.copy()
        cfg.pretrained = None
        self.model = MODELS.build(cfg)
        # a process of its own needs no SyncBN, nor does a CPU take it
        self.model = _without_sync_bn(self.model).to(self.device)
        self.optimizer = build_optim_wrapper(self.model,
                                             self.cfg.optim_wrapper.copy())
        self.images = torch.randn(
            self.batch_size, 3, *self.size, device=self.device)
        classes = self.model.decode_head.num_classes
        self.samples = []
        for _ in range(self.batch_size):
            labels = torch.randint(0, classes, (1, *self.size))
            sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
            self.samples.append(sample.to(self.device))

    def forward(self) -> None:
        """One image to its logits."""
        self.model.eval()
        with torch.no_grad():
            self.model(self.images[:1], mode='tensor')

    def train(self) -> None:
        """One training step: losses, gradients and the optimizer's step."""
        self.model.train()
        losses = self.model(self.images, self.samples, mode='loss')
        loss, _ = self.model.parse_losses(losses)
        self.optimizer.update_params(loss)


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
    with torch.profiler.profile(
            activities=activities, profile_memory=True) as profile:
        action()
    held = peak = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == '[memory]':
            held += event.nbytes()
            peak = max(peak, held)
    return peak / MIB


def benchmark(subjects: Sequence[Subject],
              rounds: int = 3,
              training: bool = True,
              report: Callable[[str], None] = print) -> list[dict]:
    """Measure subjects in turn.

    Args:
        subjects (Sequence[Subject]): What to measure, baseline first.
        rounds (int): Timed passes of each; the median counts. One more
            before them warms up and is where memory is measured.
            Defaults to 3.
        training (bool): Also measure training steps. Defaults to True.
        report (Callable): Called with a line after each measurement.

    Returns:
        list[dict]: For each subject ``name``, ``params``, ``macs`` (of one
        image), ``forward_s`` and ``train_s`` (median seconds),
        ``forward_mib`` and ``train_mib`` (peak memory).
    """
    kinds = ['forward', 'train'] if training else ['forward']
    results = []
    for subject in subjects:
        subject.load()
        cost = model_complexity(subject.model, (3, *subject.size))
        result = dict(name=subject.name, **cost)
        for kind in kinds:
            result[f'{kind}_mib'] = peak_memory(
                getattr(subject, kind), subject.device)
        subject.optimizer.zero_grad()
        report(f'{subject.name}: {cost["macs"] / 1e9:.1f} GMACs, '
               f'{cost["params"] / 1e6:.1f} M parameters, ' +
               ', '.join(f'{kind} {result[f"{kind}_mib"]:.0f} MiB'
                         for kind in kinds))
        results.append(result)
    times = {}
    for turn in range(rounds):
        for subject in subjects:
            for kind in kinds:
                seconds = _seconds(getattr(subject, kind), subject.device)
                times.setdefault((subject.name, kind), []).append(seconds)
                report(f'round {turn + 1}/{rounds}, {subject.name}, {kind}: '
                       f'{seconds:.3f} s')
            subject.optimizer.zero_grad()
    for result in results:
        for kind in kinds:
            result[f'{kind}_s'] = statistics.median(
                times[result['name'], kind])
    return results


def markdown(results: Sequence[dict]) -> str:
    """A table of :func:`benchmark`'s results; times and memory as ratios to
    the first row, the measured values beside them."""
    kinds = [k for k in ('forward', 'train') if f'{k}_s' in results[0]]
    head = ['config', 'params (M)', 'GMACs', 'ratio']
    for kind in kinds:
        head += [f'{kind} (s)', 'ratio', f'{kind} memory (MiB)', 'ratio']
    base = results[0]
    rows = []
    for one in results:
        row = [one['name'], f'{one["params"] / 1e6:.1f}',
               f'{one["macs"] / 1e9:.1f}', f'{one["macs"] / base["macs"]:.3f}']
        for kind in kinds:
            for unit, form in (('s', '.3f'), ('mib', '.0f')):
                key = f'{kind}_{unit}'
                row += [f'{one[key]:{form}}', f'{one[key] / base[key]:.3f}']
        rows.append(row)
    lines = [head, ['---'] + ['---:'] * (len(head) - 1), *rows]
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
