# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Folders that cannot be written into: told by every program, before it works."""

import os

import pytest

from pvd_mm.utils.files import BlockedPathError, check_folder, make_folder, write_text


@pytest.fixture
def blocked(tmp_path):
    """A dangling link, as a data folder on another machine leaves it."""
    (tmp_path / 'data').symlink_to(tmp_path / 'gone')
    return tmp_path / 'data'


def test_what_is_in_the_way(tmp_path, blocked):
    (tmp_path / 'file').touch()
    for folder, part, what in (
        (blocked / 'street', blocked, 'gone, which does not exist'),
        (blocked, blocked, 'gone, which does not exist'),
        (tmp_path / 'file/a/b', tmp_path / 'file', 'is a file'),
    ):
        for use in (check_folder, make_folder):
            with pytest.raises(BlockedPathError) as error:
                use(folder)
            assert str(part) in str(error.value) and what in str(error.value)
    with pytest.raises(NotADirectoryError):
        write_text(tmp_path / 'file/text', '')


def test_a_folder_without_permission(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'access', lambda path, mode: False)  # root has it
    with pytest.raises(BlockedPathError, match='may not be written into'):
        check_folder(tmp_path / 'new')


def test_folders_that_are_fine(tmp_path):
    (tmp_path / 'real').mkdir()
    (tmp_path / 'link').symlink_to(tmp_path / 'real')
    check_folder(tmp_path / 'new/folder')
    assert not (tmp_path / 'new').exists()
    assert make_folder(tmp_path / 'link/new').is_dir()
    make_folder(tmp_path / 'link/new')


SHIPPED = 'pvd_r18-stage-c32_1xb2-600_street-192x256'
RUN = ('--run', 'a', SHIPPED, 'none', '--run', 'b', SHIPPED, 'none')
PROGRAMS = {
    'make_sample': ['--out', '{}/street', '--train', 1, '--val', 1],
    'train': [SHIPPED, '--work-dir', '{}/work'],
    'test': [SHIPPED, __file__, '--work-dir', '{}/work'],
    'predict': [SHIPPED, 'none.pth', __file__, '--out', '{}/out'],
    'compare': [*RUN, '--out', '{}/out'],
    'draw_figures': [*RUN, '--out', '{}/out.png'],
    'draw_votes': [
        SHIPPED,
        'none.pth',
        __file__,
        '--pixel',
        0,
        0,
        '--out',
        '{}/out.png',
    ],
    'level_norms': [SHIPPED, '--out', '{}/out'],
    'make_tables': ['table1', '--records', '.', '--out', '{}/out'],
    'benchmark_op': ['--out', '{}/out'],
    'benchmark_model': [SHIPPED, '--out', '{}/out'],
    'benchmark_backends': [SHIPPED, '--out', '{}/out'],
    'benchmark_exported': ['--out', '{}/out'],
    'benchmark_gpu': ['--device', 'cpu', '--out', '{}/out'],
    'build_docs': ['--out', '{}/out'],
    'dataset_converters/coco': ['.', '--out', '{}/coco'],
}


@pytest.mark.parametrize('name', PROGRAMS)
def test_programs_say_what_is_in_the_way(
    name, blocked, tmp_path, run_tool, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = [str(word).format(blocked) for word in PROGRAMS[name]]
    out = run_tool(name, *words, ok=False)
    assert f'{blocked} is a link to' in out, out
