# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Segmentors with one output channel in the tools: they do what their twins with two
do, of which one is zero."""

import json

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from comparison.compare import compare
from comparison.figures import draw_figures
from comparison.runs import Run
from pvd_mm import register_all_modules
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.visualization.draw_votes import draw_votes

register_all_modules()

CONFIG = """
_base_ = {base!r}
data_root = {root!r}
model = dict(
    backbone=dict(type='PVDResNetV1c'),
    decode_head=dict(
        _delete_=True,
        type='PVDHead',
        in_channels=[8, 8, 16, 32, 64],
        num_classes=2,
        norm_cfg=dict(type='SyncBN'),
        {head}),
    auxiliary_head=None)
metainfo = dict(classes=('a', 'b'), palette=[[9, 9, 9], [255, 0, 0]])
test_dataloader = dict(dataset=dict(data_root=data_root, metainfo=metainfo))
val_dataloader = test_dataloader
test_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='BoundaryIoUMetric', report_classes=['b'])]
visualizer = dict(name={name!r})
default_hooks = dict(visualization=dict(type='SegVisualizationHook'))
"""
ONE = "channels={}, out_channels=1, threshold=0.5, loss_decode=dict(type='{}'{})".format
SIGMOID = ONE(8, 'CrossEntropyLoss', ', use_sigmoid=True')
LOGITS = ONE(None, 'CrossEntropyLoss', ', use_sigmoid=True')


@pytest.fixture(scope='module')
def runs(tiny_config, tiny_data, tmp_path_factory):
    """One channel, its twin with two, and one that decodes the logit itself."""
    root = tmp_path_factory.mktemp('binary')
    data = root / 'data'
    for folder in ('img', 'ann'):
        (data / folder).mkdir(parents=True)
    for path in sorted(tiny_data.glob('img/*.png'))[:3]:
        (data / 'img' / path.name).write_bytes(path.read_bytes())
        labels = np.array(Image.open(tiny_data / 'ann' / path.name))
        Image.fromarray((labels > 0).astype(np.uint8)).save(data / 'ann' / path.name)
    made, state = {}, None
    init_default_scope('mmseg')
    for name, head in (('one', SIGMOID), ('two', 'channels=8'), ('logit', LOGITS)):
        config = root / f'{name}.py'
        config.write_text(
            CONFIG.format(base=str(tiny_config), root=str(data), head=head, name=name)
        )
        torch.manual_seed(0)
        model = MODELS.build(Config.fromfile(config).model)
        model.init_weights()
        if name == 'two':
            weights = state.copy()
            for key in ('decode_head.conv_seg.weight', 'decode_head.conv_seg.bias'):
                weights[key] = torch.cat([torch.zeros_like(state[key]), state[key]])
            model.load_state_dict(weights)
        else:
            image = np.array(Image.open(data / 'img/0.png'))
            image = torch.tensor(image).permute(2, 0, 1).sub(127) / 60
            weight, bias = model.decode_head.conv_seg.parameters()
            torch.nn.init.normal_(weight)
            model.eval()
            with torch.no_grad():
                for _ in range(5):  # until both classes are predicted
                    bias -= model(image[None]).median()
        state = model.state_dict()
        torch.save(dict(meta={}, state_dict=state), root / f'{name}.pth')
        made[name] = Run(name, str(config), str(root / f'{name}.pth'))
    return made


def image_of(runs):
    cfg = Config.fromfile(runs['one'].config)
    return cfg.data_root + '/img/0.png'


def labels_of(run, image):
    return load_inferencer(run.config, run.checkpoint, 'cpu').predict(image)


def test_labels_are_integers(runs):
    image = image_of(runs)
    one, two = (
        labels_of(runs[name], image).pred_sem_seg.data for name in ('one', 'two')
    )
    assert one.dtype == two.dtype == torch.int64
    assert torch.equal(one, two) and 0.05 < one.float().mean() < 0.95


@pytest.mark.parametrize('tta', [(), ('--tta',)])
def test_test(runs, tta, run_tool, tmp_path):
    """Metrics and pictures, of the whole image and of flipped ones."""
    found = []
    for name in ('one', 'two'):
        folder, run = tmp_path / name, runs[name]
        words = ('--work-dir', folder, '--show-dir', folder / 'show', *tta)
        run_tool('test', run.config, run.checkpoint, *words)
        metrics = json.loads(next(folder.glob('2*/2*.json')).read_text())
        pictures = sorted(folder.rglob('show/**/*.png'))
        assert len(pictures) == 3
        metrics = {k: v for k, v in metrics.items() if 'IoU' in k or 'Acc' in k}
        found.append((metrics, [p.read_bytes() for p in pictures]))
    assert found[0] == found[1]
    assert 0 < found[0][0]['BoundaryIoU.b'] < 100


def test_compare_and_draw_figures(runs, tmp_path):
    pair = [runs['one'], runs['two']]
    one, two = compare(pair, str(tmp_path), images=1, focus='b')['rows']
    for key in ('miou', 'boundary_iou', 'focus_iou', 'focus_boundary_iou'):
        assert one[key] == two[key] > 0
    result = draw_figures(pair, str(tmp_path / 'fig6.png'), rows=1, device='cpu')
    assert result['images'][0]['differing'] == 0


def test_votes_for_the_second_class(runs, tmp_path):
    """Both classes are decoded in one channel."""
    run, image = runs['logit'], image_of(runs)
    labels = labels_of(run, image).pred_sem_seg.data[0]
    for label, name in enumerate('ab'):
        row, column = (labels == label).nonzero()[0].tolist()
        out = str(tmp_path / f'{name}.png')
        arguments = (run.config, run.checkpoint, image, (column, row), out)
        result = draw_votes(*arguments, device='cpu')
        assert (result['group'], result['predicted']) == (0, name)
