# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Mistakes in panoptic files, on real files, through mmdet's registry; and what
metric and dataset make of one another."""

import copy
import json

import cv2
import mmdet.datasets  # noqa: F401 - registers
import mmdet.models  # noqa: F401
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, METRICS
from mmengine.config import ConfigDict
from mmengine.registry import DefaultScope

import pvd_mm.panoptic  # noqa: F401
from pvd_mm.data.dataset_check import check_split
from pvd_mm.panoptic import ids_to_rgb, rgb_to_ids
from pvd_mm.utils.errors import (
    AnnotationError,
    ClassesError,
    MissingDataError,
    UserError,
)

SIZE = (12, 16)
METAINFO = dict(
    thing_classes=('cat', 'dog'), stuff_classes=('sky',), classes=('cat', 'dog', 'sky')
)
KEYS = ('img_id', 'img_path', 'ori_shape', 'seg_map_path', 'segments_info')
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCheckedPanopticAnnotations'),
    dict(type='PackDetInputs', meta_keys=KEYS),
]
IDS = np.zeros(SIZE, int)
IDS[:, 8:] = 70_000
IDS[2:6, 2:6] = 7
IDS[8:11, 10:14] = 300
MAPS = {
    'a': IDS,
    'b': np.where(IDS == 70_000, IDS, 0),  # stuff alone
    'c': np.where(IDS == 300, 0, IDS) * (IDS != 70_000),  # a thing alone
    'd': np.zeros(SIZE, int),
}


@pytest.fixture(autouse=True)
def scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def segment(name, i):
    rows, columns = (np.flatnonzero((MAPS[name] == i).any(axis)) for axis in (1, 0))
    return dict(
        id=i,
        category_id={7: 20, 300: 30, 70_000: 10}[i],
        area=int((MAPS[name] == i).sum()),
        bbox=[int(columns[0]), int(rows[0]), len(columns), len(rows)],
        iscrowd=int(i == 300),
    )


def good():
    """Four images; stuff is the first category, and one thing is a crowd."""
    return dict(
        images=[
            dict(id=n, file_name=f'{name}.jpg', height=SIZE[0], width=SIZE[1])
            for n, name in enumerate(MAPS)
        ],
        categories=[
            dict(id=10, name='sky', isthing=0),
            dict(id=20, name='dog', isthing=1),
            dict(id=30, name='cat', isthing=1),
        ],
        annotations=[
            dict(
                image_id=n,
                file_name=f'{name}_panoptic.png',
                segments_info=[segment(name, i) for i in np.unique(ids).tolist() if i],
            )
            for n, (name, ids) in enumerate(MAPS.items())
        ],
    )


def write(root, data=None, maps=MAPS):
    for folder in ('images', 'maps'):
        (root / folder).mkdir(exist_ok=True)
    for name, ids in maps.items():
        cv2.imwrite(str(root / f'images/{name}.jpg'), np.zeros((*SIZE, 3), np.uint8))
        rgb = ids_to_rgb(ids)
        cv2.imwrite(str(root / f'maps/{name}_panoptic.png'), rgb[..., ::-1])
    (root / 'ann.json').write_text(json.dumps(good() if data is None else data))


def config(root, **kwargs):
    return dict(
        type='CheckedCocoPanopticDataset',
        data_root=str(root),
        ann_file='ann.json',
        data_prefix=dict(img='images/', seg='maps/'),
        metainfo=METAINFO,
        pipeline=PIPELINE,
        **kwargs,
    )


def build(root, **kwargs):
    return DATASETS.build(config(root, **kwargs))


def test_labels_are_those_of_the_classes_and_masks_are_the_things(tmp_path):
    write(tmp_path)
    dataset = build(tmp_path)
    samples = [dataset[n]['data_samples'] for n in range(4)]
    labels = samples[0].gt_sem_seg.sem_seg[0].numpy()
    assert labels.dtype == np.uint8
    names = {0: 255, 70_000: 2, 7: 1, 300: 0}
    assert (labels == np.vectorize(names.get)(IDS)).all()
    objects = samples[0].gt_instances  # the crowd is none
    assert objects.labels.tolist() == [1]
    assert objects.bboxes.tensor.tolist() == [[2, 2, 6, 6]]
    assert (objects.masks.masks[0] == (IDS == 7)).all()
    assert [len(s.gt_instances) for s in samples] == [1, 0, 1, 0]
    assert [sorted(np.unique(s.gt_sem_seg.sem_seg)) for s in samples[1:]] == [
        [2, 255],
        [1, 255],
        [255],
    ]
    trained = build(tmp_path, filter_cfg=dict(filter_empty_gt=True))
    assert [trained.get_data_info(n)['img_id'] for n in range(len(trained))] == [0, 2]


def test_masks_or_labels_alone(tmp_path):
    write(tmp_path)
    for kwargs, there in (
        (dict(with_seg=False), (True, False)),
        (dict(with_bbox=False, with_label=False, with_mask=False), (False, True)),
    ):
        pipeline = copy.deepcopy(PIPELINE)
        pipeline[1].update(kwargs)
        sample = DATASETS.build(dict(config(tmp_path), pipeline=pipeline))[0]
        sample = sample['data_samples']
        assert ('masks' in sample.gt_instances, 'gt_sem_seg' in sample) == there


def change(path, value):
    """A change of the good file: ``value`` at a path of keys."""

    def apply(data):
        *keys, last = path
        for key in keys:
            data = data[key]
        if value is None:
            del data[last]
        else:
            data[last] = value

    return apply


FIRST = ('annotations', 0, 'segments_info', 0)
MISTAKES = {
    'category of neither list': (
        change((*FIRST, 'category_id'), 99),
        'image 0 has the segment 7 of the category 99, which the file does not list',
    ),
    'other kind': (
        change(('categories', 1, 'isthing'), 0),
        'category dog .id 20., in the file a stuff, which is not in stuff_classes',
    ),
    'category that is no class': (
        lambda data: (
            data['categories'].append(dict(id=40, name='sea', isthing=0)),
            change((*FIRST, 'category_id'), 40)(data),
        ),
        'segment 7 of the category sea .id 40., in the file a stuff, .* stuff_classes',
    ),
    'no isthing': (
        change(('categories', 1, 'isthing'), None),
        r'category 20 \(dog\) has the isthing None; expected 0 or 1',
    ),
    'class without category': (
        change(('categories', 1, 'name'), 'cow'),
        'no category for 1 of the 3 classes.*dog',
    ),
    'one id twice': (
        change(('annotations', 0, 'segments_info', 1, 'id'), 7),
        'image 0 has more than one segment of the id 7; segments of one id overlap',
    ),
    'void id': (change((*FIRST, 'id'), 0), 'the segment 0, but ids are from 1'),
    'no id': (change((*FIRST, 'id'), None), 'image 0 has a segment without id'),
    'empty box': (
        change((*FIRST, 'bbox'), [2, 2, 0, 4]),
        r'segment 7 with the bbox \[2, 2, 0, 4\]; expected four finite numbers',
    ),
    'crowd of stuff': (
        change(('annotations', 1, 'segments_info', 0, 'iscrowd'), 1),
        'image 1 has the segment 70000 with the iscrowd 1; expected 0 or, of a thing',
    ),
    'unknown image': (
        change(('annotations', 0, 'image_id'), 77),
        'image 77 is not listed in the file',
    ),
    'no annotation': (
        change(('annotations', 3), None), 'image 3 has no annotation',
    ),
    'two annotations': (
        change(('annotations', 3, 'image_id'), 0),
        'image 0 has more than one annotation',
    ),
    'instances file': (
        lambda data: data.update(annotations=[dict(id=1, bbox=[0, 0, 1, 1])]),
        "'annotations' has to be a list with the segments_info of each image",
    ),
}  # fmt: skip


@pytest.mark.parametrize('name', MISTAKES)
def test_mistakes_in_the_file(tmp_path, name):
    mistake, message = MISTAKES[name]
    data = good()
    mistake(data)
    write(tmp_path, data)
    with pytest.raises(AnnotationError, match=message) as caught:
        build(tmp_path)
    assert 'ann.json' in str(caught.value) or 'metainfo' in str(caught.value)


def test_segments_that_one_of_both_files_lacks(tmp_path):
    maps = dict(MAPS, a=np.where(IDS == 7, 0, IDS), c=np.where(MAPS['c'] == 7, 8, 0))
    write(tmp_path, maps=maps)
    dataset = build(tmp_path)
    with pytest.raises(AnnotationError, match='has not the ids of the listed .*: 7.$'):
        dataset[0]
    with pytest.raises(AnnotationError, match='the list of segments lacks: 8.$'):
        dataset[2]
    cv2.imwrite(str(tmp_path / 'maps/a_panoptic.png'), np.zeros((3, 4, 3), np.uint8))
    with pytest.raises(AnnotationError, match=r'is \(3, 4\) .* image is \(12, 16\)'):
        dataset[0]


def test_missing_files_and_classes_out_of_order(tmp_path):
    write(tmp_path)
    (tmp_path / 'maps/b_panoptic.png').unlink()
    with pytest.raises(MissingDataError, match='1 of 4 panoptic maps .*b_panoptic.png'):
        build(tmp_path)
    write(tmp_path)
    options = dict(config(tmp_path))
    options['metainfo'] = dict(METAINFO, classes=('sky', 'cat', 'dog'))
    with pytest.raises(ClassesError, match='thing_classes, then stuff_classes'):
        DATASETS.build(options)
    options = dict(config(tmp_path), data_prefix=dict(img='images/', seg='nowhere/'))
    with pytest.raises(MissingDataError, match=r"data_prefix\['seg'\].*nowhere"):
        DATASETS.build(options)


def test_check_dataset_collects_all(tmp_path):
    data = good()
    change((*FIRST, 'category_id'), 99)(data)
    write(tmp_path, data, dict(MAPS, c=np.where(MAPS['c'] == 7, 8, 0)))
    cfg = ConfigDict(
        default_scope='mmdet', val_dataloader=dict(dataset=config(tmp_path))
    )
    report = check_split(cfg, 'val')
    assert len(report.problems) == 2
    assert 'category 99' in report.problems[0] and 'c_panoptic' in report.problems[1]
    write(tmp_path)
    report = check_split(cfg, 'val')
    assert (report.samples, report.problems) == (4, [])


def evaluate(dataset, predictions, **kwargs):
    metric = METRICS.build(dict(type='PanopticQualityMetric', **kwargs))
    metric.dataset_meta = dataset.metainfo
    for index, prediction in enumerate(predictions):
        sample = dataset[index]['data_samples'].to_dict()
        sample['pred_panoptic_seg'] = dict(sem_seg=torch.tensor(prediction)[None])
        metric.process({}, [sample])
    return metric.evaluate(len(predictions))


def perfect(dataset):
    """Things as instances of their class; the rest as it is, void as 3."""
    for index in range(len(dataset)):
        sample = dataset[index]['data_samples']
        labels = sample.gt_sem_seg.sem_seg[0].int().numpy()
        yield np.where(labels == 255, 3, labels + 1000 * (labels < 2))


@pytest.mark.parametrize('from_file', [False, True])
def test_the_metric_sees_what_the_dataset_reads(tmp_path, from_file):
    write(tmp_path)
    dataset = build(tmp_path, test_mode=True)
    kwargs = {}
    if from_file:
        kwargs = dict(ann_file=tmp_path / 'ann.json', seg_prefix=tmp_path / 'maps')
    result = evaluate(dataset, list(perfect(dataset)), classwise=True, **kwargs)
    assert result['coco_panoptic/PQ'] == result['coco_panoptic/PQ_st'] == 100
    assert result['coco_panoptic/RQ_th'] == result['coco_panoptic/PQ_dog'] == 100
    # the only cat is a crowd, which is in no mean
    assert np.isnan(result['coco_panoptic/PQ_cat'])
    shifted = [np.roll(p, 1, 1) for p in perfect(dataset)]
    result = evaluate(dataset, shifted, classwise=True, **kwargs)
    # 12 pixels in common; the 4 beyond the object are void
    assert result['coco_panoptic/SQ_dog'] == pytest.approx(100 * 12 / 16)


def test_written_results_are_read_as_truth(tmp_path):
    """Files of COCO's format: the same again."""
    write(tmp_path)
    dataset = build(tmp_path, test_mode=True)
    prefix = tmp_path / 'out/results'
    files = dict(ann_file=tmp_path / 'ann.json', outfile_prefix=str(prefix))
    assert evaluate(dataset, list(perfect(dataset)), format_only=True, **files) == {}
    data = json.loads((tmp_path / 'out/results.panoptic.json').read_text())
    assert [a['image_id'] for a in data['annotations']] == [0, 1, 2, 3]
    for annotation in data['annotations']:
        png = cv2.imread(
            str(tmp_path / 'out/results.panoptic' / annotation['file_name'])
        )
        ids = rgb_to_ids(np.ascontiguousarray(png[..., ::-1]))
        segments = annotation['segments_info']
        assert {s['id'] for s in segments} == set(np.unique(ids)) - {0}
        assert all(s['area'] == (ids == s['id']).sum() for s in segments)
    first = {s['category_id'] for s in data['annotations'][0]['segments_info']}
    assert first == {10, 20, 30}


def test_the_metric_says_what_it_lacks(tmp_path):
    write(tmp_path)
    pipeline = [*PIPELINE[:2], dict(type='PackDetInputs', meta_keys=KEYS[:3])]
    dataset = DATASETS.build(dict(config(tmp_path), pipeline=pipeline))
    with pytest.raises(MissingDataError, match='meta_keys seg_map_path and segments_'):
        evaluate(dataset, [IDS * 0])
    with pytest.raises(ValueError, match='format_only needs an outfile_prefix'):
        evaluate(dataset, [], format_only=True)
    with pytest.raises(ValueError, match='go together'):
        evaluate(dataset, [], ann_file='x')
    with pytest.raises(ValueError, match='no image'):
        evaluate(dataset, [])
    assert issubclass(MissingDataError, UserError)
