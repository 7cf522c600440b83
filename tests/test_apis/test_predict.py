# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Prediction of images: mmseg's and mmdet's own inference is the oracle."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image

from helpers.commands import tool
from helpers.untrained import make
from pvd_mm.apis.images import find_images, read_image, result_names
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.apis.predict import predict
from pvd_mm.utils.errors import MissingDataError, UserError


@pytest.fixture
def photos(street, tmp_path):
    """Two folders with an image of the same name, a broken one and a text."""
    scenes = sorted(street.glob('leftImg8bit/val/*/*.png'))
    for name, scene in zip(('a/1.png', 'b/1.png', 'b/2.png'), scenes):
        (tmp_path / 'in' / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scene, tmp_path / 'in' / name)
    (tmp_path / 'in/notes.txt').write_text('no image, and not taken for one')
    return tmp_path / 'in'


def expected_labels(trained, path, **test_cfg):
    from mmseg.apis import inference_model, init_model

    cfg = Config.fromfile(trained.config)
    cfg.model.test_cfg.update(test_cfg)
    pipeline = [
        t for t in cfg.test_dataloader.dataset.pipeline if t.type != 'LoadAnnotations'
    ]
    cfg.test_pipeline = pipeline
    model = init_model(cfg, trained.checkpoint, device='cpu')
    return inference_model(model, str(path)).pred_sem_seg.data[0].numpy()


def test_label_maps_and_overlays(segmentor, photos, tmp_path):
    out = tmp_path / 'out'
    result = predict(*segmentor, [str(photos)], str(out), device='cpu')
    names = ['a/1', 'b/1', 'b/2']
    assert result['done'] == [str(photos / f'{name}.png') for name in names]
    assert result['unreadable'] == {}
    maps = []
    for name in names:
        with Image.open(out / 'labels' / f'{name}.png') as file:
            assert file.mode == 'L'
            maps.append(np.array(file))
        expected = expected_labels(segmentor, photos / f'{name}.png')
        assert np.array_equal(maps[-1], expected)
        overlay = read_image(out / 'overlays' / f'{name}.jpg')
        assert overlay.shape == (*expected.shape, 3)
    assert not np.array_equal(maps[0], maps[1])  # of the same file name
    told = json.loads((out / 'labels.json').read_text())
    assert len(told['classes']) == len(told['palette']) == 19
    assert [one['labels'] for one in told['images']] == [
        f'labels/{name}.png' for name in names
    ]


def test_overlays_have_the_colours_of_the_classes(segmentor, photos, tmp_path):
    out = tmp_path / 'out'
    predict(*segmentor, [str(photos / 'a')], str(out), device='cpu', opacity=1)
    labels = np.array(Image.open(out / 'labels/1.png'))
    palette = np.array(json.loads((out / 'labels.json').read_text())['palette'])
    painted = read_image(out / 'overlays/1.jpg').astype(int)
    assert np.abs(painted - palette[labels]).mean() < 12  # JPEG


def test_big_images_by_a_sliding_window(segmentor, photos, tmp_path):
    big = tmp_path / 'big.png'
    with Image.open(photos / 'a/1.png') as image:
        image.resize((400, 210)).save(big)
    window = (64, 128), (48, 100)
    out = tmp_path / 'out'
    predict(*segmentor, [str(big)], str(out), device='cpu', scale=1, slide=window)
    found = np.array(Image.open(out / 'labels/big.png'))
    cfg = tmp_path / 'full.py'  # the same without the Resize of the config
    cfg.write_text(
        f'_base_ = {segmentor.config!r}\n'
        "p = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]\n"
        'test_dataloader = dict(dataset=dict(pipeline=p))\n'
    )
    expected = expected_labels(
        segmentor._replace(config=str(cfg)),
        big,
        mode='slide',
        crop_size=window[0],
        stride=window[1],
    )
    assert np.array_equal(found, expected)
    inferencer = load_inferencer(*segmentor, 'cpu', scale=0.5)
    assert inferencer.prepare(str(big))['inputs'][0].shape == (3, 105, 200)
    with pytest.raises(UserError, match='64x128 with the stride 65x100'):
        load_inferencer(*segmentor, 'cpu', slide=((64, 128), (65, 100)))
    with pytest.raises(UserError, match='scale is 0'):
        load_inferencer(*segmentor, 'cpu', scale=0)


