# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Data mistakes on real files, through mmseg's registry."""

import cv2
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.datasets import BaseSegDataset
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import DATASETS
from mmseg.utils import register_all_modules
from PIL import Image

from helpers.remote import remote_folder
from pvd_mm.semantic.checked_dataset import (
    CheckedCityscapesDataset,
    CheckedDatasetMixin,
)
from pvd_mm.semantic.label_check import LabelCheck
from pvd_mm.utils.errors import ClassesError, LabelError

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


# ------------------------------------------------------- what is in a label file


def write_with_pillow(path, values, kind, **kwargs):
    """Write a map of half as many rows as there are values, in a format that its
    suffix need not be the one of."""
    values = np.asarray(values, kind).repeat(2)[:, None].repeat(32, 1)
    pixels = np.zeros((16, 32), kind)
    pixels[: len(values)] = values
    Image.fromarray(pixels).save(path, 'PNG' if kind == 'u2' else 'TIFF', **kwargs)
    return pixels


@pytest.mark.parametrize('backend', ['pillow', 'cv2'])
@pytest.mark.parametrize(
    'kind, values, told',
    [
        ('u2', [0, 32768], 'the values 32768 as uint16'),
        ('u2', [256, 257, 258], 'the values 256, 257, 258 as uint16'),
        ('i4', [1, -256, -1], 'the values -256, -1 as int32'),
        ('f4', [0.5, -256, 512], r'the values -256\.0, 0\.5, 512\.0 as float32'),
        ('f4', [1, np.nan], 'the values nan as float32'),
    ],
)
def test_values_that_8_bits_do_not_hold(tmp_path, backend, kind, values, told):
    """mmseg would load 0, 1 and 2."""
    path = write(tmp_path, 'a', labels())
    write_with_pillow(path, values, kind)
    pipeline = [TRAIN[0], dict(type='LoadAnnotations', imdecode_backend=backend)]
    with pytest.raises(LabelError, match=told) as error:
        build(tmp_path, pipeline)[0]
    assert str(path) in str(error.value)
    assert '0 to 18 (19 classes) and 255' in str(error.value)


@pytest.mark.parametrize('kind', ['u2', 'i4', 'f4'])
def test_wide_files_of_small_whole_numbers_are_loaded(tmp_path, kind):
    path = write(tmp_path, 'a', labels())
    pixels = write_with_pillow(path, [3, 18, 255], kind)
    loaded = build(tmp_path, TRAIN[:2])[0]['gt_seg_map']
    assert loaded.dtype == np.uint8 and np.array_equal(loaded, pixels)


@pytest.mark.parametrize('mode', ['1', 'L', 'P'])
def test_files_of_8_bits_and_less(tmp_path, mode):
    path = write(tmp_path, 'a', labels())
    image = Image.fromarray(np.eye(16, 32, dtype=np.uint8))
    if mode == 'P':
        image.putpalette([0, 0, 0, 128, 64, 128])
    image = image.point(lambda v: v > 0, '1') if mode == '1' else image
    image.save(path)
    assert Image.open(path).mode == mode
    loaded = build(tmp_path, TRAIN[:2])[0]['gt_seg_map']
    assert np.array_equal(loaded, np.eye(16, 32))


@pytest.mark.parametrize('mode', ['LA', 'RGB', 'RGBA'])
def test_files_of_several_channels(tmp_path, mode):
    path = write(tmp_path, 'a', labels())
    Image.new(mode, (32, 16)).save(path)
    with pytest.raises(LabelError, match='one value per pixel.*transparency'):
        build(tmp_path, TRAIN[:2])[0]


