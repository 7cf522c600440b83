# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The program for owners of a GPU, with the CPU and Triton's interpreter in place of
one, and small sizes."""

import pytest
import torch

from benchmarks.gpu import find_device, markdown
from helpers.commands import tool
from pvd_mm.engine.records import check_record, new_record, read_records
from pvd_mm.ops import backends
from pvd_mm.ops.backends import self_check
from pvd_mm.utils.errors import UserError

pytest.importorskip('triton', reason='triton is not installed')
pytest.importorskip('mmseg', reason='mmseg is not installed')

from pvd_mm.ops.backends import triton as backend  # noqa: E402

SMALL = '--device cpu --sizes 4 --budget 1e-3 --without compiled'.split()
MODELS = (
    '--configs deeplabv3_r18-d8-c32_1xb2-600_street-192x256 '
    'pvd_r18-stage-c32_1xb2-600_street-192x256 --size 32 64 --rounds 1'
).split()


def records_in(folder):
    records, broken = read_records([str(folder)])
    assert not broken
    return {record['kind']: record['result'] for record in records}


@pytest.mark.skipif(
    not hasattr(backend, '_forward'), reason='triton is too old for the kernels'
)
def test_everything_in_one_go(tmp_path):
    words = (*SMALL, *MODELS, '--dtypes', 'float32', '--out', tmp_path)
    said = tool('benchmark_gpu', *words, TRITON_INTERPRET='1')
    results = records_in(tmp_path)
    assert sorted(results) == ['gpu', 'model', 'op']
    checks = results['gpu']['self_checks']
    assert [check['problem'] for check in checks] == ['', '']
    assert [check['formulation'] for check in checks] == ['exact', 'factored']
    assert f'# torch {torch.__version__}, triton ' in said
    assert '| float32 | factored | right |' in said
    assert results['op']['settings']['sizes'] == [4] and '**Table 4, forward.**' in said
    deeplab, pvd = results['model']
    assert deeplab['size'] == [32, 64] and min(deeplab['train_s'], pvd['train_s']) > 0
    assert f'All records are in {tmp_path}/records' in said


def test_broken_kernels_and_a_failing_part_leave_the_rest(
    tmp_path, run_tool, monkeypatch
):
    def forward(*_):
        raise RuntimeError('Triton Error [CUDA]: broken on purpose')

    why_not = backends._why_not
    monkeypatch.setattr(
        backends,
        '_why_not',
        lambda name, *at: None if name == 'triton' else why_not(name, *at),
    )
    monkeypatch.setattr(self_check, '_problems', {})
    monkeypatch.setattr(backend, 'forward', forward)
    configs = ('pvd_r18-full-c32_1xb2-600_street-192x256', 'mask-rcnn_r18-c4_1x_coco')
    words = (*SMALL, '--configs', *configs, '--dtypes', 'float16', 'float32')
    said = run_tool('benchmark_gpu', *words, '--out', tmp_path, ok=False)
    assert said.count('| FAILED |') == 4
    assert "formulation 'exact', failed: RuntimeError: Triton Error [CUDA]" in said
    assert '- triton is left out: its self-check on cpu with torch.float32' in said
    assert (
        'benchmark_gpu: not everything could be measured\nModels: segmentors and '
        in said
    )
    results = records_in(tmp_path)
    assert sorted(results) == ['gpu', 'op']
    problems = [check['problem'] for check in results['gpu']['self_checks']]
    assert all('broken on purpose' in problem for problem in problems)


def test_without_a_gpu_it_says_so_in_a_line(run_tool, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: False)
    said = run_tool('benchmark_gpu', ok=False)
    assert said.startswith(
        f'benchmark_gpu: torch {torch.__version__} finds no GPU here'
    )
    assert said.count('\n') == 1


def test_devices(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'is_available', lambda: True)
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    assert find_device('cuda') == torch.device('cuda', 0)
    assert find_device('cuda:1') == torch.device('cuda', 1)
    with pytest.raises(UserError, match='finds 2 GPUs, not cuda:2'):
        find_device('cuda:2')
    for name in ('gpu', 'meta'):
        with pytest.raises(UserError, match=f"cuda, cuda:N or cpu, but got '{name}'"):
            find_device(name)


def test_a_problem_of_several_is_told_once():
    checks = [
        dict(dtype=dtype, formulation='exact', seconds=0.5, problem=problem)
        for dtype, problem in (('float32', 'same'), ('float64', ''), ('half', 'same'))
    ]
    table, *problems = markdown(checks).split('\n\n')
    assert '| float64 | exact | right | 0.50 |' in table and problems == ['same']
    record = new_record('gpu', dict(description='a GPU', self_checks=checks), 'cpu')
    record['result']['self_checks'][0]['seconds'] = None
    assert check_record(record).startswith('result.self_checks[0].seconds must be')
