# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op's benchmark, on small maps and without the compiler."""

import json
import subprocess
import sys
from functools import partial

import pytest
import torch

from benchmarks import op, op_candidates, op_report
from benchmarks.op_candidates import (
    KINDS,
    Candidate,
    Settings,
    check,
    make_candidates,
    traffic,
)
from benchmarks.op_report import results_folder
from helpers.commands import ROOT
from pvd_mm.ops import dynamic_deconv2d
from pvd_mm.utils import timing
from pvd_mm.utils.files import BlockedPathError

TOOL = ROOT / 'tools' / 'benchmark_op.py'
SMALL = Settings(
    sizes=(4, 6),
    channels=3,
    device='cpu',
    budget=1e-3,
    least_runs=2,
    step_pixels=16,
    without=('compiled',),
)


@pytest.fixture(scope='module')
def result():
    lines = []
    measured = op.measure(SMALL, lines.append, 'command')
    assert len(lines) == 8 and '6², stride 2, forward+backward: ' in lines[-1]
    return measured


@pytest.mark.parametrize('formulation', ['exact', 'factored'])
@pytest.mark.parametrize('stride', [1, 2, 3])
def test_all_forms_of_the_op_compute_the_same(formulation, stride):
    settings = SMALL._replace(formulation=formulation, dtype='float64', step_pixels=99)
    candidates, _ = make_candidates(settings, 5, stride)
    by_name = {candidate.name: candidate for candidate in candidates}
    output, grads = by_name['matrix'].both()
    assert output.shape == (1, 3, 5 * stride, 5 * stride)
    compared = {'reference', 'fold', 'cpp', 'triton'} & set(by_name)
    assert compared >= {'reference', 'fold'}
    for name in compared:
        other, other_grads = by_name[name].both()
        torch.testing.assert_close(other, output)
        torch.testing.assert_close(other_grads, grads)
        torch.testing.assert_close(by_name[name].forward(), output)


def test_the_compiled_peer_computes_the_same(monkeypatch):
    """Compiling takes long, so here it runs as it is."""
    monkeypatch.setattr(torch, 'compile', lambda function, **_: function)
    settings = SMALL._replace(without=())
    by_name = {
        candidate.name: candidate for candidate in make_candidates(settings, 6, 2)[0]
    }
    torch.testing.assert_close(by_name['compiled'].both(), by_name['matrix'].both())


def test_the_step_update_runs_on_a_part_of_the_map():
    by_name = {
        candidate.name: candidate for candidate in make_candidates(SMALL, 8, 2)[0]
    }
    assert by_name['reference'].scale == 4  # 16 pixels of 64
    assert by_name['reference'].forward().shape == (1, 3, 8, 8)
    assert by_name['matrix'].scale == 1
    assert by_name['matrix'].forward().shape == (1, 3, 16, 16)


@pytest.mark.parametrize('stride', [1, 2])
def test_peers_have_the_size_of_the_op(stride):
    by_name = {
        candidate.name: candidate
        for candidate in make_candidates(SMALL, 6, stride, True)[0]
    }
    output = by_name['matrix'].forward()
    assert by_name['conv_transpose2d'].forward().shape == output.shape
    side = 6 // stride
    assert by_name['conv2d'].forward().shape == (1, 3, side, side)
    # input, votes and output once each: a copy reads half and writes half
    moved = 4 * (36 * (3 + 9) + output.numel())
    assert traffic(3, 6, stride, 4)[0] == moved
    for name in ('copy', 'copy_reused'):
        assert 2 * by_name[name].forward().nbytes == moved


def test_results(result):
    names = {'reference', 'matrix', 'fold', 'conv_transpose2d', 'copy', 'copy_reused'}
    names |= {'cpp'} - set(result['left_out'])
    cells = [
        (entry['name'], entry['size'], entry['stride'], entry['kind'])
        for entry in result['times']
    ]
    assert len(cells) == len(set(cells))
    wanted = {
        (name, size, stride, kind)
        for name in names
        for size in (4, 6)
        for stride in (1, 2)
        for kind in KINDS
    }
    wanted |= {('conv2d', 6, stride, kind) for stride in (1, 2) for kind in KINDS}
    assert set(cells) >= wanted
    for entry in result['times']:
        assert 0 < entry['best_s'] <= entry['median_s']
        assert entry['samples'] >= 2 and entry['calls'] >= 1
        assert (entry['scale'] != 1) == (
            entry['name'] == 'reference' and entry['size'] == 6
        )
    assert 'carafe' in result['left_out']
    assert result['best'] == ('cpp' if 'cpp' in names else 'matrix')
    assert json.loads(json.dumps(result))['summary'] == result['summary']