def test_instances(detector, shapes, tmp_path):
    from mmdet.apis import inference_detector, init_detector
    from pycocotools.coco import COCO

    out = tmp_path / 'out'
    folder = shapes / 'val2017'
    result = predict(*detector, [str(folder)], str(out), device='cpu', score_thr=0)
    coco = COCO(result['results'])
    model = init_detector(*detector, device='cpu')
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(
        model.dataset_meta['classes']
    )
    assert len(coco.anns) > 0 and len(coco.imgs) == len(result['done']) == 3
    for image in coco.imgs.values():
        path = Path(image['file_name'])
        assert read_image(path).shape[:2] == (image['height'], image['width'])
        expected = inference_detector(model, str(path)).pred_instances
        found = coco.loadAnns(coco.getAnnIds(imgIds=image['id']))
        assert len(found) == len(expected)
        for one, box, label, score, mask in zip(
            found,
            expected.bboxes.tolist(),
            expected.labels.tolist(),
            expected.scores.tolist(),
            expected.masks.numpy(),
        ):
            assert np.array_equal(coco.annToMask(one), mask)
            assert one['area'] == mask.sum()
            assert one['category_id'] == label + 1
            assert one['score'] == pytest.approx(score, abs=1e-5)
            x, y, width, height = one['bbox']
            assert (x, y, x + width, y + height) == pytest.approx(box, abs=0.02)
        overlay = out / 'overlays' / f'{path.stem}.jpg'
        assert read_image(overlay).shape[:2] == (image['height'], image['width'])
    with pytest.raises(UserError, match='sliding window is for segmentors'):
        load_inferencer(*detector, 'cpu', slide=((64, 64), (32, 32)))


