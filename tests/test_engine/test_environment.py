# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Environments that something is wrong with, made of metadata and empty modules, in
an interpreter that has no packages beside them."""

import importlib.machinery
import sys

import pytest

from helpers.commands import ROOT, run

FIRST_USE = """
import pvd_mm
try:
    import mmcv.ops
except ImportError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture
def environment(tmp_path):
    """Runs code where these distributions are installed; {name: version}."""

    def call(distributions, code='import pvd_mm', ok=True):
        for name, version in distributions.items():
            folder = tmp_path / f'{name.replace("-", "_")}-{version}.dist-info'
            folder.mkdir()
            (folder / 'METADATA').write_text(f'Name: {name}\nVersion: {version}\n')
        path = f'{ROOT}:{tmp_path}'
        return run(sys.executable, '-S', '-c', code, PYTHONPATH=path, ok=ok)

    return call


@pytest.fixture
def mmcv(tmp_path):
    """One whose operators need a library, as mmcv's do."""
    (tmp_path / 'mmcv/ops').mkdir(parents=True)
    (tmp_path / 'mmcv/__init__.py').touch()
    (tmp_path / 'mmcv/ops/__init__.py').write_text('import mmcv._ext\n')
    return tmp_path / 'mmcv'


@pytest.mark.parametrize('version', ['2.0.1', '2.0.0+cu118', '1.13.1'])
def test_an_old_torch(version, environment):
    out = environment({'torch': version}, ok=False)
    assert (
        f'ImportError: pvd_mm needs torch 2.1 or newer, and this is torch {version}'
        in out
    )
    assert 'pip install "torch>=2.1"' in out


@pytest.mark.parametrize(
    'versions',
    [
        {},
        {'torch': '2.1.0'},
        {'torch': '2.1.2+cu121', 'numpy': '1.26.4', 'mmengine': '0.10.7'},
        {'torch': '2.3.0', 'numpy': '2.0.0', 'onedl-mmengine': '0.10.12'},
        {'torch': '2.13.0+cpu', 'numpy': '2.4.6', 'mmcv': '2.1.0'},
        {'torch': '2.10.0', 'numpy': '2.4.6', 'mmcv-lite': '2.1.0'},
    ],
)
def test_nothing_is_said_of_a_good_one(versions, environment):
    assert environment(versions) == ''


def test_a_torch_that_was_built_for_another_numpy(environment):
    out = environment({'torch': '2.2.2', 'numpy': '2.0.1'})
    assert 'torch 2.2.2 was built for NumPy 1 and cannot use NumPy 2.0.1' in out
    assert 'pip install "numpy<2"' in out


@pytest.mark.parametrize(
    'module, one, other',
    [
        ('mmengine', 'mmengine', 'onedl-mmengine'),
        ('mmcv', 'mmcv', 'mmcv-lite'),
        ('mmseg', 'mmsegmentation', 'onedl-mmsegmentation'),
        ('mmdet', 'mmdet', 'onedl-mmdetection'),
    ],
)
def test_two_families(module, one, other, environment):
    out = environment({one: '1.0', other: '2.0'})
    assert out.count('are both installed') == 1
    assert f'{one} and {other} are both installed' in out
    assert f'{module} is that of the last one' in out


def test_an_mmcv_without_operators(mmcv, environment):
    out = environment({'mmcv-lite': '2.1.0'}, FIRST_USE)
    assert "ModuleNotFoundError No module named 'mmcv._ext': this mmcv has no" in out
    assert '`pip uninstall mmcv-lite`' in out


@pytest.mark.parametrize('name', ['mmcv', 'onedl-mmcv'])
def test_an_mmcv_for_another_torch(name, mmcv, environment):
    """Its library cannot be loaded; this one, since it is empty."""
    (mmcv / f'_ext{importlib.machinery.EXTENSION_SUFFIXES[0]}').touch()
    out = environment({name: '2.1.0'}, FIRST_USE)
    assert out.startswith('ImportError') and '_ext' in out
    assert out.count('this mmcv was built for another torch') == 1
    assert (
        f'--no-cache-dir --no-build-isolation --no-binary {name} {name}==2.1.0' in out
    )


def test_no_mmengine(environment):
    out = environment({}, 'import pvd_mm; pvd_mm.register_all_modules()', ok=False)
    assert 'ModuleNotFoundError: mmengine is not installed. ' in out
    assert 'requirements/openmmlab.txt' in out and 'requirements/onedl.txt' in out
