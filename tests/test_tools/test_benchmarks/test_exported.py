# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Exported models side by side, on a tiny one and on one that cannot be exported."""

import json
from pathlib import Path

import pytest

from helpers.commands import ROOT
from helpers.torch_features import needs_automatic_sizes
from pvd_mm.engine.records import check_record, read_records

pytest.importorskip('mmseg', reason='mmseg is not installed')

TINY = str(ROOT / 'tests/helpers/tiny_fcn.py')
MISSING = 'mmseg::fastscnn/no_such_one.py'


@pytest.fixture
def measured():
    """What a benchmark of three models finds, the last one without success."""

    def model(name, onnx, torch, **operators):
        about = dict(name=name, config=f'{name}.py', problem='', bytes=2_500_000)
        about.update(nodes=7, operators=operators, runs=[])
        for runtime, seconds in dict(onnxruntime=onnx, PyTorch=torch).items():
            run = dict(runtime=runtime, size=[4, 8], seconds=seconds, peak_mib=10.4)
            about['runs'].append(run)
        return about

    models = [
        model('ours', [0.01, 0.03, 0.02], [0.1], Conv=0.8, Col2Im=0.2),
        model('theirs', [0.04], [], Conv=0.6, Softmax=0.4),
        dict(name='none', config='none.py', problem='it cannot'),
    ]
    return dict(threads=1, sizes=[[4, 8]], models=models)


def test_the_tables(measured):
    from benchmarks.exported import markdown

    times, operators, problems = markdown(measured).split('\n\n')
    assert times.splitlines()[2:] == [
        '| ours | 2.5 | 20 | 15 to 25 | 1.00 | 10 | 100 | 100 to 100 | 1.00 | 10 |',
        '| theirs | 2.5 | 40 | 40 to 40 | 2.00 | 10 | – | – | – | – |',
    ]
    assert operators.splitlines()[2:] == [
        '| ours | 80.0 | 0.0 | 20.0 | 0.0 | 7 |',
        '| theirs | 60.0 | 40.0 | 0.0 | 0.0 | 7 |',
    ]
    assert problems == '- none: it cannot'


def test_a_page_holds_them(measured, tmp_path):
    from pvd_mm.engine.records import new_record, write_record
    from results.pages import update_page

    path = write_record(str(tmp_path), new_record('exported', measured, 'cpu'))
    page = tmp_path / 'page.md'
    page.write_text(f'<!-- table: {path.stem} -->\n<!-- end -->\n')
    text = update_page(page, read_records([str(tmp_path)])[0])
    assert '| theirs | 2.5 | 40 |' in text and 'CPUs), ' in text


@needs_automatic_sizes
def test_the_tool_goes_on(run_tool, tmp_path):
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason=f'{name} is not installed')
    words = [TINY, MISSING, '--size', 33, 64, '--threads', 1, '--out', tmp_path]
    said = run_tool('benchmark_exported', *words, '--rounds', 1)
    assert 'tiny_fcn: exported' in said
    assert '1/1, tiny_fcn, onnxruntime, 33×64' in said
    problem = f'no_such_one: {MISSING} is no config of mmseg'
    assert f'- {problem}' in said
    file = tmp_path / 'tiny_fcn.onnx'
    before = file.stat().st_mtime_ns

    said = run_tool('benchmark_exported', *words, '--rounds', 2)
    assert '2/2, tiny_fcn, PyTorch, 33×64' in said and '1/2' not in said
    assert file.stat().st_mtime_ns == before
    records, broken = read_records([str(tmp_path)])
    assert not broken and [record['kind'] for record in records] == ['exported'] * 2
    progress = json.loads((tmp_path / 'progress.json').read_text())['result']
    assert progress in [record['result'] for record in records]
    tiny, missing = progress['models']
    assert missing['problem'].startswith(MISSING)
    assert tiny['bytes'] == file.stat().st_size and tiny['params'] > 0
    assert tiny['difference'] < 1e-3 * tiny['largest']
    assert sum(tiny['operators'].values()) == pytest.approx(1)
    for run in tiny['runs']:
        assert len(run['seconds']) == 2 and min(run['seconds']) > 0
        if Path('/proc/self/clear_refs').exists():
            assert run['peak_mib'] > tiny['bytes'] / 2**20

    other = run_tool('benchmark_exported', *words, '--size', 8, 8, ok=False)
    assert 'cannot be gone on with: its sizes are [[33, 64]]' in other


@needs_automatic_sizes
def test_a_file_for_each_size(tmp_path):
    """Of a model whose maps don't fit at all sizes."""
    for name in ('onnx', 'onnxscript', 'onnxruntime'):
        pytest.importorskip(name, reason=f'{name} is not installed')
    from benchmarks.exported import Candidate, _export, _in_onnxruntime

    about, sizes = {}, [(33, 64), (64, 64)]
    stem = tmp_path / 'tiny'
    _export(Candidate('tiny', TINY, fixed=True), stem, sizes, about)
    names = sorted(path.name for path in tmp_path.glob('*.onnx'))
    assert names == ['tiny-33x64.onnx', 'tiny-64x64.onnx']
    assert about['fixed'] and about['difference'] < 1e-3 * about['largest']
    for size in sizes:
        (labels,) = _in_onnxruntime(str(stem), size, 1)()
        assert labels.shape == (1, *size)


def test_what_is_refused(run_tool, tmp_path):
    said = run_tool('benchmark_exported', TINY, '--size', 0, 8, ok=False)
    assert '--size must be at least 1' in said
    (tmp_path / 'progress.json').write_text('{"format"')
    said = run_tool('benchmark_exported', TINY, '--out', tmp_path, ok=False)
    assert 'progress.json cannot be gone on with: it cannot be read' in said


def test_a_record_of_it_is_checked(measured):
    from pvd_mm.engine.records import new_record

    record = new_record('exported', measured, 'cpu')
    assert check_record(record) == ''
    del record['result']['models'][1]['problem']
    assert check_record(json.loads(json.dumps(record))) == (
        "result.models[1].problem must be of type str, but is 'None'"
    )
