# Copyright (c) PVD-MM contributors. Apache-2.0.
"""One backend of the op against another in a model's training step."""

import os

import torch

from pvd_mm.ops.backends import VARIABLE, matrix, reference

CONFIG = 'pvd_r18-stage-c32_1xb2-600_street-192x256'


def test_each_backend_has_its_turn(monkeypatch):
    from benchmarks.backends import compare_backends, markdown
    from benchmarks.models import benchmark_class
    from pvd_mm import register_all_modules
    from pvd_mm.engine.config import load_config

    register_all_modules()
    turns = []
    forward = matrix.forward
    for backend in (matrix, reference):

        def counted(*arguments, backend=backend):
            turns.append(backend)
            return forward(*arguments)

        monkeypatch.setattr(backend, 'forward', counted)
    monkeypatch.setattr(reference, 'backward', matrix.backward)
    monkeypatch.delenv(VARIABLE, raising=False)
    cfg = load_config(CONFIG)
    street = benchmark_class('mmseg')(cfg, 'street', (32, 64), 2, 'cpu')
    lines = []
    results = compare_backends(street, ('matrix', 'reference'), 2, lines.append)
    assert VARIABLE not in os.environ
    assert [result['part'] for result in results] == [
        'training step',
        'decoder',
        'decoding',
    ]
    assert markdown(results).splitlines()[2:] == lines
    for result in results:
        low, high = result['quartiles']
        assert 0 < low <= result['ratio'] <= high
        assert list(result['seconds']) == ['matrix', 'reference']
    # three parts of four steps, in a pair to warm up and in two that count
    assert turns.count(matrix) == turns.count(reference) == 3 * 4 * 3


def test_the_tool(run_tool):
    said = run_tool(
        'benchmark_backends',
        CONFIG,
        *('--size', 32, 64, '--pairs', 1, '--threads', torch.get_num_threads()),
        *('--backends', 'matrix', 'reference'),
    )
    assert '| matrix (ms) | reference (ms) | matrix / reference |' in said
    # each row as it is measured, and the table
    assert said.count('| `pvd_r18-stage-c32') == 6


def test_a_model_without_the_decoder_is_refused(run_tool):
    config = 'deeplabv3_r18-d8-c32_1xb2-600_street-192x256'
    said = run_tool(
        'benchmark_backends', config, *('--size', 32, 64, '--pairs', 1), ok=False
    )
    assert f'benchmark_backends: `{config}`, 32×64 has no PixelVotingDecoder' in said


def test_the_tool_refuses_what_makes_no_sense(run_tool):
    said = run_tool('benchmark_backends', CONFIG, '--backends', 'cpp', 'cpp', ok=False)
    assert 'error: --backends must be two different ones' in said
    said = run_tool('benchmark_backends', CONFIG, '--batch-size', 1, ok=False)
    assert 'benchmark_backends: --batch-size must be at least 2 to train' in said
    said = run_tool('benchmark_backends', CONFIG, '--pairs', 0, ok=False)
    assert 'error: --pairs must be at least 1' in said
