# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Models measured side by side, on small images and with few boxes."""

import json

import pytest
import torch

from pvd_mm import register_all_modules
from pvd_mm.engine.config import load_config


def detector_config(name):
    cfg = load_config(name)
    model = cfg.model
    model.roi_head.bbox_head.num_classes = model.roi_head.mask_head.num_classes = 3
    model.test_cfg.rpn.max_per_img = 6
    model.train_cfg.rpn_proposal.max_per_img = 40
    model.train_cfg.rcnn.sampler.num = 16
    return cfg


@pytest.fixture(scope='module')
def detectors():
    pytest.importorskip('mmdet')
    register_all_modules()
    from benchmarks.models import benchmark_class

    kind = benchmark_class('mmdet')
    return [
        kind(detector_config(name), name, (64, 100), 1, 'cpu', rois=5, objects=2)
        for name in ('mask-rcnn_r18-c4_1x_coco', 'pvd-mask-rcnn_r18-c4_1x_coco')
    ]


def test_detectors_are_measured_by_their_mask_branch_too(detectors):
    from benchmarks.models import benchmark, markdown

    lines = []
    results = benchmark(detectors, 2, 1, lines.append)
    for result in results:
        for kind in ('mask', 'forward', 'train'):
            assert result[f'{kind}_s'] > 0 and result[f'{kind}_mib'] > 0
        assert 0 < result['mask_macs'] < result['forward_macs']
    turns = [line.split(',')[0] for line in lines if line.startswith('round')]
    assert turns == [
        *('round 1/2', 'round 1/2', 'round 1/1'),
        *('round 1/2', 'round 1/2', 'round 1/1'),
        *('round 2/2', 'round 2/2', 'round 2/2', 'round 2/2'),
    ]
    table = markdown(results).splitlines()
    assert '| mask (s) | ratio | mask memory (MiB) | ratio |' in table[0]
    assert len({line.count('|') for line in table}) == 1
    assert '5 RoIs' in detectors[0].title()


def test_detectors_get_the_same_boxes_and_positives_enough(detectors):
    from mmdet.structures.bbox import bbox_overlaps

    first, second = detectors
    for detector in detectors:
        detector.load()
    assert torch.equal(first.images, second.images)
    assert first.images.shape == (1, 3, 64, 128)  # padded as in training
    for name in ('detections', 'proposals'):
        ours, others = getattr(first, name), getattr(second, name)
        assert torch.equal(ours.bboxes, others.bboxes)
    assert len(first.detections) == 5 and len(first.proposals) == 6
    proposals = first.train_proposals[0].bboxes
    assert torch.equal(proposals, second.train_proposals[0].bboxes)
    objects = first.samples[0].gt_instances.bboxes
    best = bbox_overlaps(proposals, objects).amax(1)
    positive = first.model.train_cfg.rcnn.sampler.num // 4
    assert (best >= 0.5).sum() >= positive


def test_a_panoptic_model_of_labels_alone():
    pytest.importorskip('mmdet')
    register_all_modules()
    from benchmarks.models import benchmark, benchmark_class
    from pvd_mm.utils.errors import UserError

    name = 'pvd-panoptic_r18-fpn-c32_1xb2-600_street-panoptic-192x256'
    cfg = load_config(name)
    parts = ('rpn_head', 'roi_head', 'neck', 'panoptic_fusion_head')
    cfg.model.update(dict.fromkeys(parts))
    model = benchmark_class('mmdet')(cfg, name, (64, 96), 2, 'cpu')
    with pytest.raises(UserError, match='no mask branch: .* --only forward train'):
        benchmark([model], 1, 1, print)
    model.kinds = ('forward', 'train')
    (result,) = benchmark([model], 1, 1, print)
    assert result['forward_s'] > 0 and result['train_s'] > 0
    assert result['forward_macs'] > 0 and 'mask_macs' not in result
    plain = load_config('mask-rcnn_r18-c4_1x_coco')
    plain.model.roi_head.mask_head = None
    model = benchmark_class('mmdet')(plain, 'plain', (64, 96), 1, 'cpu')
    with pytest.raises(UserError, match='two-stage detectors with masks are measured'):
        benchmark([model], 1, 1, print)


def test_boxes_are_inside_the_image_and_of_all_sizes():
    pytest.importorskip('mmdet')
    from benchmarks.detectors import around, random_boxes

    random = torch.Generator().manual_seed(0)
    boxes = random_boxes(1000, (800, 1333), random)
    for some in (boxes, around(boxes, 2000, (800, 1333), random)):
        assert (some >= 0).all() and (some[:, 2:] > some[:, :2]).all()
        assert (some[:, 2] <= 1333).all() and (some[:, 3] <= 800).all()
    side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
    for low, high in ((0, 53), (53, 160), (160, 800)):  # COCO's thirds, scaled
        assert 0.2 < ((side >= low) & (side < high)).float().mean() < 0.5


