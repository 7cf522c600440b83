# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The comparison of detectors, with two narrow ones on a few shapes."""

import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData

from comparison.compare import compare
from comparison.matching import Match, match
from comparison.runs import Candidate, Run, check_same_data
from comparison.tasks import InstanceTask
from pvd_mm import register_all_modules
from pvd_mm.apis.complexity import model_complexity
from pvd_mm.data.samples import make_shapes_sample
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.shipped_configs import mim_root
from pvd_mm.visualization.painters import Instances

pytest.importorskip('mmdet')
register_all_modules()

SIZE = (96, 128)
PARTS = {
    'mask-rcnn': dict(in_channels=64, conv_out_channels=8),
    'pvd-mask-rcnn': dict(
        in_channels=[3, 8, 8, 8, 16, 32, 64],
        decoder=dict(vote_channels=4),
        channels=4,
        feature_channels=64,
    ),
}


def narrow(method, root):
    """The config of a shipped model on the shapes sample, made narrow."""
    folder = method.replace('-', '_')
    path = next((mim_root() / 'configs' / folder).glob('*_shapes-*.py'))
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(
        dict(
            model=dict(
                backbone=dict(base_channels=8, stem_channels=8),
                rpn_head=dict(in_channels=32, feat_channels=16),
                roi_head=dict(
                    shared_head=dict(base_channels=8),
                    bbox_roi_extractor=dict(out_channels=32),
                    bbox_head=dict(in_channels=64),
                    mask_head=PARTS[method],
                ),
                test_cfg=dict(
                    rpn=dict(max_per_img=6), rcnn=dict(max_per_img=3, score_thr=0.0)
                ),
            ),
            test_dataloader=dict(dataset=dict(data_root=str(root / 'shapes'))),
        )
    )
    for transform in cfg.test_dataloader.dataset.pipeline:
        if transform.type == 'Resize':
            transform.scale = SIZE[::-1]
    for metric in cfg.test_evaluator:
        metric.ann_file = str(root / 'shapes/annotations/instances_val2017.json')
    return cfg


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp('compare')
    make_shapes_sample(root / 'shapes', 1, 4, SIZE)
    made = []
    for method in PARTS:
        cfg = narrow(method, root)
        config, checkpoint = root / f'{method}.py', root / f'{method}.pth'
        cfg.dump(config)
        init_default_scope('mmdet')
        torch.manual_seed(0)
        model = MODELS.build(cfg.model)
        torch.save(dict(meta={}, state_dict=model.state_dict()), checkpoint)
        made.append(Run(method, str(config), str(checkpoint)))
    return made


def test_computes_figures_and_draws(runs, tmp_path):
    result = compare(runs, str(tmp_path), images=2)
    assert [row['method'] for row in result['rows']] == list(PARTS)
    for row in result['rows']:
        assert row['figures'] == 'computed'
        for column in InstanceTask.columns:
            assert row[column.key] is None or 0 <= row[column.key] <= 100
        assert row['mask_ap'] is not None and row['boundary_ap'] is not None
        assert row['seconds'] > 0 and row['gmacs'] > 0
        assert row['input_size'] == list(SIZE)
    table = (tmp_path / 'compare.md').read_text()
    for title in ('Box AP', 'Mask AP', 'AP50', 'AP75', 'APs', 'Boundary AP'):
        assert f' {title} ' in table
    report = json.loads((tmp_path / 'compare.json').read_text())
    assert report['rows'] == result['rows'] and len(report['pictured']) == 2
    picture = cv2.imread(result['picture'])
    assert picture.shape[1] > 1000 and picture.std() > 10


