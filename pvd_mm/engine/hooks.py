# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Hooks: exact resuming, a word on what was loaded, and do the classes fit?

Registered in mmengine's own registry, so that both frameworks find them.
"""

import random
from collections.abc import Iterator
from itertools import islice

import numpy as np
import torch
from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapperDict
from mmengine.registry import HOOKS
from torch.utils.data import BatchSampler

from pvd_mm.utils.dataset_classes import compare_classes
from pvd_mm.utils.errors import ClassesError

from .checkpoint import CheckpointFit, check_fit, fit_checkpoint, unwrap

__all__ = [
    'CheckpointFitHook',
    'ClassCheckHook',
    'LoadReportHook',
    'ReproducibleResumeHook',
]


class _Draw(int):
    """A dataset index that carries the random seed of its draw."""

    seed: tuple[int, ...]

    def __new__(cls, index: int, seed: tuple[int, ...]) -> '_Draw':
        draw = super().__new__(cls, index)
        draw.seed = seed
        return draw

    def __reduce__(self):
        return _Draw, (int(self), self.seed)


class _DrawingSampler:
    """Wrap a sampler so that its indices know their draw.

    Args:
        sampler: The sampler. Its other attributes stay reachable.
        seed (int): Base seed.
        skip (int): Leave out that many draws, the first time only.
    """

    def __init__(self, sampler, seed: int, skip: int = 0) -> None:
        self._sampler = sampler
        self._seed = seed
        self._skip = skip

    def __iter__(self) -> Iterator[_Draw]:
        first, self._skip = self._skip, 0
        epoch = getattr(self._sampler, 'epoch', 0)
        indices = islice(iter(self._sampler), first, None)
        for n, index in enumerate(indices, first):
            yield _Draw(index, (self._seed, get_rank(), epoch, n))

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str):
        return getattr(self.__dict__['_sampler'], name)


class _SeededDataset:
    """Seed the random generators before a drawn sample is made.

    Everything but indexing, assignments included, goes to the dataset.
    """

    def __init__(self, dataset) -> None:
        self.__dict__['_dataset'] = dataset

    def __getitem__(self, index: int):
        seed = getattr(index, 'seed', None)
        if seed is not None:
            python, numpy, cpu = np.random.SeedSequence(seed).generate_state(3)
            random.seed(int(python))
            np.random.seed(int(numpy))
            torch.default_generator.manual_seed(int(cpu))
        return self._dataset[int(index)]

    def __len__(self) -> int:
        return len(self._dataset)

    def __getattr__(self, name: str):
        if name.startswith('__'):
            raise AttributeError(name)
        return getattr(self.__dict__['_dataset'], name)

    def __setattr__(self, name: str, value) -> None:
        setattr(self._dataset, name, value)

    def __reduce__(self):
        return _SeededDataset, (self._dataset,)


class _SkippedIterator:
    """A loop's data iterator that starts at the right batch already.

    The loop asks for the seen batches to be passed over; that costs nothing
    here, because the sampler has left them out.
    """

    def __init__(self, iterator, seen: int) -> None:
        self._iterator = iterator
        self._seen = seen

    def __iter__(self):
        return self

    def __next__(self):
        if self._seen > 0:
            self._seen -= 1
            return None
        return next(self._iterator)

    def skip_iter(self, num_iters: int) -> None:
        """Pass over seen batches (the fork's loop calls this): those that
        the sampler has not left out are loaded."""
        left_out, self._seen = self._seen, 0
        for _ in range(num_iters - left_out):
            next(self._iterator)

    def __getattr__(self, name: str):
        return getattr(self.__dict__['_iterator'], name)


def _at_step(optim_wrapper) -> bool:
    """Whether the last iteration has ended in a step of every optimizer, so that no
    gradients wait for one."""
    wrappers = (
        optim_wrapper.values()
        if isinstance(optim_wrapper, OptimWrapperDict)
        else [optim_wrapper]
    )
    return all(wrapper.should_update() for wrapper in wrappers)


def _restore_gradients(runner, gradients: dict) -> None:
    for name, parameter in unwrap(runner.model).named_parameters():
        if name in gradients:
            parameter.grad = gradients[name].to(parameter.device)
    runner.logger.info(
        'The checkpoint is from the middle of an accumulation; its gradients are '
        'restored, so that nothing is lost.'
    )


@HOOKS.register_module()
class ReproducibleResumeHook(Hook):
    """Make a resumed training continue as if it had not been interrupted.

    mmengine restores weights, optimiser, schedules and the order of the
    samples, but not the random state behind augmentation and dropout, and the
    two package families pass over the seen batches differently. With this
    hook the randomness of a sample is a function of (seed, rank, epoch,
    number of the draw), and that of the model's step a function of (seed,
    rank, iteration): the state then needs no restoring, with any number of
    workers. Iteration-based training with mmengine's ``InfiniteSampler``
    also jumps to its next batch without loading the seen ones. The seed
    itself is in the checkpoint, and that of the sampler, which draws its own with
    ``FlexibleRunner`` and with ``diff_rank_seed``.

    A checkpoint from the middle of an accumulation (``accumulative_counts``) also
    holds the gradients so far, as ``gradients``. Not so in distributed training,
    where every process has its own: there mmengine warns at the resume.

    Other samplers than mmengine's ``DefaultSampler`` and ``InfiniteSampler``,
    and generators that a transform keeps for itself, are not covered.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._seed_at_build: int | None = None
        self._sampler = None
        self._loaded: dict = {}

    def before_run(self, runner) -> None:
        """Remember the seed that the samplers were built with."""
        self._seed_at_build = runner.seed

    def before_save_checkpoint(self, runner, checkpoint: dict) -> None:
        """Add the sampler's seed, and the gradients of a step that is not complete."""
        if 'optimizer' not in checkpoint:  # it is not for resuming
            return
        if self._sampler is not None:
            checkpoint['meta']['sampler_seed'] = self._sampler.seed
        if get_world_size() == 1 and not _at_step(runner.optim_wrapper):
            checkpoint['gradients'] = {
                name: parameter.grad.cpu()
                for name, parameter in unwrap(runner.model).named_parameters()
                if parameter.grad is not None
            }

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Keep what :meth:`before_save_checkpoint` has added."""
        meta = checkpoint.get('meta') or {}
        self._loaded = dict(
            sampler_seed=meta.get('sampler_seed'),
            gradients=checkpoint.get('gradients') or {},
        )

    def before_train(self, runner) -> None:
        """Tie every sample's randomness to its draw, and take up the gradients of a
        step that was not complete."""
        loop = runner.train_loop
        loaded, self._loaded = self._loaded if loop.iter else {}, {}
        if loaded.get('gradients'):
            _restore_gradients(runner, loaded['gradients'])
        loader = loop.dataloader
        batches = getattr(loader, 'batch_sampler', None)
        sampler = getattr(batches, 'sampler', None)
        if not isinstance(sampler, (DefaultSampler, InfiniteSampler)):
            return  # unknown, or prepared by an earlier call
        if loaded.get('sampler_seed') is not None:
            sampler.seed = loaded['sampler_seed']
        elif sampler.seed == self._seed_at_build:
            sampler.seed = runner.seed  # resuming brings its own
        self._sampler = sampler

        infinite = isinstance(sampler, InfiniteSampler)
        jump = infinite and type(batches) is BatchSampler
        seen = loop.iter if jump else 0
        if infinite:  # workers may have drawn already
            sampler.indices = sampler._indices_of_rank()
        batches.sampler = _DrawingSampler(
            sampler, runner.seed, seen * batches.batch_size if jump else 0
        )
        # DataLoader forbids plain assignment after its construction.
        loader.__dict__['dataset'] = _SeededDataset(loader.dataset)
        loader._iterator = None  # persistent workers hold the old dataset
        if hasattr(loop, 'dataloader_iterator'):
            fresh = type(loop.dataloader_iterator)(loader)
            if getattr(loop, 'fast_forward_on_resume', False):
                seen = 0  # the loop will not ask
            loop.dataloader_iterator = _SkippedIterator(fresh, seen) if seen else fresh

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        """Tie the randomness of the model's step to the iteration."""
        key = (runner.seed, get_rank(), runner.iter)
        state = np.random.SeedSequence(key).generate_state(1)
        torch.manual_seed(int(state[0]))


