# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Figs. 6 and 7, from untrained models."""

import json

import numpy as np
import pytest
import torch
from mmengine.structures import InstanceData

from comparison.figures import densest_window, draw_figures
from comparison.runs import Run
from comparison.tasks import InstanceTask
from helpers.commands import tool
from helpers.untrained import DETECTOR, make
from pvd_mm.apis.images import read_image
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.utils.errors import UserError


@pytest.fixture
def runs(segmentor, baseline):
    return [Run('DeepLabv3', *baseline), Run('PVD', *segmentor)]


def test_segmentors_on_their_val_split(runs, tmp_path):
    out = tmp_path / 'new' / 'fig6.png'
    result = draw_figures(runs, str(out), rows=2, device='cpu')
    picture = read_image(out)
    told = json.loads(out.with_suffix('.json').read_text())
    assert told['images'] == result['images'] and told['predicted'] == 3
    assert [one['name'] for one in told['runs']] == ['DeepLabv3', 'PVD']
    first, second = (one['differing'] for one in told['images'])
    assert 1 >= first >= second > 0
    one, other = (load_inferencer(r.config, r.checkpoint, 'cpu') for r in runs)
    path = told['images'][0]['image']
    maps = [m.predict(path).pred_sem_seg.data[0].numpy() for m in (one, other)]
    assert first == pytest.approx((maps[0] != maps[1]).mean(), abs=1e-4)
    x, y, width, height = told['images'][0]['window']
    assert (width, height) == (32, 16)
    # image, two predictions and the truth; of each a picture and a zoom
    assert picture.shape[1] == 4 * 4 * 120 and picture.shape[0] > 4 * 2 * 120


def test_segmentors_on_a_folder(runs, street, tmp_path):
    folder = street / 'leftImg8bit/val'
    (tmp_path / 'text.png').write_text('no image')
    paths = [str(folder), str(tmp_path / 'text.png')]
    out = str(tmp_path / 'fig6.png')
    result = draw_figures(runs, out, paths, rows=1, device='cpu', zoom=2)
    assert list(result['unreadable']) == [str(tmp_path / 'text.png')]
    assert result['images'][0]['window'][2:] == [64, 32]
    assert read_image(out).shape[1] == 3 * 4 * 120  # no ground truth
    with pytest.raises(UserError, match='exists already'):
        draw_figures(runs, out, paths)
    with pytest.raises(UserError, match='none of 1 images could be read'):
        draw_figures(runs, out, paths[1:], force=True, device='cpu')


def test_the_tool(runs, street, tmp_path):
    (tmp_path / 'text.png').write_text('no image')
    methods = [
        part for run in runs for part in ('--run', run.name, run.config, run.checkpoint)
    ]
    scene = next(street.glob('leftImg8bit/val/*/*.png'))
    images = (scene, tmp_path / 'text.png')
    out = tmp_path / 'fig6.png'
    said = tool(
        'draw_figures', *images, *methods, '--out', out, '--device', 'cpu', ok=False
    )
    assert f'{scene}: ' in said and '% of the pixels differ' in said
    assert str(images[1]) in said.split('1 files could not be read')[1]
    assert 'Traceback' not in said and out.is_file()


def test_detectors_on_their_val_split(detector, shapes, tmp_path):
    base = 'mask_rcnn/mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256.py'
    text = DETECTOR.format(base=base, root=str(shapes))
    runs = [Run('Mask R-CNN', *make(tmp_path, 'm', text)), Run('PVD', *detector)]
    out = tmp_path / 'fig7.png'
    result = draw_figures(runs, str(out), rows=1, max_images=2, device='cpu')
    assert len(result['images']) == 1
    assert read_image(out).shape[1] == 4 * 4 * 120


def sample_of(masks, labels, scores):
    from mmdet.structures import DetDataSample

    sample = DetDataSample(metainfo=dict(ori_shape=(4, 10)))
    sample.pred_instances = InstanceData(
        masks=torch.tensor(np.array(masks)),
        labels=torch.tensor(labels),
        scores=torch.tensor(scores),
    )
    return sample


def test_objects_are_contours_with_label_and_score():
    masks = np.zeros((3, 4, 10), bool)
    masks[0, :, :6] = masks[1, :, 4:] = masks[2] = True
    meta = dict(classes=('a', 'b'), palette=[[255, 0, 0], [0, 0, 255]])
    task = InstanceTask(meta, contours=True)
    sample = sample_of(masks, [0, 1, 0], [0.6, 0.9, 0.4])
    labels = task.labels(sample)
    assert labels[0].tolist() == [0] * 4 + [1] * 6  # the more certain above
    image = np.full((4, 10, 3), 77, np.uint8)
    cell = task.draw_prediction(sample, image, None)
    assert (cell.picture == 77).all()  # contours alone
    assert [text for _, _, text, _ in cell.labels] == ['a 0.60', 'b 0.90']
    assert [list(color) for _, color in cell.outlines] == [[1, 0.5, 0.5], [0.5, 0.5, 1]]
    assert task.labels(sample_of(masks[:0], [], [])).max() == -1


def test_the_window_with_the_most_differences():
    rng = np.random.default_rng(0)
    mask = rng.random((23, 31)) < 0.2
    rows, columns = densest_window(mask, 4)
    assert (rows.stop - rows.start, columns.stop - columns.start) == (6, 8)
    counts = [mask[y : y + 6, x : x + 8].sum() for y in range(18) for x in range(24)]
    assert mask[rows, columns].sum() == max(counts)
    assert densest_window(np.zeros((8, 8), bool), 2) in ((slice(2, 6), slice(2, 6)),)
    assert densest_window(mask, 1) == (slice(0, 23), slice(0, 31))
    assert densest_window(np.ones((2, 3), bool), 9)[0].stop >= 1


def test_mistakes(runs, detector, street, tmp_path):
    out = str(tmp_path / 'x.png')
    with pytest.raises(UserError, match='expected two'):
        draw_figures(runs[:1], out)
    with pytest.raises(UserError, match='expected two'):
        draw_figures([runs[0], runs[0]], out)
    with pytest.raises(UserError, match='zoom is 0'):
        draw_figures(runs, out, zoom=0)
    with pytest.raises(UserError, match='the tasks of .* differ: mmseg and mmdet'):
        draw_figures([runs[0], Run('x', *detector)], out, device='cpu')
    config = tmp_path / 'train.py'
    config.write_text(
        f'_base_ = {runs[0].config!r}\n'
        'val_dataloader = dict(dataset=dict(data_prefix=dict('
        "img_path='leftImg8bit/train', seg_map_path='gtFine/train')))\n"
    )
    other = Run('train', str(config), runs[0].checkpoint)
    with pytest.raises(UserError, match="'PVD' and 'train' hold different images"):
        draw_figures([runs[1], other], out, device='cpu')
