# Copyright (c) PVD-MM contributors. Apache-2.0.
"""tools/quickstart.sh: what it refuses before it installs anything."""

import shutil

import pytest

from helpers.commands import ROOT, run

pytestmark = pytest.mark.skipif(not shutil.which('bash'), reason='there is no bash')


@pytest.fixture
def refused(tmp_path):
    """Runs the script in a checkout that has nothing else; gives its error."""
    (tmp_path / 'tools').mkdir()
    for name in ('quickstart.sh', 'setup_env.sh'):
        shutil.copy(ROOT / 'tools' / name, tmp_path / 'tools')

    def call(*arguments):
        message = run('bash', tmp_path / 'tools/quickstart.sh', *arguments, ok=False)
        assert not (tmp_path / '.venv').exists()
        return message

    return call


def test_an_unknown_task_names_those_there_are(refused):
    message = refused('--task', 'segmentation')
    assert 'semantic, instance, panoptic or camvid' in message
    assert "got 'segmentation'" in message


def test_camvid_is_looked_for_before_the_installation(refused):
    message = refused('--task', 'camvid')
    assert 'data/camvid' in message and 'docs/data.md' in message
