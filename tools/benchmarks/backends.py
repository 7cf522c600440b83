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
from pvd_mm.utils.markdown import markdown_table
from pvd_mm.utils.timing import current_device, take_turns

from .base import ModelBenchmark


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
        return [_detached(item) for item in arguments]
    return arguments


def training_parts(benchmark: ModelBenchmark) -> dict[str, Callable[[], None]]:
    """What is timed of a model: a ``training step``; forward and backward of
    its ``decoder``; and of its ``decoding`` alone, from votes that are there
    to the decoded map. Each contains the next.

    Raises:
        ValueError: If the model has no :class:`.PixelVotingDecoder`.
    """
    decoder = next(
        (
            module
            for module in benchmark.model.modules()
            if isinstance(module, PixelVotingDecoder)
        ),
        None,
    )
    if decoder is None:
        raise ValueError(f'{benchmark.name} has no PixelVotingDecoder')
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
        benchmark.train()
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
        'training step': benchmark.train,
        'decoder': both_ways('forward'),
        'decoding': both_ways('decode'),
    }


def _forget_gradients(module: nn.Module, arguments) -> None:
    module.zero_grad()
    if isinstance(arguments, Tensor):
        arguments.grad = None
    elif isinstance(arguments, list):
        for item in arguments:
            _forget_gradients(module, item)


def compare_backends(
    benchmark: ModelBenchmark,
    backends: Sequence[str],
    pairs: int = 20,
    report: Callable[[str], None] = print,
) -> list[dict]:
    """Time :func:`training_parts` with two backends in alternation.

    Args:
        benchmark (ModelBenchmark): A model, loaded here.
        backends (Sequence[str]): Two backends of the op.
        pairs (int): Timed pairs of each part, after one to warm up.
            Defaults to 20.
        report (Callable): Called with a line after each part.

    Returns:
        list[dict]: For each part ``name`` (the model's), ``part``, the
        median seconds by backend ``seconds``, and how many times longer the
        first takes than the second, ``ratio``, the median over pairs, with
        its ``quartiles``.
    """
    benchmark.load()
    with current_device(benchmark.device):
        results = []
        for part, action in training_parts(benchmark).items():
            results.append(_compare_part(benchmark.name, part, action, backends, pairs))
            report(markdown(results).splitlines()[-1])
    return results


def _compare_part(
    name: str,
    part: str,
    action: Callable[[], None],
    backends: Sequence[str],
    pairs: int,
) -> dict:
    actions = {backend: _backend(backend)(action) for backend in backends}
    for backend in reversed(backends):
        actions[backend]()  # warms up
    samples = take_turns(actions, pairs, alternate=True)
    ratios = [first / second for first, second in zip(*samples.values())]
    low, _, high = (
        statistics.quantiles(ratios, n=4, method='inclusive')
        if pairs > 1
        else ratios * 3
    )
    return dict(
        name=name,
        part=part,
        ratio=statistics.median(ratios),
        quartiles=[low, high],
        seconds={
            backend: statistics.median(values) for backend, values in samples.items()
        },
    )


def markdown(results: Sequence[dict]) -> str:
    """A table of the results of :func:`compare_backends`."""
    first, second = results[0]['seconds']
    head = [
        'config',
        'part',
        f'{first} (ms)',
        f'{second} (ms)',
        f'{first} / {second}',
        'quartiles',
    ]
    return markdown_table(head, [_row(result) for result in results], left=2)


def _row(result: dict) -> list[str]:
    low, high = result['quartiles']
    return [
        result['name'],
        result['part'],
        *(f'{seconds * 1e3:,.4g}' for seconds in result['seconds'].values()),
        f'{result["ratio"]:.3f}',
        f'{low:.3f} to {high:.3f}',
    ]
