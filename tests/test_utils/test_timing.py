# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Candidates that take turns."""

import time

import pytest
import torch

from pvd_mm.utils.timing import current_device, take_turns, time_calls


def recorders(*names):
    """Actions that record their turns."""
    order = []
    return order, {name: lambda name=name: order.append(name) for name in names}


def test_the_mean_of_some_calls():
    calls = []

    def action():
        calls.append(0)
        time.sleep(0.01)

    assert 0.01 <= time_calls(action, 3) < 0.1
    assert len(calls) == 3


def test_what_a_call_returns_is_freed_before_the_next():
    alive = []

    class Result:
        def __init__(self):
            assert not alive
            alive.append(self.__class__)

        def __del__(self):
            alive.pop()

    time_calls(Result, 3)


def test_candidates_take_turns():
    order, actions = recorders('a', 'b')
    samples = take_turns(actions, 3)
    assert order == list('ababab')
    assert {name: len(values) for name, values in samples.items()} == dict(a=3, b=3)
    assert all(value >= 0 for values in samples.values() for value in values)


def test_every_other_round_is_in_reverse_order():
    order, actions = recorders('a', 'b', 'c')
    take_turns(actions, 3, alternate=True)
    assert order == list('abccbaabc')


def test_calls_of_a_sample_and_before_it():
    order, actions = recorders('a', 'b')
    take_turns(actions, 2, number=dict(a=3, b=1), warm_up=1)
    assert order == list('aaaabb' * 2)


@pytest.mark.parametrize(
    'few, wanted', [(0, ''), (1, 'aabaa'), (2, 'abaaba'), (4, 'abababab')]
)
def test_few_samples_are_spread_over_the_rounds(few, wanted):
    order, actions = recorders('a', 'b')
    samples = take_turns(actions, dict(a=4, b=few))
    assert len(samples['b']) == few
    assert ''.join(order) == (wanted or 'aaaa')


@pytest.mark.parametrize('most', range(1, 12))
def test_spread_samples_are_as_many_as_asked(most):
    for few in range(most + 1):
        order, actions = recorders('a', 'b')
        take_turns(actions, dict(a=most, b=few))
        assert order.count('a') == most and order.count('b') == few


def test_samples_are_reported_as_they_are_taken():
    order, actions = recorders('a', 'b')
    reported = []
    samples = take_turns(
        actions, 2, report=lambda *sample: reported.append((len(order), *sample))
    )
    assert [place for place, _, _ in reported] == [1, 2, 3, 4]
    assert [value for _, name, value in reported if name == 'b'] == samples['b']


def test_a_cpu_needs_no_current_device():
    with current_device('cpu'):
        pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_what_is_queued_on_a_gpu_is_waited_for():
    with current_device(f'cuda:{torch.cuda.device_count() - 1}'):
        matrix = torch.rand(4096, 4096, device='cuda')
        matrix @ matrix
        queued = time.perf_counter()
        matrix @ matrix
        queued = time.perf_counter() - queued
        assert time_calls(lambda: matrix @ matrix, 10) > 2 * queued
