# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The comparison and the figure of panoptic models."""

import json

import pytest
from PIL import Image

from comparison.compare import compare
from comparison.figures import draw_figures
from comparison.kinds import task_of
from comparison.runs import Run
from pvd_mm import register_all_modules
from pvd_mm.utils.errors import UserError

register_all_modules()


@pytest.fixture
def runs(panoptic, panoptic_baseline):
    return [Run('Panoptic FPN', *panoptic_baseline), Run('PVD', *panoptic)]


def test_a_table_with_all_that_counts(runs, tmp_path):
    result = compare(runs, str(tmp_path), images=2)
    head, _, *rows = (tmp_path / 'compare.md').read_text().splitlines()
    titles = [title.strip() for title in head.strip('|').split('|')]
    assert titles[:6] == ['Method', 'PQ', 'PQ things', 'PQ stuff', 'Mask AP', 'mIoU']
    assert len(rows) == 2
    for row in result['rows']:
        assert row['figures'] == 'computed'
        for key in ('pq', 'pq_things', 'pq_stuff', 'mask_ap', 'miou'):
            assert 0 <= row[key] <= 100
        assert row['params_m'] > 1 and row['gmacs'] > 0 and row['seconds'] > 0
    # untrained models are right by chance; the labels of some pixels are
    assert any(row['miou'] > 0 for row in result['rows'])
    report = json.loads((tmp_path / 'compare.json').read_text())
    assert len(report['pictured']) == 2
    with Image.open(tmp_path / 'compare.png') as picture:
        assert picture.width > 1000


def test_metrics_of_a_test_are_read(runs, tmp_path):
    folder = tmp_path / 'test/20260101_000000'
    folder.mkdir(parents=True)
    names = ('PQ', 'PQ_th', 'PQ_st')
    metrics = {f'coco_panoptic/{name}': 10.0 + i for i, name in enumerate(names)}
    metrics.update({'coco/segm_mAP': 0.25, 'mIoU': 50.0})
    (folder / '20260101_000000.json').write_text(json.dumps(metrics))
    for run in runs:
        run.work_dir = str(tmp_path / 'test')
    row = compare(runs, str(tmp_path / 'out'), images=1, max_images=1)['rows'][0]
    assert row['figures'] == 'read from files'
    found = [row[key] for key in ('pq', 'pq_things', 'pq_stuff', 'mask_ap', 'miou')]
    assert found == [10, 11, 12, 25, 50]


def test_the_figure(runs, detector, tmp_path):
    out = tmp_path / 'figure.png'
    result = draw_figures(runs, str(out), rows=1, device='cpu')
    assert result['images'][0]['differing'] > 0 and out.is_file()
    with pytest.raises(UserError, match='the tasks of .* panoptic and mmdet'):
        draw_figures([runs[0], Run('shapes', *detector)], str(tmp_path / 'x.png'))


def test_panoptic_models_of_one_task_are_refused():
    """Their data are of another kind than their results."""

    class Model:
        with_panoptic_fusion_head = False

    class Inferencer:
        scope, model = 'mmdet', Model()

    with pytest.raises(UserError, match='Model without a panoptic_fusion_head has no'):
        task_of(Inferencer)
    Model.with_panoptic_fusion_head = True
    assert task_of(Inferencer) == 'panoptic'
    Inferencer.model = object()
    assert task_of(Inferencer) == 'mmdet'
