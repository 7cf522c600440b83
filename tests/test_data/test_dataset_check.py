# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Everything wrong with a sample that was broken on purpose is told at once."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import DATASETS
from PIL import Image

from helpers.commands import ROOT

pytest.importorskip('mmdet')

from pvd_mm.data.dataset_check import check_dataset, summary  # noqa: E402
from pvd_mm.data.samples import make_shapes_sample, make_street_sample  # noqa: E402
from pvd_mm.engine.config import load_config  # noqa: E402
from pvd_mm.utils.errors import AnnotationError, UserError  # noqa: E402

STREET = 'pvd_r18-stage-c32_1xb2-600_street-192x256'
SHAPES = 'pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256'
TOOL = ROOT / 'tools/check_dataset.py'


@pytest.fixture(scope='module')
def samples(tmp_path_factory):
    root = tmp_path_factory.mktemp('samples')
    make_street_sample(str(root / 'street'), train=6, val=2)
    make_shapes_sample(str(root / 'shapes'), train=6, val=2)
    return root


@pytest.fixture
def street(samples, tmp_path):
    return Path(shutil.copytree(samples / 'street', tmp_path / 'street'))


@pytest.fixture
def shapes(samples, tmp_path):
    return Path(shutil.copytree(samples / 'shapes', tmp_path / 'shapes'))


def check(config, root, **options):
    return check_dataset(
        load_config(
            config,
            cfg_options={
                f'{split}_dataloader.dataset.data_root': str(root)
                for split in ('train', 'val', 'test')
            }
            | options,
        )
    )


def test_a_sound_sample(street, shapes):
    for config, root in ((STREET, street), (SHAPES, shapes)):
        train, val, test = check(config, root)
        assert not train.problems and not val.problems
        assert train.samples in (5, 6) and val.samples == 2  # one may be empty
        assert test.notes == ['the same as val']


def test_label_maps(street):
    """Four broken samples of six, each in its own way, and each is named."""
    labels = sorted((street / 'gtFine/train').rglob('*TrainIds.png'))
    images = sorted((street / 'leftImg8bit/train').rglob('*.png'))
    label = cv2.imread(str(labels[0]), cv2.IMREAD_UNCHANGED)
    label[0, 0] = 33
    cv2.imwrite(str(labels[0]), label)
    cv2.imwrite(str(labels[1]), label[:-1])
    images[2].write_bytes(b'no image')
    labels[3].write_bytes(b'')
    report = check(STREET, street)[0]
    text = '\n'.join(report.problems)
    assert report.samples == 6 and len(report.problems) == 4, text
    assert f'{labels[0]} holds the values 33' in text
    assert 'raw Cityscapes label ids' in text  # the dataset's own hint
    assert f'{labels[1]} has the size' in text
    assert f'{images[2]} or its annotations cannot be read' in text
    assert images[3].name in text


def test_unpaired_files(street):
    """What has no partner is named, and the others are looked at."""
    image = next((street / 'leftImg8bit/val').rglob('*.png'))
    others = [
        path
        for path in (street / 'gtFine/val').rglob('*TrainIds.png')
        if path.name[:15] != image.name[:15]
    ]
    alone = others[0].with_name('x_000000_000019_gtFine_labelTrainIds.png')
    shutil.copy(others[0], alone)
    cv2.imwrite(str(others[0]), np.full((256, 512), 33, np.uint8))
    for path in (street / 'gtFine/val').rglob(f'{image.name[:15]}*'):
        path.unlink()
    train, val, _ = check(STREET, street)
    assert not train.problems
    text = '\n'.join(val.problems)
    assert len(val.problems) == 3 and val.samples == 1, text
    assert '1 of 2 images have no label map' in val.problems[0]
    assert f'1 label maps have no image: {alone}' in val.problems[1]
    assert f'{others[0]} holds the values 33' in val.problems[2]


def test_what_is_not_there(street):
    report = check(STREET, street / 'nothing')[0]
    assert 'does not exist' in report.problems[0] and not report.samples