def test_reads_the_metrics_of_a_test(runs, tmp_path):
    figures = {c.metric: 0.001 * i for i, c in enumerate(InstanceTask.columns)}
    figures['coco/segm_mAP_l'] = -1.0  # no large object
    left = tmp_path / 'work' / '20260101_000000'
    left.mkdir(parents=True)
    (left / f'{left.name}.json').write_text(json.dumps(figures))
    run = Run(*list(vars(runs[1]).values())[:3], work_dir=str(tmp_path / 'work'))
    row = compare([run], str(tmp_path / 'out'), images=1, max_images=1)['rows'][0]
    assert row['figures'] == 'read from files'
    assert (row['box_ap'], row['mask_ap'], row['boundary_ap']) == (0.0, 0.1, 0.7)
    assert row['mask_ap_l'] is None


def test_one_task_at_a_time(runs, tmp_path):
    with pytest.raises(UserError, match="run 'x': .* of another model"):
        compare([Run('x', runs[0].config, runs[1].checkpoint)], str(tmp_path))
    first = Candidate(runs[0], SimpleNamespace(scope='mmdet'), None)
    second = Candidate(runs[1], SimpleNamespace(scope='mmseg'), None)
    with pytest.raises(ValueError, match='differ in their task'):
        check_same_data([first, second])


# ---- an image's quality ----------------------------------------------------


def objects(*rows, scores=None):
    """Instances from (label, left, right): columns of a 4x20 image."""
    masks = np.zeros((len(rows), 4, 20), bool)
    for mask, (_, left, right) in zip(masks, rows, strict=True):
        mask[:, left:right] = True
    return Instances(masks, np.array([row[0] for row in rows], int), scores)


def test_matching():
    truth = objects((0, 0, 4), (0, 6, 10), (1, 12, 16))
    found = objects((0, 0, 4), (0, 0, 3), (1, 6, 10), (1, 13, 17))
    got = match(found, truth, objects())
    # the second is a duplicate, the third of another class
    assert got == Match([1.0, 0.6], 3, 2)
    assert got.quality == pytest.approx(1.6 / (2 + 0.5 * (1 + 2)))
    assert match(objects(), objects(), objects()).quality == 1
    assert match(objects(), truth, objects()).quality == 0
    assert match(found, objects(), objects()).quality == 0


def test_detections_in_a_crowd_are_not_false():
    crowd = objects((0, 0, 10))
    assert match(objects((0, 1, 3)), objects(), crowd).false == 0
    assert match(objects((1, 1, 3)), objects(), crowd).false == 1
    assert match(objects((0, 8, 18)), objects(), crowd).false == 1


def test_samples_without_masks():
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=dict(ori_shape=(4, 20)))
    sample.gt_instances = InstanceData(labels=torch.zeros(0))
    sample.pred_instances = InstanceData(
        scores=torch.zeros(0), labels=torch.zeros(0), masks=torch.zeros(0, 4, 20)
    )
    task = InstanceTask.__new__(InstanceTask)
    with pytest.raises(ValueError, match='with_mask=True'):
        task.quality(sample)


# ---- multiply-accumulates --------------------------------------------------


@pytest.mark.parametrize('method', PARTS)
def test_complexity_counts_the_limits_of_the_test(method, tmp_path):
    """Proposals and detections, as many as there may be, and no more."""
    cfg = narrow(method, tmp_path)
    init_default_scope('mmdet')

    def macs(proposals, detections):
        cfg.model.test_cfg.rpn.max_per_img = proposals
        cfg.model.test_cfg.rcnn.max_per_img = detections
        torch.manual_seed(0)
        return model_complexity(MODELS.build(cfg.model), (3, *SIZE))['macs']

    few, proposal, detection = macs(4, 2), macs(5, 2), macs(4, 3)
    assert macs(6, 2) - proposal == proposal - few > 0
    assert macs(4, 4) - detection == detection - few > 0
    assert macs(5, 3) - few == (proposal - few) + (detection - few)
    width, side = 8 * 2**3, 7
    convs = (width // 2 + 3 * width) * width * 9 + width // 2 * width
    linear = width * (9 + 4)  # classes, one box for all of them
    assert proposal - few == convs * side * side + linear
