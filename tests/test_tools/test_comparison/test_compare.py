# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The comparison, with two small models on a small street sample."""

import json

import cv2
import numpy as np
import pytest
import torch
from mmseg.apis import init_model

from comparison.compare import _COSTS, _table, compare, most_different
from comparison.runs import Run, read_metrics
from comparison.tasks import Column, configured
from pvd_mm import register_all_modules
from pvd_mm.apis.complexity import model_complexity
from pvd_mm.data.samples import make_street_sample
from pvd_mm.utils.errors import UserError

register_all_modules()

SIZE = (64, 128)
CONFIG = """
custom_imports = dict(imports=['pvd_mm.semantic'])
default_scope = 'mmseg'
norm = dict(type='SyncBN', requires_grad=True)
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor', mean=[120.0] * 3, std=[60.0] * 3,
        bgr_to_rgb=True, pad_val=0, seg_pad_val=255),
    backbone=dict(
        type='ResNetV1c', depth=18, stem_channels=8, base_channels=8,
        norm_cfg=norm),
    decode_head=dict(
        type='FCNHead', in_channels={channels}, in_index={index},
        channels=8, num_convs=1, num_classes=19, norm_cfg=norm,
        loss_decode=dict(type='CrossEntropyLoss')),
    auxiliary_head=dict(
        type='FCNHead', in_channels=32, in_index=2, channels=8, num_convs=1,
        num_classes=19, norm_cfg=norm,
        loss_decode=dict(type='CrossEntropyLoss')),
    train_cfg=dict(), test_cfg=dict(mode='whole'))
test_dataloader = dict(
    dataset=dict(
        type='CheckedCityscapesDataset', data_root={root!r},
        data_prefix=dict(
            img_path='leftImg8bit/{split}', seg_map_path='gtFine/{split}'),
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='Resize', scale=(128, 64), keep_ratio=True),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs')]))
test_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    dict(type='BoundaryIoUMetric', dilation_ratio=0.01),
    dict(type='BoundaryIoUMetric', dilation_ratio=0.3, prefix='wide')]
"""


@pytest.fixture(scope='module')
def runs(tmp_path_factory):
    """Two configs with checkpoints: a coarse and a finer tiny FCN."""
    root = tmp_path_factory.mktemp('compare')
    make_street_sample(root / 'street', 2, 3, SIZE)
    made = []
    for name, channels, index in (('coarse', 64, 3), ('fine', 8, 0)):
        config = root / f'{name}.py'
        config.write_text(
            CONFIG.format(
                channels=channels,
                index=index,
                root=str(root / 'street'),
                split='val',
            )
        )
        torch.manual_seed(index)
        state = init_model(str(config), device='cpu').state_dict()
        checkpoint = root / f'{name}.pth'
        torch.save(dict(meta={}, state_dict=state), checkpoint)
        made.append(Run(name, str(config), str(checkpoint)))
    return made


def left_by_test(folder, time, **figures):
    """The metrics in the work directory of a test."""
    (folder / time).mkdir(parents=True)
    (folder / time / f'{time}.json').write_text(json.dumps(figures))


def test_computes_figures_and_draws(runs, tmp_path):
    result = compare(runs, str(tmp_path), images=2)
    coarse, fine = result['rows']
    assert [coarse['method'], fine['method']] == ['coarse', 'fine']
    for row in (coarse, fine):
        for key in ('miou', 'boundary_iou', 'focus_iou', 'focus_boundary_iou'):
            assert 0 <= row[key] <= 100
        assert row['focus_pieces'] is None or row['focus_pieces'] >= 1
        assert 0 <= row['focus_largest_piece'] <= 100 - row['focus_missed'] <= 100
        assert row['seconds'] > 0 and row['passes'] >= 5
        assert row['figures'] == 'computed'
        assert row['input_size'] == list(SIZE)
    assert fine['params_m'] <= coarse['params_m']
    table = (tmp_path / 'compare.md').read_text()
    assert '| coarse ' in table and 'Boundary IoU pole' in table
    report = json.loads((tmp_path / 'compare.json').read_text())
    assert report['rows'] == result['rows']
    assert len(report['pictured']) == 2
    picture = cv2.imread(result['picture'])
    assert picture.shape[1] > 1000 and picture.std() > 10