def test_a_loader_of_its_own_may_change_wide_values(tmp_path):
    class LoadHighByte(LoadAnnotations):
        def _load_seg_map(self, results):
            values = np.asarray(Image.open(results['seg_map_path']))
            results['gt_seg_map'] = self.kind(values // 256)

    path = write(tmp_path, 'a', labels())
    write_with_pillow(path, [256, 512], 'u2')
    step = LoadHighByte()
    step.kind = np.uint8
    dataset = build(tmp_path, [TRAIN[0], step])
    assert np.unique(dataset[0]['gt_seg_map']).tolist() == [0, 1, 2]
    for kind, told in (
        (lambda v: v - 1.0, r'the values -1\.0,'),
        (lambda v: v / 2, r'the values 0\.5,'),
    ):
        step.kind = kind  # what mmseg's loader has no chance to make
        with pytest.raises(LabelError, match=told):
            dataset[0]


def test_values_are_those_of_the_file(tmp_path):
    """mmseg makes 255 of 0, and takes 1 off the others."""
    path = write(tmp_path, 'a', labels(0))
    with pytest.raises(LabelError, match='the values 0, loaded as 255') as error:
        build(tmp_path, TRAIN, reduce_zero_label=True, ignore_index=254)[0]
    assert 'reduce_zero_label' in str(error.value)
    write(tmp_path, 'a', labels(20))
    with pytest.raises(LabelError, match=f'{path} holds the values 20, loaded as 19'):
        build(tmp_path, TRAIN, reduce_zero_label=True)[0]


@pytest.mark.parametrize('shape', [(1, 32), (16, 1), (1, 1)])
def test_an_image_of_one_row_or_column(tmp_path, shape):
    write(tmp_path, 'a', np.full(shape, 7))
    loaded = build(tmp_path, TRAIN[:2])[0]['gt_seg_map']
    assert loaded.shape == shape and (loaded == 7).all()
    write(tmp_path, 'a', np.full(shape, 33))
    with pytest.raises(LabelError, match='holds the values 33'):
        build(tmp_path, TRAIN)[0]


# ------------------------------------------------------------- EXIF orientations


def exif(orientation):
    data = Image.Exif()
    data[0x0112] = orientation
    return data


def test_an_image_that_is_turned(tmp_path):
    write(tmp_path, 'a', labels())
    path = tmp_path / 'leftImg8bit/val/town/a_leftImg8bit.png'
    Image.new('RGB', (32, 16)).save(path, 'JPEG', exif=exif(6))
    with pytest.raises(LabelError, match=r'\(16, 32\).*\(32, 16\).*EXIF'):
        build(tmp_path, TRAIN)[0]
    unturned = [dict(TRAIN[0], color_type='color_ignore_orientation'), *TRAIN[1:]]
    assert build(tmp_path, unturned)[0]['inputs'].shape[1:] == (8, 8)


def test_a_label_map_that_is_to_be_turned(tmp_path):
    path = write(tmp_path, 'a', labels())
    Image.fromarray(labels().astype(np.uint8)).save(path, exif=exif(3))
    with pytest.raises(LabelError, match='has the EXIF orientation 3'):
        build(tmp_path, TRAIN)[0]
    Image.fromarray(labels().astype(np.uint8)).save(path, exif=exif(1))
    build(tmp_path, TRAIN)[0]


# ---------------------------------------------------------- classes and prefixes


def test_classes_without_their_comma(tmp_path):
    write(tmp_path, 'a', labels())
    with pytest.raises(
        ClassesError, match=r"string 'pole'.*\('pole',\) with its comma"
    ):
        build(tmp_path, metainfo=dict(classes=('pole')))
    names = tmp_path / 'classes.txt'
    names.write_text('road\npole\n')  # mmengine reads such a file
    dataset = build(tmp_path, metainfo=dict(classes=str(names)))
    assert dataset.metainfo['classes'] == ['road', 'pole']


def test_a_dataset_without_classes(tmp_path):
    class Plain(CheckedDatasetMixin, BaseSegDataset):
        pass

    (tmp_path / 'images').mkdir()
    (tmp_path / 'labels').mkdir()
    cv2.imwrite(str(tmp_path / 'images/a.jpg'), np.zeros((16, 32, 3), np.uint8))
    path = tmp_path / 'labels/a.png'
    cv2.imwrite(str(path), np.full((16, 32), 200, np.uint8))
    dataset = Plain(
        data_root=str(tmp_path),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=TRAIN,
    )
    assert (dataset[0]['data_samples'].gt_sem_seg.data == 200).all()
    cv2.imwrite(str(path), np.full((16, 32), 256, np.uint16))
    with pytest.raises(LabelError, match='the values 256 as uint16'):
        dataset[0]


@pytest.mark.parametrize('with_root', [True, False])
def test_a_prefix_of_none_is_a_split_without_ground_truth(tmp_path, with_root):
    write(tmp_path, 'a', labels()).unlink()
    prefix = dict(img_path='leftImg8bit/val', seg_map_path=None)
    options = dict(type='CheckedCityscapesDataset', pipeline=TRAIN)
    if with_root:
        options['data_root'] = str(tmp_path)
    else:
        prefix['img_path'] = str(tmp_path / prefix['img_path'])
    dataset = DATASETS.build(dict(options, data_prefix=prefix))
    assert len(dataset) == 1
    with pytest.raises(LabelError, match='no seg_map_path.*LoadAnnotations'):
        dataset[0]
    dataset.pipeline = Compose([TRAIN[0], TRAIN[-1]])
    assert dataset[0]['inputs'].shape == (3, 16, 32)


# -------------------------------------------------------------------- remote data


def test_a_data_root_whose_backend_is_inferred(tmp_path):
    write(tmp_path, 'a', labels(5))
    root = remote_folder(tmp_path)
    dataset = build(root, TRAIN)
    assert dataset.get_data_info(0)['img_path'].startswith(f'{root}/left')
    assert (dataset[0]['data_samples'].gt_sem_seg.data == 5).all()
    write(tmp_path, 'b', labels()).unlink()
    with pytest.raises(FileNotFoundError, match='1 of 2 images have no label map'):
        build(root, TRAIN)


def test_a_backend_that_cannot_list(tmp_path):
    """The images are those of the ann_file; whether they exist is not known."""
    write(tmp_path, 'a', labels())
    (tmp_path / 'list.txt').write_text('town/a\ntown/b\n')
    root = remote_folder(tmp_path, lists=False)
    assert len(build(root, ann_file=str(tmp_path / 'list.txt'))) == 2
