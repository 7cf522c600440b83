# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Data mistakes on real files, through mmseg's registry."""

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules

from pvd_mm.semantic.checked_dataset import CheckedCityscapesDataset
from pvd_mm.semantic.label_check import LabelCheck

register_all_modules()

TRAIN = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='RandomCrop', crop_size=(8, 8)),
    dict(type='PackSegInputs'),
]
TEST = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(48, 24), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
TTA = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [dict(type='Resize', scale_factor=r, keep_ratio=True) for r in (1.0, 2.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
WRAPPED = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomApply', prob=1.0, transforms=[dict(type='LoadAnnotations')]),
    dict(type='PackSegInputs'),
]
PIPELINES = pytest.mark.parametrize(
    'pipeline', [TRAIN, TEST, TTA, WRAPPED], ids=['train', 'test', 'tta', 'wrapped']
)


def write(root, name, label, image=True, suffix='_gtFine_labelTrainIds.png'):
    """Write an image and its label map in the layout of Cityscapes."""
    label = np.asarray(label)
    for folder in ('leftImg8bit/val/town', 'gtFine/val/town'):
        (root / folder).mkdir(parents=True, exist_ok=True)
    if image:
        pixels = np.zeros((*label.shape[:2], 3), np.uint8)
        path = root / 'leftImg8bit/val/town' / f'{name}_leftImg8bit.png'
        cv2.imwrite(str(path), pixels)
    path = root / 'gtFine/val/town' / f'{name}{suffix}'
    cv2.imwrite(str(path), label.astype(np.uint8))
    return path


def build(root, pipeline=(), **kwargs):
    kwargs.setdefault(
        'data_prefix',
        dict(img_path='leftImg8bit/val', seg_map_path='gtFine/val'),
    )
    return DATASETS.build(
        dict(
            type='CheckedCityscapesDataset',
            data_root=str(root),
            pipeline=list(pipeline),
            **kwargs,
        )
    )


def labels(value=0):
    return np.full((16, 32), value)


@PIPELINES
def test_good_data_passes(tmp_path, pipeline):
    label = labels()
    label[:4] = 18
    label[4:6] = 255
    write(tmp_path, 'a', label)
    dataset = build(tmp_path, pipeline)
    assert len(dataset) == 1
    sample = dataset[0]['data_samples']
    sample = sample[0] if isinstance(sample, list) else sample
    assert set(np.unique(sample.gt_sem_seg.data)) <= {0, 18, 255}


@PIPELINES
def test_foreign_values_name_file_and_values(tmp_path, pipeline):
    label = labels(7)
    label[0, 0], label[15, 31] = 33, 26  # also where a crop may miss them
    path = write(tmp_path, 'a', label)
    with pytest.raises(ValueError) as error:
        build(tmp_path, pipeline)[0]
    text = str(error.value)
    assert str(path) in text
    assert '26, 33' in text
    assert '0 to 18 (19 classes) and 255' in text
    assert 'train ids' in text  # the hint about raw Cityscapes labels


def test_pipeline_that_is_switched_later_is_checked(tmp_path):
    write(tmp_path, 'a', labels(40))
    dataset = build(tmp_path)
    dataset.pipeline = Compose(TEST)
    with pytest.raises(ValueError, match='40'):
        dataset[0]
    # and the same pipeline in two datasets is checked once
    again = build(tmp_path)
    again.pipeline = dataset.pipeline
    steps = [type(t) for t in again.pipeline.transforms]
    assert steps.count(LabelCheck) == 1


def test_subsets_and_custom_classes(tmp_path):
    label = labels(0)
    label[:8] = 5
    for name in 'abc':
        write(tmp_path, name, label)
    dataset = build(tmp_path, TEST, metainfo=dict(classes=('pole', 'road')), indices=2)
    assert len(dataset) == 2
    assert len(dataset.get_subset(1)) == 1
    got = np.unique(dataset.get_subset(1)[0]['data_samples'].gt_sem_seg.data)
    assert got.tolist() == [0, 1]


def test_colour_and_size_mistakes(tmp_path):
    path = write(tmp_path, 'a', np.zeros((16, 32, 3)))
    with pytest.raises(ValueError, match=r'\(16, 32, 3\).*one value per pixel'):
        build(tmp_path, TEST)[0]
    cv2.imwrite(str(path), np.zeros((8, 32), np.uint8))
    with pytest.raises(ValueError, match=r'\(8, 32\).*\(16, 32\)'):
        build(tmp_path, TEST)[0]


def test_missing_folders(tmp_path):
    write(tmp_path, 'a', labels())
    prefix = dict(img_path='leftImg8bit/vall', seg_map_path='gtFine/val')
    with pytest.raises(FileNotFoundError) as error:
        build(tmp_path, data_prefix=prefix)
    text = str(error.value)
    assert "data_prefix['img_path']" in text
    assert str(tmp_path / 'leftImg8bit/vall') in text
    assert f'{tmp_path / "leftImg8bit"} exists' in text
    assert 'make_sample.py' in text
    prefix = dict(img_path='leftImg8bit/val', seg_map_path='gtfine/val')
    with pytest.raises(FileNotFoundError, match="'seg_map_path'"):
        build(tmp_path, data_prefix=prefix)
    with pytest.raises(FileNotFoundError, match='ann_file'):
        build(tmp_path, ann_file='none.txt')


def test_no_prefix_and_no_root():
    with pytest.raises(ValueError, match='img_path'):
        DATASETS.build(dict(type='CheckedCityscapesDataset'))


def test_empty_folder(tmp_path):
    write(tmp_path, 'a', labels(), image=False)
    with pytest.raises(FileNotFoundError, match='no image.*_leftImg8bit.png'):
        build(tmp_path)


def test_images_without_labels(tmp_path):
    for i in range(9):
        path = write(tmp_path, f'a{i}', labels())
        if i:
            path.unlink()
    with pytest.raises(FileNotFoundError) as error:
        build(tmp_path)
    text = str(error.value)
    assert '8 of 9 images have no label map' in text
    assert 'a1_leftImg8bit.png' in text and 'a1_gtFine' in text
    assert 'and 3 more' in text and 'a8_gtFine' not in text


def test_missing_train_ids_beside_raw_ids(tmp_path):
    write(tmp_path, 'a', labels(7), suffix='_gtFine_labelIds.png')
    with pytest.raises(FileNotFoundError, match='dataset_converters/cityscapes.py'):
        build(tmp_path)


def test_image_in_list_that_does_not_exist(tmp_path):
    write(tmp_path, 'a', labels())
    (tmp_path / 'list.txt').write_text('town/a\ntown/b\n')
    with pytest.raises(FileNotFoundError, match='1 of 2 images.*town/b'):
        build(tmp_path, ann_file='list.txt')
    (tmp_path / 'list.txt').write_text('town/a\n')
    assert len(build(tmp_path, ann_file='list.txt')) == 1


def test_split_without_ground_truth(tmp_path):
    write(tmp_path, 'a', labels()).unlink()
    dataset = build(tmp_path, data_prefix=dict(img_path='leftImg8bit/val'))
    assert len(dataset) == 1


def test_is_a_drop_in_for_cityscapes():
    from mmseg.datasets import CityscapesDataset

    assert issubclass(CheckedCityscapesDataset, CityscapesDataset)
    assert CheckedCityscapesDataset.METAINFO is CityscapesDataset.METAINFO