def test_figures_are_those_of_the_metric(runs, tmp_path):
    """The computed mIoU is that of mmseg's metric over the same labels."""
    from mmseg.apis import inference_model

    result = compare(runs[1:], str(tmp_path), images=1)
    model = init_model(runs[1].config, runs[1].checkpoint, device='cpu')
    both, either = np.zeros(19), np.zeros(19)
    root = model.cfg.test_dataloader.dataset.data_root
    from pathlib import Path

    for path in sorted(Path(root).glob('leftImg8bit/val/*/*.png')):
        label = cv2.imread(
            str(path)
            .replace('leftImg8bit/val', 'gtFine/val')
            .replace('_leftImg8bit.png', '_gtFine_labelTrainIds.png'),
            cv2.IMREAD_UNCHANGED,
        )
        model.cfg.test_pipeline = model.cfg.test_dataloader.dataset.pipeline
        pred = inference_model(model, str(path)).pred_sem_seg.data[0].numpy()
        for c in range(19):
            a, b = (pred == c) & (label != 255), label == c
            both[c] += (a & b).sum()
            either[c] += (a | b).sum()
    with np.errstate(invalid='ignore'):
        expected = 100 * np.nanmean(both / either)
    assert result['rows'][0]['miou'] == pytest.approx(expected, abs=0.02)


def test_the_width_of_boundaries_is_the_first_of_the_config(runs):
    from mmengine.config import Config

    settings = configured(Config.fromfile(runs[0].config), 'BoundaryIoUMetric')
    assert settings == dict(type='BoundaryIoUMetric', dilation_ratio=0.01)


def test_reads_the_metrics_of_a_test(runs, tmp_path):
    figures = {'mIoU': 41.5, 'mBoundaryIoU': 22.25}
    figures.update({'IoU.pole': 12.0, 'BoundaryIoU.pole': 11.0, 'Pieces.pole': 1.25})
    figures.update({'Missed.pole': 75.0, 'LargestPiece.pole': 9.5})
    work = tmp_path / 'work'
    left_by_test(work, '20260101_000000', mIoU=1.0)
    left_by_test(work, '20260102_000000', **figures)
    (work / '20260102_000000' / 'vis_data').mkdir()
    assert read_metrics(str(work), figures) == figures
    assert read_metrics(str(work), ['mIoU', 'aAcc']) is None
    assert read_metrics(str(work), ['aAcc']) is None
    run = Run(*list(vars(runs[0]).values())[:3], work_dir=str(work))
    result = compare([run], str(tmp_path / 'out'), images=1, max_images=2)
    row = result['rows'][0]
    assert (row['miou'], row['boundary_iou']) == (41.5, 22.25)
    assert row['figures'] == 'read from files'
    assert (row['focus_iou'], row['focus_boundary_iou']) == (12.0, 11.0)
    assert (row['focus_pieces'], row['focus_missed']) == (1.25, 75.0)
    assert row['focus_largest_piece'] == 9.5


def test_table():
    row = dict(
        method='PVD', miou=50, mask_ap=None, params_m=11.7, gmacs=5.6,
        seconds=0.0871,
    )  # fmt: skip
    columns = [Column('mIoU', 'miou'), Column('AP', 'mask_ap'), *_COSTS]
    lines = _table([row], columns).splitlines()
    assert len(lines) == 3 and len({len(line) for line in lines}) == 1
    cells = [cell.strip() for cell in lines[2].strip('|').split('|')]
    assert cells == ['PVD', '50.00', '-', '11.70', '5.60', '0.087']


def test_values_of_a_column():
    column = Column('AP', 'mask_ap', 'coco/segm_mAP', factor=100)
    assert column.value({'coco/segm_mAP': 0.371}) == 37.1
    assert column.value({'coco/segm_mAP': -1.0}) is None  # no ground truth
    assert column.value({'coco/segm_mAP': float('nan')}) is None
    assert column.value({}) is None


