# Copyright (c) PVD-MM contributors. Apache-2.0.
"""One backend of the op against another in a model's training step."""

import os
import subprocess
import sys

from helpers.commands import ROOT
from pvd_mm.ops.backends import VARIABLE, matrix, reference

TOOL = ROOT / 'tools' / 'benchmark_backends.py'
CONFIG = 'pvd_r18-stage-c32_1xb2-600_street-192x256'


def run(*arguments):
    return subprocess.run(
        [sys.executable, TOOL, *arguments],
        text=True,
        capture_output=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )


def test_each_backend_has_its_turn(monkeypatch):
    from benchmarks.backends import compare_backends, table
    from benchmarks.subjects import subject_class
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
    subject = subject_class('mmseg')(cfg, 'street', (32, 64), 2, 'cpu')
    lines = []
    results = compare_backends(subject, ('matrix', 'reference'), 2, lines.append)
    assert VARIABLE not in os.environ
    assert [one['part'] for one in results] == ['training step', 'decoder', 'decoding']
    assert table(results).splitlines()[2:] == lines
    for one in results:
        low, high = one['quartiles']
        assert 0 < low <= one['ratio'] <= high
        assert list(one['seconds']) == ['matrix', 'reference']
    # three parts of four steps, in a pair to warm up and in two that count
    assert turns.count(matrix) == turns.count(reference) == 3 * 4 * 3


def test_the_tool():
    done = run(
        CONFIG,
        '--size',
        '32',
        '64',
        '--pairs',
        '1',
        '--threads',
        '1',
        '--backends',
        'matrix',
        'reference',
    )
    assert done.returncode == 0, done.stderr
    assert '| matrix (ms) | reference (ms) | matrix / reference |' in done.stdout
    assert done.stdout.count('| `pvd_r18-stage-c32') == 3


def test_a_model_without_the_decoder_is_refused():
    done = run(
        'deeplabv3_r18-d8-c32_1xb2-600_street-192x256',
        '--size',
        '32',
        '64',
        '--pairs',
        '1',
    )
    assert done.returncode == 1 and 'has no PixelVotingDecoder' in done.stderr
    done = run(CONFIG, '--backends', 'cpp', 'cpp')
    assert done.returncode == 2 and 'two different ones' in done.stderr