def _modules_of(keys: list[str], others: list[str]) -> str:
    """Name the largest modules that hold only ``keys`` and none of
    ``others``, with their parts and numbers of tensors."""
    taken = {key.rsplit('.', n)[0] for key in others for n in range(key.count('.') + 1)}
    found: dict[str, list] = {}
    for key in keys:
        parts = key.split('.')
        name = next(
            (
                name
                for name in ('.'.join(parts[:n]) for n in range(1, len(parts)))
                if name not in taken
            ),
            key,
        )
        found.setdefault(name, []).append(key[len(name) + 1 :].split('.')[0])
    return ', '.join(
        f'{name} ({", ".join(dict.fromkeys(parts))}; {len(parts)} tensors)'
        if parts[0]
        else name
        for name, parts in found.items()
    )


class CheckpointFitHook(Hook):
    """Refuse a checkpoint of another model before it is loaded; see
    :func:`~pvd_mm.engine.checkpoint.check_fit`.

    Args:
        path (str): Its file, for the message.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Check it; by now every runner has built its model."""
        check_fit(runner.model, checkpoint, self.path)


@HOOKS.register_module()
class ClassCheckHook(Hook):
    """Compare ``num_classes`` of the heads with the classes of the training's data.

    What may be meant is told in a warning; see
    :func:`~pvd_mm.utils.dataset_classes.compare_classes`.
    """

    priority = 'HIGHEST'  # before other hooks wrap the dataset

    def before_train(self, runner) -> None:
        """Compare them, before the first step.

        Raises:
            ClassesError: A head has fewer classes than the data.
        """
        dataset = runner.train_loop.dataloader.dataset
        fewer, other = compare_classes(runner.model, dataset)
        if fewer:
            raise ClassesError('; '.join(fewer) + '.')
        for text in other:
            runner.logger.warning(text)


