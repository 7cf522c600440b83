# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a backend of the op is worth in training: the same model with one and
the other.

The op is a small part of a step, and steps vary by more than that. So the
backends take turns, step by step, and it is the ratio within each pair that
is looked at, by its median and its quartiles.
"""

import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pvd_mm.decoder import PixelVotingDecoder
from pvd_mm.ops.backends import VARIABLE

from .models import Subject, _seconds


@contextmanager
def _backend(name: str) -> Iterator[None]:
    """Let 'auto' mean a backend."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = name
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def _detached(arguments):  # of nested lists and tuples
    if isinstance(arguments, Tensor):
        return arguments.detach().requires_grad_(arguments.requires_grad)
    if isinstance(arguments, (list, tuple)):
        return [_detached(one) for one in arguments]
    return arguments


def training_parts(subject: Subject) -> dict[str, Callable[[], None]]:
    """What is timed of a model: a ``training step``; forward and backward of
    its ``decoder``; and of its ``decoding`` alone, from votes that are there
    to the decoded map. Each contains the next.

    Raises:
        ValueError: If the model has no :class:`.PixelVotingDecoder`.
    """
    decoder = next(
        (
            module
            for module in subject.model.modules()
            if isinstance(module, PixelVotingDecoder)
        ),
        None,
    )
    if decoder is None:
        raise ValueError(f'{subject.name} has no PixelVotingDecoder')
    given = {}

    def record(name: str, method: Callable) -> Callable:
        def recorded(*arguments):
            given[name] = arguments
            return method(*arguments)

        return recorded

    methods = {name: getattr(decoder, name) for name in ('forward', 'decode')}
    for name, method in methods.items():
        setattr(decoder, name, record(name, method))
    try:
        subject.train()
    finally:
        for name in methods:
            delattr(decoder, name)

    def both_ways(name: str) -> Callable[[], None]:
        arguments = _detached(given[name])

        def run() -> None:
            decoded = methods[name](*arguments)[0]
            decoded.backward(torch.ones_like(decoded))
            _forget_gradients(decoder, arguments)

        return run

    return {
        'training step': subject.train,
        'decoder': both_ways('forward'),
        'decoding': both_ways('decode'),
    }


def _forget_gradients(module: nn.Module, arguments) -> None:
    module.zero_grad()
    if isinstance(arguments, Tensor):
        arguments.grad = None
    elif isinstance(arguments, list):
        for one in arguments:
            _forget_gradients(module, one)


def compare_backends(
    subject: Subject,
    backends: Sequence[str],
    pairs: int = 20,
    report: Callable[[str], None] = print,
) -> list[dict]:
    """Time :func:`training_parts` with two backends in alternation.

    Args:
        subject (Subject): A model, loaded here.
        backends (Sequence[str]): Two backends of the op.
        pairs (int): Timed pairs of each part, after one to warm up.
            Defaults to 20.
        report (Callable): Called with a line after each part.

    Returns:
        list[dict]: For each part ``name`` (the subject's), ``part``, the
        median seconds by backend ``seconds``, and how many times longer the
        first takes than the second, ``ratio``, the median over pairs, with
        its ``quartiles``.
    """
    subject.load()
    results = []
    for part, action in training_parts(subject).items():
        times = {name: [] for name in backends}
        for turn in range(pairs + 1):
            # in either order, lest one always comes first
            for name in backends[:: 1 if turn % 2 else -1]:
                with _backend(name):
                    seconds = _seconds(action, subject.device)
                if turn:
                    times[name].append(seconds)
        ratios = [a / b for a, b in zip(*times.values())]
        quartiles = (
            statistics.quantiles(ratios, n=4, method='inclusive')
            if pairs > 1
            else ratios * 3
        )
        results.append(
            dict(
                name=subject.name,
                part=part,
                ratio=statistics.median(ratios),
                quartiles=[quartiles[0], quartiles[-1]],
                seconds={name: statistics.median(t) for name, t in times.items()},
            )
        )
        report(row(results[-1]))
    return results


def row(result: dict) -> str:
    """A result as a row of :func:`table`."""
    low, high = result['quartiles']
    cells = [
        result['name'],
        result['part'],
        *(f'{seconds * 1e3:,.4g}' for seconds in result['seconds'].values()),
        f'{result["ratio"]:.3f}',
        f'{low:.3f} to {high:.3f}',
    ]
    return '| ' + ' | '.join(cells) + ' |'


def table(results: Sequence[dict]) -> str:
    """The results of :func:`compare_backends` in Markdown."""
    first, second = results[0]['seconds']
    head = (
        f'| config | part | {first} (ms) | {second} (ms) | '
        f'{first} / {second} | quartiles |'
    )
    return '\n'.join(
        [head, '| --- | --- | ---: | ---: | ---: | ---: |', *map(row, results)]
    )