def test_a_dataset_without_checks_of_its_own(street):
    """mmseg's own class gets the same look at its labels."""
    path = next((street / 'gtFine/train').rglob('*TrainIds.png'))
    cv2.imwrite(str(path), np.full((256, 512), 19, np.uint8))
    kind = {'train_dataloader.dataset.type': 'CityscapesDataset'}
    report = check(STREET, street, **kind)[0]
    assert len(report.problems) == 1
    assert f'{path} holds the values 19' in report.problems[0]


def test_a_dataset_without_classes(street):
    options = {'type': 'BaseSegDataset', 'img_suffix': '_leftImg8bit.png'}
    options['seg_map_suffix'] = '_gtFine_labelTrainIds.png'
    options = {f'train_dataloader.dataset.{k}': v for k, v in options.items()}
    train = check(STREET, street, **options)[0]
    assert train.samples == 6 and not train.problems and not train.notes


def test_classes_that_never_occur(street):
    for path in (street / 'gtFine/val').rglob('*TrainIds.png'):
        cv2.imwrite(str(path), np.zeros((256, 512), np.uint8))
    val = check(STREET, street)[1]
    assert not val.problems
    assert val.notes == [
        'classes that never occur: sidewalk, building, wall, fence, pole and 13 more'
    ]


def test_annotations(shapes):
    """Another size than the image has; then a file that is broken."""
    path = shapes / 'annotations/instances_train2017.json'
    content = json.loads(path.read_text())
    used = {ann['image_id'] for ann in content['annotations']}
    image = next(image for image in content['images'] if image['id'] in used)
    image['width'] += 1
    for ann in content['annotations']:
        if ann['image_id'] == image['id'] and 'counts' in ann['segmentation']:
            ann['segmentation'] = [[1, 1, 9, 1, 9, 9]]
    path.write_text(json.dumps(content))
    report = check(SHAPES, shapes)[0]
    assert len(report.problems) == 1
    assert image['file_name'] in report.problems[0]
    assert 'its annotations are for (192, 257)' in report.problems[0]
    first, second, third, *_ = (
        ann for ann in content['annotations'] if ann['image_id'] != image['id']
    )
    first['image_id'], second['bbox'] = 999, [1, 2, 3]
    del third['category_id']
    path.write_text(json.dumps(content))
    gone = next(other for other in content['images'] if other is not image)
    (shapes / 'train2017' / gone['file_name']).unlink()
    report = check(SHAPES, shapes)[0]
    assert len(report.problems) == 5, report.problems
    for problem, words in zip(
        report.problems,
        (
            'belongs to the image 999',
            'has the bbox [1, 2, 3]',
            "has no 'category_id'",
            '1 of 6 images',
            'its annotations are for',
        ),
    ):
        assert words in problem
    assert str(path) in report.problems[0] and report.samples >= 3
    with pytest.raises(AnnotationError, match='belongs to the image 999'):
        DATASETS.build(
            load_config(
                SHAPES, cfg_options={'train_dataloader.dataset.data_root': str(shapes)}
            ).train_dataloader.dataset
        )  # a training stops


def test_the_tool(street):
    def call(*words):
        return subprocess.run(
            [sys.executable, str(TOOL), *words], capture_output=True, text=True
        )

    root = f'val_dataloader.dataset.data_root={street}'
    done = call(STREET, '--splits', 'val', '--cfg-options', root)
    assert done.returncode == 0, done.stderr
    assert 'val: 2 samples, 0 problems' in done.stdout
    next((street / 'leftImg8bit/val').rglob('*.png')).write_bytes(b'x')
    done = call(STREET, '--splits', 'val', '--cfg-options', root)
    assert done.returncode == 1 and '  problem: ' in done.stdout
    done = call('pvd_r19')
    assert done.returncode == 1 and 'check_dataset: ' in done.stderr
    assert 'Traceback' not in done.stderr
    cfg = load_config(STREET)
    cfg.train_dataloader = None
    with pytest.raises(UserError, match='no data for train'):
        check_dataset(cfg, ['train'])
    assert summary([]) == ''


