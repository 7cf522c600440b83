# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Building with what an environment has: an old setuptools, no wheel, neither."""

import configparser
import sys

import pytest

from helpers.commands import ROOT, run


@pytest.fixture
def backend(tmp_path):
    """Calls the build backend where there are only these packages."""

    def call(expression, *files, ok=True):
        for name in files:
            name, _, text = name.partition(': ')
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        code = f'import build_backend; print(build_backend.{expression})'
        path = f'{ROOT}:{tmp_path}'  # -S: no site-packages
        return run(sys.executable, '-S', '-c', code, PYTHONPATH=path, ok=ok)

    return call


# Editable wheels come with setuptools 64, bdist_wheel with 70.1.
OLD = (
    "setuptools/__init__.py: __version__ = '60.2.0'",
    'setuptools/command/__init__.py: ',
    "setuptools/build_meta.py: def build_wheel(*a): return 'built'",
)
NEW = (
    "setuptools/__init__.py: __version__ = '80.0'",
    'setuptools/command/bdist_wheel.py: ',
    'setuptools/build_meta.py: def build_wheel(*a): return "built"\n'
    'build_editable = build_wheel',
)
WHEEL = 'wheel.py: '


def test_without_setuptools(backend):
    out = backend('build_wheel("out")', ok=False)
    assert 'setuptools is not installed. Type\n    pip install "setuptools' in out
    assert 'Traceback' not in out


def test_an_old_setuptools_without_wheel(backend):
    out = backend('build_wheel("out")', *OLD, ok=False)
    assert 'setuptools 60.2.0 needs wheel, which is not installed. Type' in out
    assert '\n    pip install wheel\n' in out and 'Traceback' not in out


def test_an_old_setuptools_with_wheel(backend):
    assert backend('build_wheel("out")', *OLD, WHEEL) == 'built\n'
    out = backend('build_editable("out")', *OLD, WHEEL, ok=False)
    assert 'needs setuptools 64, and this is 60.2.0. Type' in out
    assert '\n    pip install "setuptools>=64,<70" wheel\n' in out
    assert 'Traceback' not in out


def test_a_new_setuptools_needs_no_wheel(backend):
    for hook in ('build_wheel', 'build_editable'):
        assert backend(f'{hook}("out")', *NEW) == 'built\n'


def test_an_old_setuptools_reads_setup_cfg():
    """Before 62.6 it takes ``file: …`` for a requirement itself."""
    config = configparser.ConfigParser()
    config.read(ROOT / 'setup.cfg')
    assert not config.has_section('options.extras_require')
    assert 'install_requires' not in config['options']
