# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Records: written whole and never over another, checked when read; a real
test leaves one."""
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from pvd_mm.analysis.records import (
    check_record,
    new_record,
    read_records,
    write_record,
)
from pvd_mm.launch import load_config
from pvd_mm.samples import make_street_sample

STREET = 'pvd_r18-stage-c32_1xb2-600_street-192x256'
TOOLS = Path(__file__).parents[2] / 'tools'


def of_a_test(**changes):
    given = dict(
        config=STREET, overrides={}, checkpoint=dict(path='a.pth', sha256='0'),
        data=dict(type='A', split='val', images=3, folders={'val': 3}),
        steps=600, seed=0)
    return new_record('test', dict(mIoU=1.), **{**given, **changes})


def test_written_and_read(tmp_path):
    one, two = of_a_test(), of_a_test(seed=1)
    paths = [write_record(str(tmp_path), record) for record in (one, two)]
    assert len(set(paths)) == 2
    assert write_record(str(tmp_path), one) == paths[0]  # the same, once
    found, broken = read_records([str(tmp_path), str(tmp_path / 'records')])
    assert not broken
    assert [dict(record, path=0) for record in found] in (
        [dict(one, path=0), dict(two, path=0)],
        [dict(two, path=0), dict(one, path=0)])
    assert not list(tmp_path.rglob('*.tmp'))
    assert one['versions']['torch'] and one['machine'] and one['command']


def test_a_name_that_is_taken_is_left(tmp_path):
    record = of_a_test()
    path = write_record(str(tmp_path), record)
    path.write_text('mine')
    write_record(str(tmp_path), record)
    assert path.read_text() == 'mine'


@pytest.mark.parametrize('change,message', [
    (dict(kind='video'), "its kind is 'video'"),
    (dict(format=2), 'its format is 2, this reads 1'),
    (dict(result=[]), 'result must be a dict'),
    (dict(config=None), 'config must be a str'),
    (dict(data={}), 'number of images'),
    (dict(result=dict(mIoU='high')), 'mIoU are no numbers'),
])
def test_broken_ones_are_named(tmp_path, change, message):
    good = of_a_test()
    write_record(str(tmp_path), good)
    assert message in check_record({**good, **change})
    path = tmp_path / 'records/broken.json'
    path.write_text(json.dumps({**good, **change}))
    found, broken = read_records([str(tmp_path)])
    assert len(found) == 1 and len(broken) == 1
    assert str(path) in broken[0] and message in broken[0]
    path.write_text('{"kind"')
    assert 'it cannot be read' in read_records([str(tmp_path)])[1][0]
    with pytest.raises(ValueError, match='not a record'):
        new_record('test', dict(mIoU=1.))


def test_a_test_leaves_one(tmp_path):
    """Config, overrides, checkpoint and data as they were."""
    data = tmp_path / 'street'
    make_street_sample(str(data), train=1, val=2)
    cfg = load_config(STREET)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    checkpoint = tmp_path / 'iter_5.pth'
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(),
                    meta=dict(iter=5, seed=7)), checkpoint)
    words = [f'test_dataloader.dataset.data_root={data}',
             'test_dataloader.num_workers=0',
             'test_dataloader.persistent_workers=False']
    done = subprocess.run(
        [sys.executable, str(TOOLS / 'test.py'), STREET, str(checkpoint),
         '--work-dir', str(tmp_path / 'work'), '--cfg-options', *words],
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,), broken = read_records([str(tmp_path / 'work')])
    assert not broken and record['kind'] == 'test'
    assert f'Record of this test: {record["path"]}' in done.stdout + done.stderr
    assert record['config'] == STREET
    assert record['overrides']['test_dataloader.num_workers'] == 0
    assert record['checkpoint'] == dict(
        path=str(checkpoint),
        sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest())
    assert (record['steps'], record['seed']) == (5, 7)
    assert record['data']['images'] == 2 and record['data']['classes'] == 19
    assert sum(record['data']['folders'].values()) == 2
    assert 0 <= record['result']['mIoU'] <= 100
    assert 'tools/test.py' in record['command']


def test_a_benchmark_leaves_one(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TOOLS / 'benchmark_model.py'), STREET, '--size',
         '33', '64', '--rounds', '1', '--no-train', '--out',
         str(tmp_path / 'speed')], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (record,), _ = read_records([str(tmp_path)])
    assert record['kind'] == 'model'
    assert record['result'][0]['name'] == STREET
    assert record['result'][0]['size'] == [33, 64]
