# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The time of calls, candidates side by side.

Times mean something only next to each other: on a busy machine all candidates must be
busy with it. So they take turns, round by round, in one process.
"""

from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch.utils.benchmark import timer

Name = TypeVar('Name', bound=Hashable)


def current_device(device: str) -> AbstractContextManager:
    """Make a GPU the current one, which is the one that is waited for when time is
    taken. For a CPU it does nothing.

    Args:
        device (str): 'cpu', 'cuda', 'cuda:0', ...
    """
    return torch.cuda.device(device) if device.startswith('cuda') else nullcontext()


def time_calls(action: Callable[[], object], number: int = 1) -> float:
    """Seconds of a call, the mean of some in a row, with what they queue on the current
    GPU (see :func:`current_device`).

    What a call returns is freed before the next one.

    Args:
        action (Callable): What is called.
        number (int): How often. Defaults to 1.
    """
    start = timer()
    for _ in range(number):
        action()
    return (timer() - start) / number


def take_turns(
    actions: Mapping[Name, Callable[[], object]],
    rounds: int | Mapping[Name, int],
    number: int | Mapping[Name, int] = 1,
    warm_up: int = 0,
    alternate: bool = False,
    report: Callable[[Name, float], None] | None = None,
) -> dict[Name, list[float]]:
    """Time candidates in turn.

    Args:
        actions (Mapping): Name of a candidate to what is called.
        rounds (int or Mapping): How many samples are taken, of all or of each. Of a
            candidate that has fewer than others they are spread evenly over the rounds,
            so that all medians are taken over the same minutes.
        number (int or Mapping): Calls of a sample, of all or of each. Defaults to 1.
        warm_up (int): Untimed calls before each sample: what is timed then finds the
            caches and the allocator as its own kind left them. Defaults to 0.
        alternate (bool): Whether every other round is in reverse order, lest one
            candidate always come first. Defaults to False.
        report (Callable, optional): Called with the name and the seconds after each
            sample. Defaults to None.

    Returns:
        dict: Name to the seconds of a call, a value for each sample.
    """
    rounds = rounds if isinstance(rounds, Mapping) else dict.fromkeys(actions, rounds)
    number = number if isinstance(number, Mapping) else dict.fromkeys(actions, number)
    samples = {name: [] for name in actions}
    most = max(rounds.values(), default=0)
    for turn in range(most):
        names = list(actions)
        for name in reversed(names) if alternate and turn % 2 else names:
            # n samples: one in the middle of each n-th part of the rounds
            before, after = (
                (2 * end * rounds[name] + most) // (2 * most)
                for end in (turn, turn + 1)
            )
            if before == after:
                continue
            for _ in range(warm_up):
                actions[name]()
            samples[name].append(time_calls(actions[name], number[name]))
            if report is not None:
                report(name, samples[name][-1])
    return samples