def test_unreadable_files_are_named_and_the_others_done(segmentor, photos, tmp_path):
    good = (photos / 'a/1.png').read_bytes()
    (photos / 'cut.png').write_bytes(good[: len(good) // 2])
    (photos / 'text.jpg').write_text('no image')
    out = tmp_path / 'out'
    options = ('--out', out, '--device', 'cpu')
    said = tool('predict', *segmentor, photos, *options, ok=False)
    assert 'Traceback' not in said
    assert '3 images predicted' in said and '2 files could not be read' in said
    for name in ('cut.png', 'text.jpg'):
        assert str(photos / name) in said.split('could not be read')[1]
    assert len(list(out.rglob('labels/**/*.png'))) == 3


@pytest.mark.parametrize('kind', ['float32', 'int32'])
def test_an_image_that_opencv_makes_no_colours_of(tmp_path, kind):
    Image.fromarray(np.zeros((4, 6), kind)).save(tmp_path / 'a.tif')
    with pytest.raises(UserError, match=f'a.tif holds {kind}, .* 8 bits') as error:
        read_image(tmp_path / 'a.tif')
    assert 'no image' not in str(error.value)
    (tmp_path / 'a.tif').write_bytes(b'')
    with pytest.raises(UserError, match='a.tif is no image, or a broken one'):
        read_image(tmp_path / 'a.tif')


def test_only_unreadable_files(segmentor, tmp_path):
    (tmp_path / 'text.jpg').write_text('no image')
    result = predict(
        *segmentor, [str(tmp_path / 'text.jpg')], str(tmp_path / 'out'), device='cpu'
    )
    assert result['done'] == [] and len(result['unreadable']) == 1


def test_output_folders(segmentor, photos, tmp_path):
    out = photos / 'out'  # among the images: must not be searched
    out.mkdir()
    (out / 'mine.jpg').write_bytes(b'precious')
    options = dict(device='cpu', images=[str(photos)], out_dir=str(out))
    with pytest.raises(UserError, match='is not empty.*--force'):
        predict(*segmentor, **options)
    for _ in range(2):
        result = predict(*segmentor, force=True, **options)
        assert len(result['done']) == 3 and result['unreadable'] == {}
    assert (out / 'mine.jpg').read_bytes() == b'precious'
    options['out_dir'] = str(photos / 'notes.txt')
    with pytest.raises(UserError, match='is a file'):
        predict(*segmentor, force=True, **options)


def test_results_never_replace_images(segmentor, photos):
    (photos / 'labels').mkdir()
    own = photos / 'labels/1.png'
    shutil.copy(photos / 'a/1.png', own)
    before = own.read_bytes()
    with pytest.raises(UserError, match='would replace the images .*labels/1.png'):
        predict(*segmentor, [str(own)], str(photos), force=True, device='cpu')
    assert own.read_bytes() == before


def test_checkpoints_that_do_not_fit(segmentor, baseline, photos, tmp_path):
    out = tmp_path / 'out'
    with pytest.raises(UserError, match='another model') as caught:
        predict(segmentor.config, baseline.checkpoint, [str(photos)], str(out))
    assert baseline.checkpoint in str(caught.value)
    assert 'missing from the file: decode_head' in str(caught.value)
    assert 'unknown to the model: ' in str(caught.value)
    text = photos / 'notes.txt'
    for path, message in ((text, 'no checkpoint'), (tmp_path / 'x.pth', 'not found')):
        with pytest.raises(UserError, match=message):
            predict(segmentor.config, str(path), [str(photos)], str(out))
    with pytest.raises(UserError, match='Config not found'):
        predict('pvd_r19', segmentor.checkpoint, [str(photos)], str(out))
    with pytest.raises(UserError, match="device is 'cuda:99'"):
        predict(*segmentor, [str(photos)], str(out), device='cuda:99')
    with pytest.raises(UserError, match='opacity is 2'):
        predict(*segmentor, [str(photos)], str(out), opacity=2)
    assert not out.exists()


def test_checkpoint_without_auxiliary_head(segmentor, tmp_path):
    content = torch.load(segmentor.checkpoint)
    weights = content['state_dict']
    heads = [key for key in weights if key.startswith('auxiliary_head')]
    assert heads
    for key in heads:
        del weights[key]
    torch.save(content, tmp_path / 'slim.pth')
    load_inferencer(segmentor.config, str(tmp_path / 'slim.pth'), 'cpu')


def test_names_of_classes(segmentor, tmp_path):
    content = torch.load(segmentor.checkpoint)
    of_config = load_inferencer(*segmentor, 'cpu').model.dataset_meta

    def meta(config=segmentor.config, **kwargs):
        path = str(tmp_path / 'c.pth')
        torch.save(dict(content, meta=kwargs), path)
        inferencer = load_inferencer(config, path, 'cpu')
        assert inferencer.visualizer.dataset_meta == inferencer.model.dataset_meta
        return inferencer.model.dataset_meta

    assert of_config['classes'][0] == 'road' and of_config['palette'][0][0] == 128
    assert meta() == of_config
    own = tuple(f'own {i}' for i in range(19))
    found = meta(dataset_meta=dict(classes=own))
    assert found['classes'] == own and len(found['palette']) == 19
    assert meta(CLASSES=own, PALETTE=[[7, 8, 9]] * 19)['palette'] == [(7, 8, 9)] * 19
    config = tmp_path / 'three.py'
    config.write_text(
        f'_base_ = {segmentor.config!r}\nmodel = dict(decode_head=dict(num_classes=3))'
    )
    import mmengine

    mmengine.registry.init_default_scope('mmseg')
    model = mmengine.registry.MODELS.build(Config.fromfile(config).model)
    content['state_dict'] = model.state_dict()
    assert meta(str(config))['classes'] == ('0', '1', '2')


def test_which_images(tmp_path):
    for name in ('b/2.jpg', 'a/1.PNG', 'a/.hidden.png', 'a/x.txt', '.git/3.png'):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'empty').mkdir()
    both = [tmp_path / 'a/1.PNG', tmp_path / 'b/2.jpg']

    def find(*names):
        return find_images([str(tmp_path / name) for name in names])

    assert find('') == both
    assert find('b', 'a') == both[::-1]
    assert find('*/*.jpg', 'b/2.jpg', '') == both[::-1]  # each once
    assert find('a/x.txt') == [tmp_path / 'a/x.txt']  # named, so tried
    assert find('*') == both  # an empty folder beside others
    for name, message in (
        ('empty', "empty' holds no image"),
        ('none.png', 'does not exist'),
        ('*.gif', 'matches nothing'),
    ):
        with pytest.raises(MissingDataError, match=message):
            find('a', name)


def test_names_of_results():
    def names(*paths):
        return list(map(str, result_names([Path(path) for path in paths])))

    assert names('/x/a/1.png', '/x/b/1.png') == ['a/1', 'b/1']
    assert names('/x/a/1.tar.png') == ['1.tar']
    assert names('/x/1.png', '/x/1.jpg', '/x/2.jpg') == ['1.png', '1.jpg', '2.jpg']


def test_panoptic_segments(panoptic, street_panoptic, tmp_path):
    """In COCO's format, which the metric reads; mmdet's inference is the oracle."""
    from mmdet.apis import inference_detector, init_detector

    from pvd_mm.panoptic import match_segments, rgb_to_ids, split_prediction

    scenes = sorted(street_panoptic.glob('leftImg8bit/val/dornhalm/*.png'))
    assert len(scenes) == 2
    out = tmp_path / 'out'
    result = predict(*panoptic, [str(scenes[0].parent)], str(out), device='cpu')
    assert result['done'] == [str(scene) for scene in scenes]
    told = json.loads((out / 'panoptic.json').read_text())
    things = [c['name'] for c in told['categories'] if c['isthing']]
    assert things[0] == 'person' and len(things) == 8 and len(told['categories']) == 19
    cfg = Config.fromfile(panoptic.config)
    pipeline = [t for t in cfg.pipeline if 'Annotations' not in t.type]
    cfg.test_dataloader.dataset.pipeline = pipeline
    model = init_detector(cfg, panoptic.checkpoint, device='cpu')
    for scene, image, annotation in zip(
        scenes, told['images'], told['annotations'], strict=True
    ):
        assert (image['file_name'], image['height']) == (str(scene), 96)
        ids = rgb_to_ids(
            np.array(Image.open(out / 'panoptic' / annotation['file_name']))
        )
        expected = inference_detector(model, str(scene)).pred_panoptic_seg.sem_seg[0]
        segments = split_prediction(expected.numpy(), 19)
        assert (ids == segments[0]).all() and len(segments[1]) > 1
        for entry, segment in zip(
            annotation['segments_info'], segments[1], strict=True
        ):
            mask = ids == entry['id']
            left, top, width, height = entry['bbox']
            assert entry['category_id'] == segment.label + 1
            assert entry['area'] == mask.sum()
            assert mask[top : top + height, left : left + width].sum() == mask.sum()
        assert match_segments(*segments, ids, segments[1], 19)[:, 2:].sum() == 0
        overlay = read_image(
            out / 'overlays' / f'{Path(annotation["file_name"]).stem}.jpg'
        )
        assert overlay.shape == (96, 128, 3)


@pytest.mark.parametrize('merge', [True, False])
def test_a_panoptic_model_of_labels_alone(panoptic, street_panoptic, tmp_path, merge):
    """Label maps, in which what it does not tell apart is 255."""
    config = tmp_path / 'labels.py'
    config.write_text(
        f'_base_ = {panoptic.config!r}\n'
        'model = dict(rpn_head=None, roi_head=None, neck=None,\n'
        f'    panoptic_fusion_head=None, semantic_head=dict(merge_things={merge}))\n'
        "test_evaluator = [dict(type='SemSegMetric', iou_metrics=['mIoU'])]\n"
    )
    trained = make(tmp_path, 'labels', config.read_text())
    scene = next(street_panoptic.glob('leftImg8bit/val/dornhalm/*.png'))
    out = tmp_path / 'out'
    predict(*trained, [str(scene)], str(out), device='cpu')
    told = json.loads((out / 'labels.json').read_text())
    assert [Path(image['file_name']) for image in told['images']] == [scene]
    assert len(told['classes']) == 19
    labels = np.array(Image.open(out / told['images'][0]['labels']))
    overlay = read_image(out / told['images'][0]['overlay'])
    assert labels.shape == (96, 128) and overlay.shape == (96, 128, 3)
    inferencer = load_inferencer(*trained, device='cpu')
    expected = inferencer.predict(str(scene)).pred_sem_seg.sem_seg[0]
    assert (labels == expected.numpy()).all()
    if merge:
        assert set(np.unique(labels)) <= {255, *range(8, 19)}


def test_an_image_without_any_segment(panoptic, street_panoptic, tmp_path):
    """Stuff is too small, and no object sure enough."""
    config = tmp_path / 'strict.py'
    config.write_text(
        f'_base_ = {panoptic.config!r}\n'
        'model = dict(test_cfg=dict(panoptic=dict(score_thr=1.1, '
        'stuff_area_limit=1000000)))\n'
    )
    scene = next(street_panoptic.glob('leftImg8bit/val/dornhalm/*.png'))
    out = tmp_path / 'out'
    predict(str(config), panoptic.checkpoint, [str(scene)], str(out), device='cpu')
    told = json.loads((out / 'panoptic.json').read_text())
    assert told['annotations'][0]['segments_info'] == []
    assert not np.array(Image.open(out / f'panoptic/{scene.stem}.png')).any()
    painted, image = read_image(out / f'overlays/{scene.stem}.jpg'), read_image(scene)
    assert np.abs(painted.astype(int) - image).mean() < 10