def test_mistakes(runs, tmp_path):
    coarse, fine = runs
    with pytest.raises(ValueError, match='at least one'):
        compare([], str(tmp_path))
    with pytest.raises(ValueError, match='not distinct'):
        compare([coarse, coarse], str(tmp_path))
    with pytest.raises(FileNotFoundError, match="'x'.*config 'none.py'"):
        compare([Run('x', 'none.py', coarse.checkpoint)], str(tmp_path))
    with pytest.raises(FileNotFoundError, match="checkpoint 'none.pth'"):
        compare([Run('x', coarse.config, 'none.pth')], str(tmp_path))
    with pytest.raises(FileNotFoundError, match='work directory'):
        run = Run('x', coarse.config, coarse.checkpoint, str(tmp_path / 'no'))
        compare([run], str(tmp_path))
    with pytest.raises(UserError, match="(?s)'coarse'.*another model.*another shape"):
        compare([Run('coarse', coarse.config, fine.checkpoint)], str(tmp_path))


def test_a_checkpoint_without_its_auxiliary_head(runs, tmp_path):
    content = torch.load(runs[0].checkpoint)
    weights = content['state_dict']
    kept = {key: weights[key] for key in weights if 'auxiliary_head' not in key}
    assert len(kept) < len(weights)
    torch.save(dict(content, state_dict=kept), tmp_path / 'slim.pth')
    slim = Run('slim', runs[0].config, str(tmp_path / 'slim.pth'))
    whole, row = compare([runs[0], slim], str(tmp_path))['rows']
    assert (row['miou'], row['gmacs']) == (whole['miou'], whole['gmacs'])


def test_different_test_data(runs, tmp_path):
    from pathlib import Path

    text = Path(runs[1].config).read_text()
    other = tmp_path / 'other.py'
    other.write_text(text.replace('/val', '/train'))
    changed = Run('other', str(other), runs[1].checkpoint)
    with pytest.raises(ValueError, match="'coarse' and 'other' differ"):
        compare([runs[0], changed], str(tmp_path))


def test_complexity_of_a_convolution():
    model = torch.nn.Conv2d(3, 8, 3, stride=2, padding=1)
    got = model_complexity(model, (3, 16, 32))
    assert got == dict(macs=8 * 16 * 8 * 3 * 9, params=8 * 3 * 9 + 8)
    assert model.training
    with pytest.raises(ValueError, match='input_shape'):
        model_complexity(model, (16, 32))


def test_complexity_counts_the_dynamic_deconvolution():
    from pvd_mm.decoder import DecodingStep

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.step = DecodingStep(4, 6, 5, init_cfg=None)

        def forward(self, x):
            coarse = x.new_zeros(1, 6, 8, 8)
            decoded = x.new_zeros(1, 5, 8, 8)
            return self.step(x, coarse, decoded, 2)

    model = Model()
    got = model_complexity(model, (4, 16, 16))['macs']
    fuse = 64 * (6 + 5) * 5
    votes = sum(p.numel() for p in model.step.association.parameters() if p.dim() > 1)
    assert got == fuse + 64 * votes + 64 * 5 * 9


def test_complexity_leaves_out_the_auxiliary_head(runs):
    model = init_model(runs[0].config, device='cpu')
    auxiliary = sum(p.numel() for p in model.auxiliary_head.parameters())
    total = sum(p.numel() for p in model.parameters())
    assert auxiliary > 0
    assert model_complexity(model, (3, *SIZE))['params'] == total - auxiliary


def test_pictures_are_chosen_for_both_methods():
    leads = [(5, 0), (-9, 1), (0, 2), (7, 3), (-1, 4)]
    assert most_different(leads, 4) == [3, 0, 4, 1]
    assert most_different(leads, 3) == [3, 0, 1]
    assert most_different(leads, 9) == [3, 0, 2, 4, 1]
    assert most_different(leads, 1) == [3]
