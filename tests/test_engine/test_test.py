# Copyright (c) PVD-MM contributors. Apache-2.0.
"""tools/test.py and tools/predict.py with other metrics and with test sets in
wrappers; the plain config is the oracle."""

import json

import pytest
from mmengine.config import Config

pytest.importorskip('mmseg')

BOUNDARY = dict(type='BoundaryIoUMetric')
MEAN = dict(type='IoUMetric', iou_metrics=['mIoU'])
EVALUATORS = {
    'alone': BOUNDARY,
    'first': [BOUNDARY, MEAN],
    'evaluator': dict(metrics=[BOUNDARY]),
}


@pytest.fixture
def wrapped(tiny_config, tmp_path):
    """The config, its test data in two parts, one of which is in a wrapper itself."""
    cfg = Config.fromfile(tiny_config)
    data = cfg.test_dataloader.dataset
    parts = [dict(data, indices=[0, 1, 2]), dict(data, indices=[3, 4, 5, 6])]
    parts[1] = dict(type='RepeatDataset', times=1, dataset=parts[1])
    cfg.test_dataloader.dataset = dict(type='ConcatDataset', datasets=parts)
    cfg.dump(tmp_path / 'wrapped.py')
    return tmp_path / 'wrapped.py'


def images(folder):
    return {path.name: path.read_bytes() for path in folder.glob('*.png')}


@pytest.fixture(scope='module')
def label_maps(tiny_config, trained, tmp_path_factory):
    """As mmseg's IoUMetric writes them."""
    from pvd_mm.engine.test import test

    out = tmp_path_factory.mktemp('out')
    checkpoint, work_dir = str(trained / 'iter_6.pth'), str(out / 'work')
    test(str(tiny_config), checkpoint, work_dir, out=str(out))
    assert len(images(out)) == 7
    return images(out)


@pytest.mark.parametrize('evaluator', EVALUATORS.values(), ids=EVALUATORS)
def test_label_maps_whatever_the_metrics_are(
    tiny_config, trained, label_maps, run_tool, tmp_path, evaluator
):
    config = tmp_path / 'config.py'
    cfg = Config.fromfile(tiny_config)
    cfg.test_evaluator = evaluator
    cfg.dump(config)
    words = (config, trained / 'iter_6.pth', '--work-dir', tmp_path / 'work')
    said = run_tool('test', *words, '--out', tmp_path / 'out')
    assert images(tmp_path / 'out') == label_maps
    assert 'mBoundaryIoU' in said


@pytest.mark.parametrize('tta', [[], ['--tta']], ids=['plain', 'tta'])
def test_a_test_set_in_wrappers(tiny_config, wrapped, trained, run_tool, tmp_path, tta):
    results = []
    for config, name in ((tiny_config, 'plain'), (wrapped, 'wrapped')):
        words = (config, trained / 'iter_6.pth', '--work-dir', tmp_path / name, *tta)
        run_tool('test', *words, '--out', tmp_path / name)
        (record,) = (tmp_path / name / 'records').glob('*.json')
        results.append(json.loads(record.read_text()))
    assert results[0]['result'] == results[1]['result']
    assert results[1]['data']['images'] == 7
    assert images(tmp_path / 'plain') == images(tmp_path / 'wrapped') != {}


def test_predict_with_a_test_set_in_wrappers(
    tiny_config, wrapped, tiny_data, trained, run_tool, tmp_path
):
    for config, name in ((tiny_config, 'plain'), (wrapped, 'wrapped')):
        words = (config, trained / 'iter_6.pth', tiny_data / 'img')
        run_tool('predict', *words, '--out', tmp_path / name, '--scale', 0.5)
    found = images(tmp_path / 'wrapped/labels')
    assert found == images(tmp_path / 'plain/labels') and len(found) == 7