@HOOKS.register_module()
class LoadReportHook(Hook):
    """Say before training what ``load_from`` brought, if not everything.

    A detector may start from one with another mask head, a fine-tuned model
    has other classes. mmengine lists the names of the tensors that do not
    fit; this hook names the modules: which start anew, and what of the file
    was left out. Silent when everything fits, and when training is resumed.
    """

    def __init__(self) -> None:
        self._fit: CheckpointFit | None = None

    def after_load_checkpoint(self, runner, checkpoint: dict) -> None:
        """Compare the file with the model, before it is loaded."""
        self._fit = fit_checkpoint(runner.model, checkpoint)

    def before_train(self, runner) -> None:
        """Log the comparison."""
        fit, self._fit = self._fit, None
        if (
            fit is None
            or runner._resume
            or not (fit.missing or fit.unexpected or fit.differing)
        ):
            return
        given = set(fit.given)
        shared = [key for key in fit.own if key in given]
        taken = len(shared) - len(fit.differing)
        lines = [
            f'{runner._load_from}: {taken} of the {len(fit.given)} '
            f"tensors of the file are among the model's {len(fit.own)}."
        ]
        if fit.missing:
            lines.append(
                f'not in the file, start anew: {_modules_of(fit.missing, shared)}'
            )
        if fit.unexpected:
            lines.append(
                f'of the file, left out: {_modules_of(fit.unexpected, shared)}'
            )
        lines += [
            f'of another shape, left out: {key}, {shapes}'
            for key, shapes in fit.differing.items()
        ]
        runner.logger.warning('\n  '.join(lines))
