# Copyright (c) PVD-MM contributors. Apache-2.0.
"""COCO's zips, small ones of the true layout."""

import json
import zipfile

import pytest

from helpers.commands import tool
from pvd_mm.data.converters import arrange_coco
from pvd_mm.data.dataset_check import check_dataset
from pvd_mm.data.samples import make_shapes_sample
from pvd_mm.engine.config import load_config
from pvd_mm.utils.errors import AnnotationError, MissingDataError, UserError


@pytest.fixture
def zips(tmp_path):
    """The shapes sample, as COCO's zips; what else these hold, too."""
    make_shapes_sample(tmp_path / 'shapes', 3, 2, (64, 64))
    folder = tmp_path / 'zips'
    folder.mkdir()
    with zipfile.ZipFile(folder / 'annotations_trainval2017.zip', 'w') as together:
        together.writestr('annotations/captions_val2017.json', '{}')
        for split in ('train', 'val'):
            name = f'{split}2017'
            annotations = f'annotations/instances_{name}.json'
            content = json.loads((tmp_path / 'shapes' / annotations).read_text())
            with zipfile.ZipFile(folder / f'{name}.zip', 'w') as archive:
                archive.writestr(f'{name}/', '')
                archive.writestr('../evil.jpg', 'no')
                for image in content['images']:
                    file = tmp_path / 'shapes' / name / image['file_name']
                    image['file_name'] = f'{file.stem}.jpg'
                    archive.write(file, f'{name}/{image["file_name"]}')
            together.writestr(annotations, json.dumps(content))
    return folder


def test_the_official_layout(zips, tmp_path):
    out = tmp_path / 'a/coco'
    counts = arrange_coco(str(out), str(zips))
    assert counts['train'] == dict(listed=3, official=118287, unpacked=4, missing=[])
    assert counts['val'] == dict(listed=2, official=5000, unpacked=3, missing=[])
    files = {path.relative_to(out).as_posix() for path in out.rglob('*.*')}
    assert len(files) == 7 and 'annotations/instances_val2017.json' in files
    assert not list(tmp_path.rglob('evil.jpg')) and not list(out.rglob('captions*'))
    reports = check_dataset(
        load_config(
            'pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256',
            cfg_options={
                f'{split}_dataloader.dataset.data_root': str(out)
                for split in ('train', 'val', 'test')
            },
        )
    )
    assert [report.problems for report in reports] == [[], [], []]


def test_an_interrupted_run_goes_on(zips, tmp_path):
    """What is whole is kept, what is cut off is not; zips may be gone then."""
    out = tmp_path / 'coco'
    arrange_coco(str(out), str(zips))
    cut, kept = sorted((out / 'train2017').iterdir())[:2]
    whole = cut.read_bytes()
    cut.write_bytes(whole[:9])
    kept.write_bytes(b'x' * kept.stat().st_size)
    assert arrange_coco(str(out), str(zips))['train']['unpacked'] == 1
    assert cut.read_bytes() == whole and kept.read_bytes()[:1] == b'x'
    cut.unlink()
    said = tool('dataset_converters/coco', '--out', out, ok=False)
    assert f'1 images are listed, but not there: train2017/{cut.name}' in said
    assert (
        'train2017: 0 files unpacked, 3 images listed (the official file lists '
        '118287)' in said
    )
    assert 'check_dataset.py pvd-mask-rcnn_r50-c4_1x_coco' in said


def test_mistakes(zips, tmp_path):
    out = str(tmp_path / 'coco')
    with pytest.raises(MissingDataError, match='annotations_trainval2014.zip'):
        arrange_coco(out, str(zips), 2014)
    with pytest.raises(ValueError, match='no split test of COCO 2017'):
        arrange_coco(out, str(zips), splits=['test'])
    path = zips / 'val2017.zip'
    path.write_bytes(path.read_bytes()[:99])
    with pytest.raises(UserError, match='val2017.zip is no zip, or only a part'):
        arrange_coco(out, str(zips))
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('other.txt', '')
    with pytest.raises(UserError, match='val2017.zip holds nothing'):
        arrange_coco(out, str(zips))
    (tmp_path / 'coco/annotations/instances_train2017.json').write_text('[]')
    (zips / 'annotations_trainval2017.zip').unlink()
    with pytest.raises(AnnotationError, match='instances_train2017.json is not an'):
        arrange_coco(out, str(zips))
