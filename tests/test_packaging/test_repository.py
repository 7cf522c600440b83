# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What git tracks must work in any clone."""

import shutil
import subprocess
from pathlib import Path

import pytest

from helpers.commands import ROOT


def git(folder, *words):
    return subprocess.run(
        ['git', '-C', str(folder), *words], check=True, text=True, capture_output=True
    ).stdout


needs_git = pytest.mark.skipif(
    not (ROOT / '.git').exists() or not shutil.which('git'),
    reason='not a checkout, or there is no git',
)


def broken_links(folder):
    """Tracked links that are absolute, leave the checkout or lead nowhere."""
    found = []
    for line in git(folder, 'ls-files', '--stage').splitlines():
        mode, name = line.split()[0], line.split('\t')[1]
        if mode != '120000':
            continue
        target = Path(git(folder, 'cat-file', 'blob', line.split()[1]))
        tracked = (Path(folder, name).parent / target).resolve()
        if (
            target.is_absolute()
            or not tracked.is_relative_to(Path(folder).resolve())
            or not git(folder, 'ls-files', tracked)
        ):
            found.append(name)
    return found


@needs_git
def test_tracked_links_lead_to_tracked_files():
    assert broken_links(ROOT) == []


@needs_git
def test_what_a_broken_link_is(tmp_path):
    git(tmp_path, 'init')
    (tmp_path / 'there').touch()
    for name, target in dict(
        good='there', absolute='/tmp', dangling='nowhere', outside='../beside'
    ).items():
        (tmp_path / name).symlink_to(target)
    git(tmp_path, 'add', '.')
    assert broken_links(tmp_path) == ['absolute', 'dangling', 'outside']


@needs_git
@pytest.mark.parametrize('name', ['data', 'work_dirs', 'checkpoints', '.venv'])
def test_results_are_ignored_whatever_they_are(name, tmp_path):
    git(tmp_path, 'init')
    shutil.copy(ROOT / '.gitignore', tmp_path)
    (tmp_path / name).symlink_to('/tmp')
    assert name not in git(tmp_path, 'status', '--short')
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    (tmp_path / name / 'file').touch()
    assert name not in git(tmp_path, 'status', '--short')