def test_memory_of_the_op(result):
    """The forward pass of the C++ allocates its output and nothing else of
    the size of a map."""
    if result['best'] != 'cpp':
        pytest.skip('the extension is not built')
    pytest.importorskip('mmengine')
    by_name = {
        (entry['name'], entry['stride'], entry['kind']): entry['peak_mib']
        for entry in result['memory']
    }
    for stride in (1, 2):
        output, given = 3 * (6 * stride) ** 2, 36 * (3 + 9)
        kinds = dict(zip(KINDS, (output, output + given)))
        for kind, numbers in kinds.items():
            got = by_name['cpp', stride, kind] * 2**20
            # torch rounds each tensor up to a multiple of 64 bytes
            assert 4 * numbers <= got <= 4 * numbers + 256
            assert by_name['fold', stride, kind] > 2 * by_name['cpp', stride, kind]


def test_tables(result):
    text = op_report.markdown(result)
    assert 'command' in text and '≈ ' in text
    for title in ('Table 3, forward.', 'Table 4, forward+backward.', 'Peers, stride 2'):
        assert f'**{title}' in text
    assert 'multiplied up' in text and 'part of 4×4 pixels' in text
    assert 'begins with an untimed call' in text
    assert 'torch.compile is left out: asked to' in text
    for table in text.split('\n\n'):
        lines = table.splitlines()
        if lines[0].startswith('|'):
            assert len({line.count('|') for line in lines}) == 1
    first = text.split('Table 3, forward.')[1].split('\n\n')[1].splitlines()
    assert [line.split('|')[1].strip() for line in first[2:]] == ['6²', '4²']


def times(**seconds):
    """A result with the times a + b·size of each candidate, in both kinds."""
    sizes = [8, 16, 32, 64, 128, 256, 512]
    return dict(
        settings=dict(
            SMALL._asdict(), sizes=sizes, strides=[1], channels=19, dtype='float32'
        ),
        best='cpp',
        times=[
            dict(name=name, size=size, stride=1, kind=kind, median_s=f(size) * times)
            for name, f in seconds.items()
            for size in sizes
            for times, kind in ((1, 'forward'), (3, 'forward+backward'))
        ],
    )


def test_summary_ratios():
    made = times(
        cpp=lambda size: 1.0,
        matrix=lambda size: {128: 2.0, 256: 4.0, 512: 8.0}.get(size, 100.0),
        conv_transpose2d=lambda size: 0.5 if size < 64 else 10.0,
        copy=lambda size: 0.8,
        copy_reused=lambda size: 0.25,
    )
    value = {line['what']: line['value'] for line in op_report.summary(made)}
    mean = 'matrix / cpp, forward, 128² to 512², stride 1, geometric mean'
    assert value[mean] == pytest.approx(4)
    assert value['cpp / conv_transpose2d, forward, 32², stride 1'] == 2
    assert value['conv_transpose2d / cpp, forward+backward, from 64² up, least'] == 10
    assert value['cpp / copy, forward, 512², stride 1'] == pytest.approx(1.25)
    assert value['cpp, share of that, forward, 512², stride 1'] == 0.25


def test_slow_candidates_have_fewer_turns(monkeypatch):
    """Their turns are spread over all rounds, and none has too few. Each turn
    begins with a call that is not timed."""
    order = []
    seconds = dict(fast=0.001, slow=0.004, slowest=1.0)

    def timed(action, number=1):
        action()
        return seconds[order[-1]]

    for module in (op, timing):
        monkeypatch.setattr(module, 'time_calls', timed)
    candidates = [
        Candidate(name, partial(order.append, name), None) for name in seconds
    ]
    settings = SMALL._replace(budget=0.04, least_runs=3)
    times, failed = op.time_candidates(candidates, 'forward', settings)
    assert not failed
    assert {name: time['samples'] for name, time in times.items()} == dict(
        fast=41, slow=11, slowest=3
    )
    assert order[6::2] == order[7::2]  # an untimed call of its own before each
    rounds = order[7::2]  # after two of each
    gaps = [i for i, name in enumerate(rounds) if name == 'slow']
    assert {b - a for a, b in zip(gaps, gaps[1:])} <= {5, 6}
    assert rounds.index('slowest') > 10


