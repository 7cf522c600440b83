# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Records: written whole and never over another, checked when read; a real
test leaves one."""

import hashlib
import json

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from helpers.commands import tool
from pvd_mm.data.samples import make_street_sample
from pvd_mm.engine.config import load_config, name_if_shipped
from pvd_mm.engine.records import (
    _numbers,
    check_record,
    is_finished,
    new_record,
    read_records,
    write_record,
)

STREET = 'pvd_r18-stage-c32_1xb2-600_street-192x256'


def of_a_test(**changes):
    given = dict(
        config=STREET,
        overrides={},
        checkpoint=dict(path='a.pth', sha256='0'),
        data=dict(type='A', split='val', images=3, folders={'val': 3}),
        shipped=STREET,
        steps=600,
        seed=0,
        finished=True,
    )
    return new_record('test', dict(mIoU=1.0), **{**given, **changes})


def test_written_and_read(tmp_path):
    one, two = of_a_test(), of_a_test(seed=1)
    paths = [write_record(str(tmp_path), record) for record in (one, two)]
    assert len(set(paths)) == 2
    assert write_record(str(tmp_path), one) == paths[0]  # the same, once
    found, broken = read_records([str(tmp_path), str(tmp_path / 'records')])
    assert not broken
    assert [dict(record, path=0) for record in found] in (
        [dict(one, path=0), dict(two, path=0)],
        [dict(two, path=0), dict(one, path=0)],
    )
    assert not list(tmp_path.rglob('*.tmp'))
    assert one['versions']['torch'] and one['machine'] and one['command']


def test_a_name_that_is_taken_is_left(tmp_path):
    record = of_a_test()
    path = write_record(str(tmp_path), record)
    path.write_text('mine')
    write_record(str(tmp_path), record)
    assert path.read_text() == 'mine'


def test_the_same_record_in_two_places_is_one(tmp_path):
    record = of_a_test()
    for place in ('a', 'b'):
        write_record(str(tmp_path / place), record)
    found, _ = read_records([str(tmp_path)])
    assert len(found) == 1


@pytest.mark.parametrize(
    'change,message',
    [
        (dict(kind='video'), "its kind is 'video'"),
        (dict(format=2), 'its format is 2, this reads 1'),
        (dict(result=[]), "result must be of type dict, but is '[]'"),
        (dict(config=None), "config must be of type str, but is 'None'"),
        (dict(data={}), 'data.type must be of type str'),
        (
            dict(data=dict(type='A', images=True, folders={})),
            "data.images must be of type int, but is 'True'",
        ),
        (dict(result=dict(mIoU='high')), 'mIoU are no numbers'),
        (dict(date='yesterday'), "its date is 'yesterday'"),
        (
            dict(kind='model', result=[dict(name='a', params=1), dict(name='b')]),
            "result[1].params must be of type int or float, but is 'None'",
        ),
        (
            dict(
                kind='op', result=dict(machine='m', threads=2, best='cpp', settings=3)
            ),
            "result.settings must be of type dict, but is '3'",
        ),
        (dict(kind='backends', result=dict()), 'result must be of type list'),
    ],
)
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
        new_record('test', dict(mIoU=1.0))


@pytest.fixture
def trained(tmp_path):
    """A street sample, a checkpoint, and how the test finds them."""
    data = tmp_path / 'street'
    make_street_sample(str(data), train=1, val=2)
    cfg = load_config(STREET)
    init_default_scope(cfg.default_scope)
    torch.manual_seed(0)
    checkpoint = tmp_path / 'iter_5.pth'
    torch.save(
        dict(
            state_dict=MODELS.build(cfg.model).state_dict(), meta=dict(iter=5, seed=7)
        ),
        checkpoint,
    )
    return checkpoint, [
        '--cfg-options',
        f'test_dataloader.dataset.data_root={data}',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
    ]


def test_a_test_leaves_one(trained, tmp_path):
    """Config, overrides, checkpoint and data as they were."""
    checkpoint, words = trained
    said = tool('test', STREET, checkpoint, '--work-dir', tmp_path / 'work', *words)
    (record,), broken = read_records([str(tmp_path / 'work')])
    assert not broken and record['kind'] == 'test'
    assert f'Record of this test: {record["path"]}' in said
    assert record['config'] == record['shipped'] == STREET
    assert record['overrides']['test_dataloader.num_workers'] == 0
    assert record['checkpoint'] == dict(
        path=str(checkpoint), sha256=hashlib.sha256(checkpoint.read_bytes()).hexdigest()
    )
    assert (record['steps'], record['seed']) == (5, 7)
    assert record['finished'] is False  # of 600 steps
    assert record['data']['images'] == 2 and record['data']['classes'] == 19
    assert sum(record['data']['folders'].values()) == 2
    assert 0 <= record['result']['mIoU'] <= 100
    assert 'tools/test.py' in record['command']


def test_test_time_augmentation_is_an_override(trained, tmp_path):
    checkpoint, words = trained
    tool('test', STREET, checkpoint, '--tta', '--work-dir', tmp_path / 'work', *words)
    (record,), _ = read_records([str(tmp_path / 'work')])
    assert record['overrides']['--tta'] is True


def test_which_config_is_shipped(tmp_path):
    """A copy of a shipped one is; one of the same name that is changed is not."""
    same, changed = (tmp_path / name / f'{STREET}.py' for name in ('a', 'b'))
    other = tmp_path / 'mine.py'
    base = f"_base_ = 'pvd_mm::pvd/{STREET}.py'\n"
    for path, text in (
        (same, base),
        (changed, base + 'randomness = dict(seed=1)\n'),
        (other, base),
    ):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    assert name_if_shipped(f'configs/pvd/{STREET}.py') == STREET
    assert name_if_shipped(str(same)) == STREET
    assert name_if_shipped(str(changed)) is None
    assert name_if_shipped(str(other)) is None


@pytest.mark.parametrize(
    'meta,schedule,expected',
    [
        (dict(iter=800, epoch=3), dict(max_iters=800), True),
        (dict(iter=799, epoch=3), dict(max_iters=800), False),
        (dict(iter=7000, epoch=11), dict(max_epochs=12), False),
        (dict(iter=7330, epoch=12), dict(max_epochs=12), True),
        (dict(), dict(max_iters=800), None),
        (dict(iter=800), None, None),
    ],
)
def test_finished_trainings(meta, schedule, expected):
    assert is_finished(Config(dict(train_cfg=schedule)), meta) is expected


def test_what_is_not_a_number():
    """The IoU of a class that does not occur; and what no JSON holds."""
    found = _numbers(dict(mIoU=torch.tensor(2.5), absent=float('nan'), name='x'))
    assert found == dict(mIoU=2.5, absent=None)
    assert not check_record({**of_a_test(), 'result': found})


def test_a_benchmark_leaves_one(tmp_path):
    words = (
        STREET,
        '--size',
        '33',
        '64',
        '--rounds',
        '1',
        '--no-train',
        '--out',
        tmp_path / 'speed',
    )
    tool('benchmark_model', *words)
    (record,), _ = read_records([str(tmp_path)])
    assert record['kind'] == 'model'
    assert record['result'][0]['name'] == STREET
    assert record['result'][0]['size'] == [33, 64]
    said = tool('benchmark_model', *words, ok=False)
    assert 'speed.json' in said and '--force' in said
    tool('benchmark_model', *words, '--force')
    assert len(read_records([str(tmp_path)])[0]) == 2  # none is replaced


def test_a_benchmark_of_backends_leaves_one(run_tool, tmp_path):
    run_tool(
        'benchmark_backends',
        STREET,
        '--size',
        33,
        64,
        '--pairs',
        1,
        '--backends',
        'matrix',
        'reference',
        '--out',
        tmp_path,
    )
    (record,), broken = read_records([str(tmp_path)])
    assert not broken and record['kind'] == 'backends'
    assert {one['part'] for one in record['result']} >= {'training step', 'decoder'}