def test_what_a_training_would_not_see_or_stop_at_later(street, shapes):
    """Each as a single problem, of a config of mmseg and of mmdet."""
    path = next((street / 'gtFine/train').rglob('*TrainIds.png'))
    wide = np.zeros((256, 512), np.uint16)
    wide[0, :3] = 256, 257, 32768
    cv2.imwrite(str(path), wide)
    for kind in ('CheckedCityscapesDataset', 'CityscapesDataset'):
        train = check(STREET, street, **{'train_dataloader.dataset.type': kind})[0]
        assert len(train.problems) == 1, train.problems
        assert f'{path} holds the values 256, 257, 32768' in train.problems[0]

    annotations = shapes / 'annotations/instances_train2017.json'
    content = json.loads(annotations.read_text())
    used = {ann['image_id'] for ann in content['annotations']}
    image = next(image for image in content['images'] if image['id'] in used)
    turned = shapes / 'train2017' / image['file_name']
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(turned).convert('RGB').save(turned, 'JPEG', exif=exif)
    for kind in ('CheckedCocoDataset', 'CocoDataset'):
        options = {'train_dataloader.dataset.type': kind}
        names = [category['name'] for category in content['categories']]
        options['train_dataloader.dataset.metainfo'] = dict(classes=names)
        train = check(SHAPES, shapes, **options)[0]
        assert len(train.problems) == 1, train.problems
        assert f'{turned} is (256, 192) (height, width)' in train.problems[0]
        assert 'its annotations are for (192, 256)' in train.problems[0]

    first, second, *_ = (
        ann for ann in content['annotations'] if ann['image_id'] != image['id']
    )
    first.update(iscrowd='0')
    del second['iscrowd']  # which is none
    annotations.write_text(json.dumps(content))
    train = check(SHAPES, shapes)[0]
    assert len(train.problems) == 2 and "the iscrowd '0'" in train.problems[0]


@pytest.mark.parametrize(
    'config, kind',
    [
        (STREET, 'CheckedCityscapesDataset'),
        (STREET, 'BaseSegDataset'),
        (SHAPES, 'ShapesDataset'),
        (SHAPES, 'CocoDataset'),
    ],
)
def test_classes_without_their_comma(street, shapes, config, kind):
    root = street if config == STREET else shapes
    options = {'metainfo': dict(classes='ring'), 'type': kind}
    if kind == 'BaseSegDataset':
        options['img_suffix'] = '_leftImg8bit.png'
    options = {f'train_dataloader.dataset.{k}': v for k, v in options.items()}
    train = check(config, root, **options)[0]
    assert len(train.problems) == 1
    assert f"{kind}: classes is the string 'ring'" in train.problems[0]


@pytest.mark.parametrize(
    'config, heads',
    [(STREET, ['decode_head']), (SHAPES, ['roi_head.bbox_head', 'roi_head.mask_head'])],
)
def test_a_head_of_too_few_classes(street, shapes, config, heads):
    root = street if config == STREET else shapes
    options = {f'model.{head}.num_classes': 5 for head in heads}
    train, val, _ = check(config, root, **options)
    assert len(train.problems) == len(heads) and not val.problems
    for head, problem in zip(heads, train.problems):
        assert problem.startswith(f'{head} (') and 'has num_classes=5, but' in problem
        assert problem in val.notes  # it can be tested


def test_images_that_are_turned_are_noted(street):
    """By half a turn, which no size tells."""
    path = sorted((street / 'leftImg8bit/train').rglob('*.png'))[0]
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(path).save(path, exif=exif)
    train = check(STREET, street)[0]
    assert not train.problems
    assert '1 images have an EXIF orientation' in train.notes[-1]
    assert str(path) in train.notes[-1]


def test_a_config_whose_model_cannot_be_built(street):
    train = check(STREET, street, **{'model.decode_head.in_channels': [1]})[0]
    assert not train.problems and train.samples == 6
    assert 'the model cannot be built' in train.notes[-1]


def test_images_without_label_maps_are_one_problem(street):
    options = {'train_dataloader.dataset.data_prefix.seg_map_path': None}
    train = check(STREET, street, **options)[0]
    assert len(train.problems) == 1 and 'no seg_map_path' in train.problems[0]