def test_a_peer_that_fails_is_left_out():
    def fail():
        raise RuntimeError('backend raised:\nno compiler\nmore')

    broken = Candidate('compiled', fail, fail)
    good = Candidate('copy', lambda: None, lambda: None)
    times, failed = op.time_candidates([broken, good], 'forward', SMALL)
    assert set(times) == {'copy'} and failed == {'compiled': 'no compiler'}
    with pytest.raises(RuntimeError, match='no compiler'):
        op.time_candidates([broken._replace(name='cpp')], 'forward', SMALL)


@pytest.mark.parametrize(
    'wrong, message',
    [
        (dict(sizes=(0,)), 'sizes must be at least 1'),
        (dict(strides=()), 'strides must be at least 1'),
        (dict(channels=0), 'channels must be at least 1'),
        (dict(budget=float('nan')), 'budget must be seconds > 0'),
        (dict(dtype='int8'), 'dtype must be one of'),
        (dict(formulation='x'), 'formulation must be one of'),
        (dict(without=('nobody',)), "'nobody' is none of"),
        (dict(without=('matrix',)), 'matrix is what'),
        (dict(device='gpu'), 'device must be cpu, cuda or cuda:N'),
        (dict(device='cuda:99'), "'cuda:99' is not there"),
    ],
)
def test_mistakes(wrong, message):
    with pytest.raises(ValueError, match=message):
        check(SMALL._replace(**wrong))


def test_check_sorts():
    settings = check(SMALL._replace(sizes=[64, 8, 64], device=None))
    assert settings.sizes == (8, 64) and settings.device in ('cpu', 'cuda')


def test_the_tool(tmp_path):
    out = tmp_path / 'new' / 'results'
    options = ['--out', out, '--sizes', 4, '--strides', 2, '--channels', 2]
    options += ['--budget', 0.001, '--threads', 1, '--device', 'cpu']
    options += ['--without', 'compiled', 'reference', 'fold', 'conv2d', 'copy']
    done = subprocess.run(
        [sys.executable, str(TOOL), *map(str, options)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert 'share of that' in done.stdout
    assert str(out / 'op_speed.md') in done.stdout
    assert '4², stride 2, forward: ' in done.stderr
    data = json.loads((out / 'op_speed.json').read_text())
    assert data['threads'] == 1 and data['settings']['channels'] == 2
    assert data['command'].startswith('python tools/benchmark_op.py --out')
    assert 'Table 3' in (out / 'op_speed.md').read_text()


@pytest.mark.parametrize(
    'options, message',
    [
        ((), 'already holds op_speed.md'),
        (('--sizes', '0'), 'sizes must be at least 1'),
        (('--threads', '0'), '--threads must be at least 1'),
        (('--dtype', 'int8'), 'invalid choice'),
        (('--force', '--device', 'gpu'), 'device must be cpu, cuda or cuda:N'),
    ],
)
def test_the_tool_tells_mistakes(options, message, tmp_path, run_tool):
    (tmp_path / 'op_speed.md').write_text('mine')
    said = run_tool('benchmark_op', '--out', tmp_path, *options, ok=False)
    assert message in said.split('benchmark_op.py: error: ')[1]
    assert (tmp_path / 'op_speed.md').read_text() == 'mine'


def test_results_are_replaced_when_asked(tmp_path):
    (tmp_path / 'fig8.png').touch()
    with pytest.raises(ValueError, match='already holds fig8.png'):
        results_folder(tmp_path)
    assert results_folder(tmp_path, force=True) == tmp_path
    with pytest.raises(BlockedPathError, match='fig8.png is a file'):
        results_folder(tmp_path / 'fig8.png', force=True)


def test_picture(result, tmp_path):
    pytest.importorskip('matplotlib')
    written = op_report.write(result, tmp_path)
    assert [path.name for path in written] == list(op_report.FILES)
    assert (tmp_path / 'fig8.png').read_bytes()[:4] == b'\x89PNG'


def test_without_matplotlib(result, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'matplotlib.figure', None)
    written = op_report.write(result, tmp_path)
    assert [path.name for path in written] == ['op_speed.json', 'op_speed.md']


def test_backends_are_called_as_users_call_them(monkeypatch):
    called = []

    def spy(*arguments, **options):
        called.append(options['backend'])
        return dynamic_deconv2d(*arguments, **options)

    monkeypatch.setattr(op_candidates, 'dynamic_deconv2d', spy)
    for candidate in make_candidates(SMALL, 4, 1)[0]:
        candidate.forward()
    assert {'reference', 'matrix'} <= set(called)
