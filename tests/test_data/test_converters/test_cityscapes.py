# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Label ids to train ids: mmseg's list of the 19 classes is the oracle."""

import sys

import numpy as np
import pytest
from mmseg.datasets import CityscapesDataset
from PIL import Image

from helpers.commands import tool
from pvd_mm.data.converters import convert_cityscapes
from pvd_mm.utils.errors import MissingDataError, UserError

labels = pytest.importorskip('cityscapesscripts.helpers.labels').labels


def write(root, split, name, ids):
    path = root / 'gtFine' / split / 'ulm' / f'ulm_{name}_000019_gtFine_labelIds.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(ids).save(path)
    return path


def made(path):
    return path.with_name(path.name.replace('_labelIds', '_labelTrainIds'))


@pytest.fixture
def root(tmp_path):
    every = np.arange(34, dtype=np.uint8).reshape(2, 17)
    for split, name in (('train', '000000'), ('train', '000001'), ('val', '000000')):
        write(tmp_path, split, name, every)
    return tmp_path


def test_every_label(root):
    assert convert_cityscapes(str(root)) == dict(written=3, kept=0, broken={})
    classes = CityscapesDataset.METAINFO['classes']
    names = {label.id: label.name for label in labels}
    expected = [
        classes.index(names[i]) if names[i] in classes else 255 for i in range(34)
    ]
    assert sorted(expected)[:19] == list(range(19))
    for path in root.glob('gtFine/*/*/*_labelIds.png'):
        assert np.array(Image.open(made(path))).ravel().tolist() == expected


def test_an_interrupted_run_goes_on(root):
    convert_cityscapes(str(root))
    paths = sorted(root.glob('gtFine/*/*/*TrainIds.png'))
    paths[0].unlink()
    paths[1].write_text('mine')
    assert convert_cityscapes(str(root)) == dict(written=1, kept=2, broken={})
    assert paths[1].read_text() == 'mine'
    assert convert_cityscapes(str(root), force=True)['written'] == 3
    assert np.array(Image.open(paths[1])).shape == (2, 17)
    assert not [path for path in root.rglob('*') if path.name.startswith('.')]


def test_broken_maps_are_named_and_the_others_done(root):
    foreign = write(root, 'val', '000002', np.full((2, 2), 77, np.uint8))
    coloured = write(root, 'val', '000003', np.zeros((2, 2, 3), np.uint8))
    cut = write(root, 'val', '000004', np.zeros((200, 200), np.uint8))
    cut.write_bytes(cut.read_bytes()[:60])
    said = tool('dataset_converters/cityscapes', root, ok=False)
    assert '3 maps written' in said and '3 maps could not be converted' in said
    assert (
        f'{foreign} holds the values 77, which are no label ids; allowed are '
        '0 to 33' in said
    )
    assert f'{coloured} has the shape (2, 2, 3)' in said
    assert f'{cut} cannot be read' in said
    assert 'check_dataset.py pvd_r50-block' in said and 'Traceback' not in said
    assert not made(foreign).exists()


def test_what_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(MissingDataError, match='gtFine does not exist'):
        convert_cityscapes(str(tmp_path))
    (tmp_path / 'gtFine_trainvaltest.zip').touch()
    with pytest.raises(MissingDataError, match='unzip .*gtFine_trainvaltest.zip first'):
        convert_cityscapes(str(tmp_path))
    monkeypatch.setitem(sys.modules, 'cityscapesscripts.helpers.labels', None)
    with pytest.raises(UserError, match='pip install --no-deps cityscapesscripts'):
        convert_cityscapes(str(tmp_path))