def test_a_segmentor_is_measured_by_the_tool(run_tool, tmp_path):
    pytest.importorskip('mmseg')
    name = 'pvd_r18-stage-c32_1xb2-600_street-192x256'
    out = tmp_path / 'table'
    words = ('--size', 32, 64, '--rounds', 1, '--out', out)
    text = run_tool('benchmark_model', name, *words)
    assert 'forward: 1 image' in text and f'| {name} |' in text
    assert out.with_suffix('.json').exists()
    assert out.with_suffix('.md').read_text() in text


def test_a_segmentor_is_counted_by_the_tool(run_tool, tmp_path):
    """Nothing is measured; the table of costs says so of the rest."""
    pytest.importorskip('mmseg')
    from pvd_mm.engine.records import read_records
    from results.model_zoo import complexity_table

    name = 'pvd_r18-stage-c32_1xb2-600_street-192x256'
    words = ('--size', 32, 64, '--count', '--out', tmp_path / 'table')
    text = run_tool('benchmark_model', name, *words)
    assert 'counted.' in text and '| forward GMACs |' in text
    records, _ = read_records([str(tmp_path)])
    (result,) = records[0]['result']
    assert result['params'] > 0 and result['forward_macs'] > 0
    assert not [key for key in result if key.endswith(('_s', '_mib'))]
    rows = {row[0]: row for row in complexity_table(records).rows}
    assert rows[name][1] == '32×64' and float(rows[name][2]) > 0
    assert rows[name][4:8] == ['not run'] * 4


@pytest.mark.parametrize(
    'args, message',
    [
        (
            ['mask-rcnn_r18-c4_1x_coco', 'pvd_r18-stage-c32_1xb2-600_street-192x256'],
            'segmentors and detectors cannot be compared',
        ),
        (
            ['pvd_r18-stage-c32_1xb2-600_street-192x256', '--rois', '5'],
            '--rois and --objects are for detectors',
        ),
        (
            ['pvd_r18-stage-c32_1xb2-600_street-192x256', '--batch-size', '1'],
            '--batch-size must be at least 2',
        ),
        (
            ['pvd_r18-stage-c32_1xb2-600_street-192x256', '--only', 'mask'],
            'nothing to measure',
        ),
        (
            ['mask-rcnn_r18-c4_1x_coco', '--train-rounds', '0'],
            '--train-rounds must be at least 1',
        ),
    ],
)
def test_the_tool_refuses_what_makes_no_sense(run_tool, args, message):
    pytest.importorskip('mmdet')
    pytest.importorskip('mmseg')
    assert message in run_tool('benchmark_model', *args, ok=False)


ONE_CHANNEL = """
_base_ = 'pvd_mm::pvd/pvd_r18-stage-c32_1xb2-600_street-192x256.py'
crop_size = None
model = dict(
    data_preprocessor=dict(mean=None, std=None, bgr_to_rgb=False),
    backbone=dict(in_channels={0}))
optim_wrapper = None
"""


@pytest.mark.parametrize('channels', [1, 4])
def test_channels_of_the_config(run_tool, tmp_path, channels):
    """And a config without a size of its own, and without an optimizer."""
    pytest.importorskip('mmseg')
    config = tmp_path / 'own.py'
    config.write_text(ONE_CHANNEL.format(channels))
    said = run_tool('benchmark_model', config, '--no-train', ok=False)
    assert said == 'benchmark_model: the first config has no crop_size; give --size\n'
    words = ('--size', 32, 64, '--rounds', 1)
    said = run_tool('benchmark_model', config, *words, ok=False)
    assert f'{config} has no optim_wrapper, so it cannot train' in said
    for name in (config, 'pvd_r18-stage-c32_1xb2-600_street-192x256'):
        out = tmp_path / 'table'
        run_tool(
            *('benchmark_model', name, *words, '--no-train', '--out', out, '--force')
        )
        (result,) = json.loads(out.with_suffix('.json').read_text())['results']
        if name == config:
            own = result
    # the deep stem's first convolution: 3x3 weights for 32 channels, 16x32 pixels
    more = (3 - channels) * 9 * 16
    assert result['params'] - own['params'] == more
    assert result['forward_macs'] - own['forward_macs'] == more * 16 * 32
