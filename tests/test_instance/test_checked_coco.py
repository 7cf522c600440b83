# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Mistakes in COCO files, on real files, through mmdet's registry."""

import copy
import json
import time

import cv2
import numpy as np
import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmdet.utils import register_all_modules
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData
from PIL import Image
from pycocotools import mask as rle_ops
from torch.utils.data import DataLoader

from helpers.real_data import COCO_TINY, needs_coco
from helpers.remote import remote_folder
from pvd_mm.data.samples.shapes.masks import mask_runs
from pvd_mm.instance import checked_coco
from pvd_mm.instance.checked_coco import (
    CheckedCOCO,
    CheckedCocoDataset,
    CheckedCocoMixin,
)
from pvd_mm.instance.coco_annotations import check_rle
from pvd_mm.utils.errors import (
    AnnotationError,
    ClassesError,
    MissingDataError,
    UserError,
)

register_all_modules(init_default_scope=False)

HEIGHT, WIDTH = 20, 30
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True),
    dict(type='PackDetInputs'),
]
BOXES = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='PackDetInputs'),
]


@pytest.fixture(autouse=True)
def scope():
    """Names are mmdet's, whatever other tests have set."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture
def told(monkeypatch):
    """The warnings."""
    messages = []
    monkeypatch.setattr(
        checked_coco, 'print_log', lambda message, *_: messages.append(message)
    )
    return messages


def compressed(top=2, left=3, height=6, width=8):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order='F')
    mask[top : top + height, left : left + width] = 1
    code = rle_ops.encode(mask)
    return dict(size=[HEIGHT, WIDTH], counts=code['counts'].decode())


def good():
    """Two images, three annotations: a polygon, RLE of both kinds."""
    box = dict(bbox=[3, 2, 8, 6], area=48.0, iscrowd=0)
    runs = mask_runs(rle_ops.decode(compressed()))['counts']
    return dict(
        images=[
            dict(id=7, file_name='a.png', height=HEIGHT, width=WIDTH),
            dict(id=9, file_name='b.png', height=HEIGHT, width=WIDTH),
        ],
        categories=[dict(id=1, name='cat'), dict(id=4, name='dog')],
        annotations=[
            dict(
                box,
                id=11,
                image_id=7,
                category_id=1,
                segmentation=[[3, 2, 11, 2, 11, 8, 3, 8]],
            ),
            dict(box, id=12, image_id=7, category_id=4, segmentation=compressed()),
            dict(
                box,
                id=13,
                image_id=9,
                category_id=4,
                iscrowd=1,
                segmentation=dict(size=[HEIGHT, WIDTH], counts=runs),
            ),
        ],
    )


def write(root, data=None, images=('a', 'b')):
    (root / 'images').mkdir(exist_ok=True)
    for name in images:
        cv2.imwrite(
            str(root / f'images/{name}.png'), np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        )
    text = data if isinstance(data, str) else json.dumps(data or good())
    (root / 'ann.json').write_text(text)


def build(root, pipeline=PIPELINE, classes=('cat', 'dog'), **kwargs):
    config = dict(
        type='CheckedCocoDataset',
        data_root=str(root),
        ann_file='ann.json',
        data_prefix=dict(img='images/'),
        metainfo=dict(classes=classes),
        pipeline=list(pipeline),
    )
    config.update(kwargs)
    return DATASETS.build(config)


def refusal(root, data=None, kind=AnnotationError, load=False, **kwargs):
    """The message that a dataset of ``data`` ends in."""
    if data is not None:
        write(root, data)
    with pytest.raises(kind) as error:
        dataset = build(root, **kwargs)
        if load:
            for i in range(len(dataset)):
                dataset[i]
    assert isinstance(error.value, UserError) or kind is ValueError
    text = str(error.value)
    assert 'CheckedCocoDataset' in text
    return text


def changed(place=0, without=(), **values):
    data = good()
    data['annotations'][place].update(values)
    for key in without:
        del data['annotations'][place][key]
    return data


# ------------------------------------------------------------------ good data


def test_good_data_is_that_of_mmdet(tmp_path):
    write(tmp_path)
    dataset = build(tmp_path)
    plain = DATASETS.build(
        dict(
            type='CocoDataset',
            data_root=str(tmp_path),
            ann_file='ann.json',
            data_prefix=dict(img='images/'),
            metainfo=dict(classes=('cat', 'dog')),
            pipeline=PIPELINE,
        )
    )
    assert len(dataset) == len(plain) == 2
    ids = []
    for i in range(2):
        got, expected = dataset.get_data_info(i), plain.get_data_info(i)
        ids.append([instance.pop('ann_id') for instance in got['instances']])
        assert got == expected
        got = dataset[i]['data_samples'].gt_instances.masks.masks
        expected = plain[i]['data_samples'].gt_instances.masks.masks
        assert np.array_equal(got, expected)
    assert ids == [[11, 12], [13]]


def test_in_the_workers_of_a_loader(tmp_path):
    """Errors keep their message across processes, as the tools print it."""
    data = changed(1, segmentation=dict(size=[HEIGHT, WIDTH], counts='abc'))
    write(tmp_path, data)
    loader = DataLoader(build(tmp_path), num_workers=1, collate_fn=pseudo_collate)
    with pytest.raises(AnnotationError) as error:
        next(iter(loader))
    text = str(error.value)
    assert text.startswith('CheckedCocoDataset: annotation 12 of')
    assert 'Traceback' not in text


@needs_coco
@pytest.mark.parametrize('part', ['train2017', 'val2017'])
def test_coco_passes(part):
    config = dict(
        data_root=str(COCO_TINY),
        ann_file=f'annotations/instances_{part}.json',
        data_prefix=dict(img=f'{part}/'),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=PIPELINE,
    )
    dataset = DATASETS.build(dict(config, type='CheckedCocoDataset'))
    plain = CocoDataset(**config)
    assert len(dataset) == len(plain) > 0
    for i in range(len(plain)):
        info = dataset.get_data_info(i)
        assert all(instance.pop('ann_id') for instance in info['instances'])
        assert info == plain.get_data_info(i)
    assert len(dataset[0]['data_samples'].gt_instances) > 0


# -------------------------------------------------------------------- places


def test_missing_files_and_folders(tmp_path):
    write(tmp_path)
    text = refusal(tmp_path, kind=FileNotFoundError, ann_file='sub/none.json')
    assert 'sub/none.json' in text and f'{tmp_path} exists' in text
    assert 'cocodataset.org' in text
    prefix = dict(img='imagse/')
    text = refusal(tmp_path, kind=MissingDataError, data_prefix=prefix)
    assert "data_prefix['img']" in text and 'imagse' in text
    text = refusal(tmp_path, kind=ValueError, data_prefix=dict(img_path='images'))
    assert "the key 'img'" in text
    assert 'ann_file' in refusal(tmp_path, kind=ValueError, ann_file='')


def test_missing_images(tmp_path):
    data = good()
    for i in range(8):
        image = dict(data['images'][0], id=100 + i, file_name=f'c{i}.png')
        data['images'].append(image)
    write(tmp_path, data)
    text = refusal(tmp_path, kind=FileNotFoundError)
    assert '8 of 10 images' in text
    assert 'c0.png (id 100)' in text and 'and 3 more' in text and 'c7' not in text
    assert 'a.png' not in text


@pytest.mark.parametrize('lists', [True, False])
def test_a_data_root_whose_backend_is_inferred(tmp_path, lists):
    write(tmp_path)
    dataset = build(remote_folder(tmp_path, lists))
    assert dataset.get_data_info(0)['img_path'].startswith(('store://', 'web://'))
    assert dataset[0]['data_samples'].gt_instances.masks.masks.sum() == 2 * 48


def test_images_in_further_folders(tmp_path):
    write(tmp_path)
    (tmp_path / 'images/deep').mkdir()
    (tmp_path / 'images/a.png').rename(tmp_path / 'images/deep/a.png')
    data = good()
    data['images'][0]['file_name'] = 'deep/a.png'
    data['images'][1]['file_name'] = 'images/b.png'
    text = refusal(tmp_path, data, kind=MissingDataError)
    assert '1 of 2' in text and 'images/images/b.png' in text
    data['images'][1]['file_name'] = 'b.png'
    write(tmp_path, data)
    assert len(build(tmp_path)) == 2


@pytest.mark.parametrize(
    'text, expected',
    [
        ('{"images": [', 'it is not JSON'),
        ('', 'it is not JSON'),
        ('[1, 2]', 'it is not COCO'),
        ('{"info": 1}', "'images' has to be a list, but is missing"),
        ('{"images": [], "categories": 3}', "'categories' .* is 3"),
        ('{"images": [], "categories": []}', 'it lists no image'),
        ('{"images": [5], "categories": []}', "entry 0 of 'images' has no id: 5"),
        ('{"images": [{"id": 1}], "categories": []}', 'image 1 has no file_name'),
    ],
)
def test_what_is_not_coco(tmp_path, text, expected):
    write(tmp_path, text)
    with pytest.raises(AnnotationError, match=expected) as error:
        build(tmp_path)
    assert str(tmp_path / 'ann.json') in str(error.value)


def test_an_image_as_annotation_file(tmp_path):
    write(tmp_path)
    assert 'not JSON' in refusal(tmp_path, ann_file='images/a.png')


@pytest.mark.parametrize('size', [dict(height=0), dict(width='30'), dict(height=None)])
def test_image_sizes(tmp_path, size):
    data = good()
    data['images'][1].update(size)
    assert 'image 9 (b.png) has the height and width' in refusal(tmp_path, data)


# ------------------------------------------------------------------ categories


def test_classes_that_the_file_does_not_have(tmp_path):
    text = refusal(tmp_path, good(), classes=('cat', 'horse', 'cow'))
    assert '2 of the 3 classes' in text and 'horse, cow' in text
    assert "['cat', 'dog']" in text and "['cat', 'horse', 'cow']" in text
    # the 80 classes of COCO, if none are given
    text = refusal(tmp_path, good(), metainfo=None)
    assert '78 of the 80 classes' in text


def test_a_subset_of_the_classes(tmp_path):
    write(tmp_path)
    dataset = build(tmp_path, classes=('dog',), filter_cfg=dict(filter_empty_gt=True))
    assert [i['ann_id'] for i in dataset.get_data_info(0)['instances']] == [12]


def test_classes_in_another_order_are_warned_of(tmp_path, told):
    write(tmp_path)
    build(tmp_path)
    assert 'wrong names' not in ''.join(told)
    build(tmp_path, classes=('dog', 'cat'))
    assert 'wrong names' in ''.join(told)


def test_categories_named_twice(tmp_path):
    data = good()
    data['categories'].append(dict(id=5, name='dog'))
    assert 'categories dog are named twice' in refusal(tmp_path, data)
    data['categories'][-1] = dict(id=5)
    assert 'category 5 has no name' in refusal(tmp_path, data)


# ---------------------------------------------------------------- annotations


def test_ids_that_are_there_twice(tmp_path):
    text = refusal(tmp_path, changed(1, id=11))
    assert "1 ids of 'annotations' are there more than once: 11" in text
    data = good()
    data['images'][1]['id'] = 7
    assert "'images' are there more than once: 7" in refusal(tmp_path, data)
    data = good()
    data['categories'][1]['id'] = 1
    assert "'categories' are there more than once: 1" in refusal(tmp_path, data)


NAN, INF = float('nan'), float('inf')
RUNS = [100, 50, HEIGHT * WIDTH - 150]
SIZE = [HEIGHT, WIDTH]


@pytest.mark.parametrize(
    'values, expected',
    [
        (dict(image_id=8), 'the image 8, which the file does not list'),
        (dict(image_id=[7]), 'unhashable'),
        (dict(category_id=2), r'the category 2, .*; there are 1, 4'),
        (dict(bbox=[1, 2, 3]), r'the bbox \[1, 2, 3\]; expected four finite'),
        (dict(bbox=[1, 2, 3, NAN]), r'the bbox \[1, 2, 3, nan\]'),
        (dict(bbox=[1, 2, 3, INF]), r'the bbox \[1, 2, 3, inf\]'),
        (dict(bbox=[1, 2, 3, '4']), 'the bbox'),
        (dict(bbox=None), 'the bbox None'),
        (dict(area=NAN), 'the area nan'),
        (dict(area='9'), "the area '9'"),
        (dict(iscrowd='0'), "the iscrowd '0'; expected 0 or 1"),
        (dict(iscrowd=2), 'the iscrowd 2'),
        (dict(iscrowd=[0]), r'the iscrowd \[0\]'),
        (dict(segmentation=[[1, 2, 3, 4, 5, NAN]]), r'the polygon \[1, .*finite'),
        (dict(segmentation=[1, 2, 3, 4, 5, 6]), 'the polygon 1; expected'),
        (dict(segmentation=[[[1, 2], [3, 4]]]), r'the polygon \[\[1, 2\]'),
        (dict(segmentation='abc'), "the segmentation 'abc'"),
        (dict(segmentation=dict(size=SIZE)), 'the broken RLE .*size'),
        (dict(segmentation=dict(counts=RUNS)), 'the broken RLE'),
        (dict(segmentation=dict(size=SIZE, counts='')), 'the broken RLE'),
        (
            dict(segmentation=dict(size=[WIDTH, HEIGHT], counts=RUNS)),
            r'RLE of the size \[30, 20\], but its image has \[20, 30\]',
        ),
        (
            dict(segmentation=dict(size=SIZE, counts=RUNS[:2])),
            'broken RLE: its runs add up to 150 pixels, but .* = 600',
        ),
        (dict(segmentation=dict(size=SIZE, counts=[-5, 605])), 'negative run -5'),
        (dict(segmentation=dict(size=SIZE, counts=[0.5, 599.5])), 'whole numbers'),
        (dict(segmentation=dict(size=SIZE, counts=['600'])), 'whole numbers'),
    ],
)
def test_a_broken_annotation_is_named(tmp_path, values, expected):
    write(tmp_path, changed(1, **values))
    with pytest.raises(AnnotationError, match=f'annotation 12.*{expected}') as error:
        build(tmp_path)
    assert str(tmp_path / 'ann.json') in str(error.value)


@pytest.mark.parametrize('key', ['image_id', 'category_id', 'bbox', 'area'])
def test_a_missing_key_is_named(tmp_path, key):
    text = refusal(tmp_path, changed(2, without=[key]))
    assert f"annotation 13 has no '{key}'" in text


@pytest.mark.parametrize(
    'counts, expected',
    [
        (
            lambda c: c[:-3],
            'its runs add up to fewer pixels, but .* = 600',
        ),  # pycocotools: random memory
        (lambda c: c + '99', 'its runs add up to more pixels, but .* = 600'),
        (lambda c: c + 'o', 'end within a number'),
        (lambda c: 'hello world', 'foreign characters'),
        (lambda c: 'é' + c, 'foreign characters'),
        (lambda c: 'PPPPPPPPP1' + c, 'more than 32 bits'),
        (lambda c: c[:2] + 'O' + c[2:], 'negative run|add up to'),
    ],
)
def test_a_broken_string_is_named_when_the_sample_is_loaded(tmp_path, counts, expected):
    code = dict(size=SIZE, counts=counts(compressed()['counts']))
    write(tmp_path, changed(1, segmentation=code))
    dataset = build(tmp_path)
    dataset[1]
    with pytest.raises(AnnotationError, match=f'annotation 12 of.*{expected}') as error:
        dataset[0]
    assert str(tmp_path / 'images/a.png') in str(error.value)


@pytest.mark.parametrize('density', [0, 0.001, 0.5, 1])
def test_masks_of_pycocotools_pass(density):
    rng = np.random.default_rng(0)
    mask = np.asfortranarray(rng.random((300, 500)) < density).astype(np.uint8)
    rle = rle_ops.encode(np.asfortranarray(mask))
    rle['counts'] = rle['counts'].decode()
    check_rle(rle)
    check_rle(mask_runs(mask))
    for size in ([300, 501], [300, 499]):
        with pytest.raises(ValueError, match='its runs add up to (fewer|more) pixels'):
            check_rle(dict(rle, size=size))
        with pytest.raises(ValueError, match='its runs add up to 150000 pixels'):
            check_rle(dict(mask_runs(mask), size=size))


def test_masks_of_one_pixel_and_empty_runs():
    check_rle(dict(size=[1, 1], counts='1'))
    check_rle(dict(size=[1, 1], counts='01'))
    with pytest.raises(ValueError, match='fewer pixels'):
        check_rle(dict(size=[1, 1], counts='0'))
    check_rle(dict(size=[2, 3], counts='3003'))  # runs of 3, 0, 0 and 3 pixels


def test_boxes_without_masks(tmp_path):
    data = changed(1, without=['segmentation'])
    write(tmp_path, data)
    assert len(build(tmp_path, BOXES)[0]['data_samples'].gt_instances) == 2
    text = refusal(tmp_path, load=True)
    assert 'annotation 12' in text and 'no segmentation' in text
    assert 'annotation 11' in refusal(tmp_path, changed(0, segmentation=[]), load=True)


# ------------------------------------------------- what mmdet does on purpose


@pytest.mark.parametrize(
    'values',
    [
        dict(area=0),
        dict(ignore=True),
        dict(bbox=[3, 2, 0.5, 6]),
        dict(bbox=[-50, 2, 8, 6]),
    ],
)
def test_what_mmdet_leaves_out_stays_left_out(tmp_path, values):
    write(tmp_path, changed(0, **values))
    instances = build(tmp_path).get_data_info(0)['instances']
    assert [instance['ann_id'] for instance in instances] == [12]


def test_polygons_of_two_points_are_left_out_with_a_warning(tmp_path, told):
    triangle = [3, 2, 11, 2, 11, 8]
    data = changed(0, segmentation=[[1, 2, 3, 4], triangle])
    data['annotations'][1]['segmentation'] = [[1, 2, 3, 4]]
    data['annotations'][2]['segmentation'] = [triangle + [7]]
    write(tmp_path, data)
    dataset = build(tmp_path)
    text = ''.join(told)
    assert '3 annotations have polygons of fewer than three' in text
    assert '11, 12, 13' in text
    sample = dataset[0]['data_samples']
    assert len(sample.gt_instances) == 1  # 11, by its triangle
    assert len(sample.ignored_instances) == 1  # 12
    assert len(dataset[1]['data_samples'].gt_instances) == 0


def test_filters(tmp_path):
    data = good()
    data['annotations'].pop()
    write(tmp_path, data)
    assert len(build(tmp_path)) == 2
    assert len(build(tmp_path, filter_cfg=dict(filter_empty_gt=True))) == 1
    text = refusal(tmp_path, filter_cfg=dict(min_size=32))
    assert 'leaves none of the 2 images' in text
    assert len(build(tmp_path, filter_cfg=dict(min_size=32), test_mode=True)) == 2


def test_a_list_of_test_images_needs_no_annotations(tmp_path):
    data = good()
    del data['annotations']
    write(tmp_path, data)
    dataset = build(tmp_path, [dict(type='LoadImageFromFile')], test_mode=True)
    assert len(dataset) == 2


def test_subsets(tmp_path):
    write(tmp_path)
    assert len(build(tmp_path, indices=1)) == 1
    assert build(tmp_path).get_subset([1])[0]['data_samples'].img_id == 9


# ------------------------------------- what is left open, by dataset and metrics


def infos(dataset):
    return [dataset.get_data_info(i) for i in range(len(dataset))]


def test_whole_numbers_written_as_floats(tmp_path):
    write(tmp_path)
    expected = infos(build(tmp_path))
    data = good()
    for entry in [*data['images'], *data['categories'], *data['annotations']]:
        for key in {'id', 'height', 'width', 'image_id', 'category_id'} & set(entry):
            entry[key] = float(entry[key])
        entry.update(iscrowd=float(entry.get('iscrowd', 0)))
    code = data['annotations'][1]['segmentation']
    code['size'] = list(map(float, code['size']))
    code = data['annotations'][2]['segmentation']
    code['counts'] = list(map(float, code['counts']))
    write(tmp_path, data)
    dataset = build(tmp_path)
    assert infos(dataset) == expected
    assert all(type(info['height']) is int for info in infos(dataset))
    assert dataset[0]['data_samples'].gt_instances.masks.masks.sum() == 2 * 48
    assert dataset[1]['data_samples'].ignored_instances.masks.masks.sum() == 48
    data['images'][1]['height'] = 20.5
    assert 'height and width (20.5, 30' in refusal(tmp_path, data)


def scores(root, file=True, metric=('bbox', 'segm'), lost=None, **kwargs):
    """What CocoMetric and BoundaryAPMetric say of the masks of the annotations as
    predictions; those of the class ``lost`` are not found."""
    dataset = build(root, test_mode=True)
    ann_file = str(root / 'ann.json') if file else None
    evaluator = Evaluator(
        [
            dict(type='CocoMetric', ann_file=ann_file, metric=list(metric), **kwargs),
            dict(type='BoundaryAPMetric', ann_file=ann_file, **kwargs),
        ]
    )
    evaluator.dataset_meta = dataset.metainfo
    for i in range(len(dataset)):
        sample = dataset[i]['data_samples']
        truth = sample.gt_instances
        truth = truth[truth.labels != (-1 if lost is None else lost)]
        sample.pred_instances = InstanceData(
            bboxes=truth.bboxes.tensor,
            labels=truth.labels,
            scores=torch.ones(len(truth)),
            masks=truth.masks.to_tensor(bool, 'cpu'),
        )
        sample.set_metainfo(dict(instances=dataset.get_data_info(i)['instances']))
        evaluator.process([sample])
    found = evaluator.evaluate(len(dataset))
    return {key.removeprefix('coco/'): value for key, value in found.items()}


PERFECT = dict(bbox_mAP=1.0, segm_mAP=1.0, boundary_mAP=1.0)


def perfect(found):
    return {key: found[key] for key in PERFECT} == PERFECT


TRIANGLE = [3, 2, 11, 2, 11, 8]


@pytest.mark.parametrize('file', [True, False])
@pytest.mark.parametrize(
    'values, without',
    [
        ({}, ['iscrowd']),
        (dict(iscrowd=None), []),
        (dict(iscrowd=False), []),
        (dict(id='eleven'), []),
        (dict(id=0), []),
        (dict(id=11.0), []),
        (dict(segmentation=[[1, 2], TRIANGLE]), []),
        (dict(segmentation=[[1, 2, 3, 4], TRIANGLE]), []),  # pycocotools: a box
        (dict(segmentation=[[], TRIANGLE]), []),
        (dict(segmentation=[TRIANGLE, [*TRIANGLE, 7]]), []),
    ],
)
def test_what_the_dataset_reads_is_evaluated(tmp_path, values, without, file):
    """pycocotools stops at these, or takes 0 for no object."""
    write(tmp_path, changed(0, without, **values))
    assert perfect(scores(tmp_path, file))
    half = scores(tmp_path, file, lost=0)  # the mean of two classes
    assert half['bbox_mAP'] == half['segm_mAP'] == half['boundary_mAP'] == 0.5


@pytest.mark.parametrize('file', [True, False])
@pytest.mark.parametrize('polygons', [[[1, 2]], [[1, 2, 3, 4]], [[]], [[*TRIANGLE, 7]]])
def test_objects_without_any_polygon_are_ignored(tmp_path, polygons, file):
    """In training and in evaluation: they are neither found nor missed."""
    write(tmp_path, changed(0, segmentation=polygons))
    sample = build(tmp_path)[0]['data_samples']
    assert sample.gt_instances.labels.tolist() == [1]
    assert sample.ignored_instances.labels.tolist() == [0]
    found = scores(tmp_path, file)
    assert perfect(found), found


def test_a_box_is_a_box_where_no_masks_are_evaluated(tmp_path):
    write(tmp_path, changed(0, segmentation=[[1, 2]]))
    found = scores(tmp_path, metric=['bbox'])
    assert found['bbox_mAP'] == 0.5  # the object of the other class is found


def test_ids_of_two_kinds(tmp_path):
    data = good()
    data['images'][1]['id'] = data['annotations'][2]['image_id'] = 'nine'
    text = refusal(tmp_path, data)
    assert "some ids of 'images' are numbers and some are strings" in text
    data['images'][0]['id'] = 'seven'
    for ann in data['annotations'][:2]:
        ann['image_id'] = 'seven'
    for entry, key in zip(
        [*data['categories'], *data['annotations']],
        ['id'] * 2 + ['category_id'] * 3,
    ):
        entry[key] = f'class {entry[key]}'
    write(tmp_path, data)
    found = scores(tmp_path, classwise=True)
    assert perfect(found)
    assert found['cat_precision'] == found['boundary_dog_precision'] == 1


# --------------------------------------------------------- images that are turned


@pytest.mark.parametrize('kind', ['CheckedCocoDataset', 'ShapesDataset'])
def test_an_image_of_another_size_than_its_annotations(tmp_path, kind):
    """120x200 pixels and EXIF's orientation 6: mmcv loads it as 200x120, and mmdet
    makes masks of that size, here of 1,500 pixels."""
    data = good()
    del data['images'][1], data['annotations'][1:]
    data['images'][0].update(height=120, width=200)
    outline = [20, 100, 140, 100, 140, 120, 20, 120]
    data['annotations'][0].update(segmentation=[outline], bbox=[20, 100, 120, 20])
    write(tmp_path, data)
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / 'images/a.png'
    Image.new('RGB', (200, 120)).save(path, 'JPEG', exif=exif)
    with pytest.raises(AnnotationError) as error:
        build(tmp_path, type=kind)[0]
    text = str(error.value)
    assert kind in text and str(path) in text and 'EXIF' in text
    assert '(200, 120) (height, width), but its annotations are for (120, 200)' in text
    unturned = [dict(PIPELINE[0], color_type='color_ignore_orientation'), *PIPELINE[1:]]
    sample = build(tmp_path, unturned)[0]['data_samples']
    assert sample.gt_instances.masks.masks.sum() == 120 * 20


# ------------------------------------------------------------------ the mixin


def test_classes_without_their_comma(tmp_path):
    write(tmp_path)
    with pytest.raises(
        ClassesError, match=r"string 'cat', whose 3 letters.*\('cat',\)"
    ):
        build(tmp_path, classes=('cat'))
    (tmp_path / 'names.txt').write_text('cat\ndog\n')
    classes = build(tmp_path, classes=str(tmp_path / 'names.txt')).metainfo['classes']
    assert classes == ['cat', 'dog']
    with pytest.raises(ClassesError, match='metainfo=dict'):
        build(tmp_path, classes=None)


def test_a_prefix_of_none(tmp_path):
    write(tmp_path)
    dataset = build(tmp_path, data_prefix=dict(img='images', seg=None))
    assert dataset.get_data_info(0)['seg_map_path'] is None


def test_the_mixin_serves_other_datasets(tmp_path):
    class Pets(CheckedCocoMixin, CocoDataset):
        METAINFO = dict(classes=('cat', 'dog'))
        how_to_get = 'Ask the cat.'

    write(tmp_path)
    config = dict(data_root=str(tmp_path), data_prefix=dict(img='images'))
    assert len(Pets(ann_file='ann.json', **config)) == 2
    with pytest.raises(FileNotFoundError, match='Pets: .*Ask the cat.'):
        Pets(ann_file='none.json', **config)


def test_is_a_drop_in_for_coco():
    assert issubclass(CheckedCocoDataset, CocoDataset)
    assert CheckedCocoDataset.METAINFO is CocoDataset.METAINFO


def test_the_check_is_cheap():
    """COCO's 860,000 annotations may cost seconds, not minutes."""
    data = good()
    outline = np.arange(60.0).tolist()
    data['annotations'] = [
        dict(data['annotations'][0], id=i, segmentation=[list(outline)])
        for i in range(1, 20001)
    ]
    coco = CheckedCOCO()
    coco.dataset = copy.copy(data)
    start = time.process_time()
    coco.createIndex()
    assert time.process_time() - start < 1  # 0.05 s here
