# Copyright (c) PVD-MM contributors. Apache-2.0.
"""mim with the package as ``pip install .`` installs it, from a user's own folder."""

import importlib.metadata
import shutil
import sysconfig
import venv
from pathlib import Path

import pytest

from helpers.commands import ROOT, losses, run
from helpers.torch_features import needs_automatic_sizes
from pvd_mm.data.samples import make_shapes_sample
from pvd_mm.engine.records import read_records

NAME = 'pvd_r18-stage_1xb4-90k_cityscapes-512x1024'

MODEL = """
model = dict(
    pretrained=None,
    data_preprocessor=dict(size=(32, 48)),
    backbone=dict(base_channels=8, stem_channels=8),
    decode_head=dict(in_channels=[8, 8, 16, 32, 64], num_classes=3),
    auxiliary_head=dict(in_channels=32, channels=8, num_classes=3))
"""


def installed(*names):
    for name in names:
        try:
            importlib.metadata.distribution(name)
            return name
        except importlib.metadata.PackageNotFoundError:
            pass
    return None


pytestmark = pytest.mark.skipif(
    not installed('openmim', 'onedl-mim'), reason='mim is not installed'
)


@pytest.fixture(scope='session')
def environment(tmp_path_factory):
    """A virtual environment with pvd_mm, on top of the one that runs the tests.

    Without the C++ extension, which takes a minute; built from a copy, for
    setuptools leaves files beside what it builds.
    """
    root = tmp_path_factory.mktemp('installed')
    ignore = shutil.ignore_patterns('__pycache__', '*.so', '.mim')
    for part in ('pvd_mm', 'configs', 'tools', 'requirements'):
        shutil.copytree(ROOT / part, root / 'source' / part, ignore=ignore)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy2(path, root / 'source')
    venv.create(root / 'venv', symlinks=True)
    (site,) = root.glob('venv/lib/python*/site-packages')
    below = sysconfig.get_path('purelib')
    # distutils, which Python 3.12 has no more, is put in place by a .pth of setuptools,
    # and Python reads those of the environment's own folder alone
    shim = Path(below, 'distutils-precedence.pth')
    shim = shim.read_text() if shim.exists() else ''
    (site / 'below.pth').write_text(f'{below}\n{shim}\n')
    command = ['-m', 'pip', 'install', '-q', '--no-deps', '--no-build-isolation']
    command += ['--disable-pip-version-check', root / 'source']
    run(root / 'venv/bin/python', *command, PYTHONPATH='', PVD_MM_OPS='0')
    return root / 'venv'


@pytest.fixture(scope='session')
def installed_python(environment):
    """Runs its Python, with the installed package only, as a user has it."""

    def run_it(*arguments, **kwargs):
        return run(environment / 'bin/python', *arguments, PYTHONPATH='', **kwargs)

    return run_it


@pytest.fixture(scope='session')
def mim(installed_python):
    def run_it(*arguments, **kwargs):
        return installed_python('-m', 'mim', *arguments, **kwargs)

    return run_it


def test_what_is_installed(environment):
    """The package and its metadata, nothing beside it and nothing at start-up."""
    (site,) = environment.glob('lib/python*/site-packages')
    names = sorted(path.name for path in site.iterdir())
    version = (ROOT / 'pvd_mm/version.py').read_text().split("'")[1]
    assert names == ['below.pth', 'pvd_mm', f'pvd_mm-{version}.dist-info']
    for folder in (site / 'pvd_mm', site / names[2]):
        for part in ('configs', 'tools'):
            tracked = {
                path.relative_to(ROOT)
                for path in (ROOT / part).rglob('*')
                if path.is_file() and '__pycache__' not in path.parts
            }
            assert tracked == {
                path.relative_to(folder / '.mim')
                for path in (folder / '.mim' / part).rglob('*')
                if path.is_file() and '__pycache__' not in path.parts
            }


@pytest.fixture(scope='module')
def project(tiny_config, tmp_path_factory):
    """A user's project: one config that inherits ours by ``pvd_mm::``."""
    root = tmp_path_factory.mktemp('project')
    text = tiny_config.read_text()
    before, after = text.index('norm_cfg ='), text.index('train_pipeline')
    (root / 'mine.py').write_text(
        "_base_ = 'pvd_mm::_base_/models/pvd_r18-stage.py'\n"
        + text[:before]
        + MODEL
        + text[after:]
    )
    return root


def test_search(tmp_path, mim):
    out = mim('search', 'pvd_mm', '--valid-config', cwd=tmp_path)
    assert NAME in out
    assert 'deeplabv3_r18-d8_1xb4-90k_cityscapes-512x1024' in out


def test_config_by_name_from_anywhere(tmp_path, mim):
    """The data are missing; that is as far as it can get."""
    out = mim('train', 'pvd_mm', f'{NAME}.py', '-y', cwd=tmp_path, ok=False)
    assert 'Training command is' in out
    assert 'data/cityscapes' in out and 'does not exist' in out


@pytest.fixture(scope='module')
def checkpoint(project, mim):
    mim(
        'train',
        'pvd_mm',
        'mine.py',
        '-y',
        '--gpus',
        0,
        '--work-dir',
        'out',
        '--cfg-options',
        'train_cfg.max_iters=3',
        cwd=project,
    )
    mim(
        'train',
        'pvd_mm',
        'mine.py',
        '-y',
        '--gpus',
        0,
        '--work-dir',
        'out',
        '--resume',
        cwd=project,
    )
    assert sorted(losses(project / 'out')) == [1, 2, 3, 4, 5, 6]
    return project / 'out' / 'iter_6.pth'


def test_test_of_an_inheriting_project(project, checkpoint, mim):
    out = mim(
        'test',
        'pvd_mm',
        'mine.py',
        '--checkpoint',
        checkpoint,
        '-y',
        '--work-dir',
        'test',
        cwd=project,
    )
    assert 'mIoU' in out and 'Testing finished successfully' in out


@needs_automatic_sizes
def test_export_of_an_inheriting_project(project, checkpoint, mim):
    pytest.importorskip('onnxscript')
    pytest.importorskip('onnxruntime')
    out = mim(
        'run',
        'pvd_mm',
        'export',
        'mine.py',
        checkpoint,
        '--out',
        'mine.onnx',
        '--number',
        '1',
        cwd=project,
    )
    assert 'Written: mine.onnx' in out and (project / 'mine.onnx').is_file()


def test_inferencer(project, checkpoint, tiny_data, installed_python):
    out = installed_python(
        '-W',
        'ignore',
        '-c',
        'import sys, pvd_mm\n'
        'from mmseg.apis import MMSegInferencer\n'
        'model, weights, image = sys.argv[1:]\n'
        'infer = MMSegInferencer(model, weights, device="cpu",\n'
        '    classes=["a", "b", "c"], palette=[[0] * 3, [9] * 3, [99] * 3])\n'
        'print("shape", infer(image)["predictions"].shape)',
        project / 'mine.py',
        checkpoint,
        tiny_data / 'img' / '0.png',
        cwd=project,
    )
    assert 'shape (48, 64)' in out


def test_through_mmseg_s_own_train_py(project, checkpoint, mim):
    """A config without ``pvd_mm::`` needs no tool of ours."""
    dumped = project / 'out' / 'mine.py'  # what the runner wrote: flat
    framework = installed('onedl-mmsegmentation', 'mmsegmentation')
    mim(
        'train',
        framework,
        dumped,
        '-y',
        '--gpus',
        0,
        '--work-dir',
        'own',
        '--cfg-options',
        'train_cfg.max_iters=2',
        'resume=False',
        cwd=project,
    )
    assert sorted(losses(project / 'own')) == [1, 2]


@pytest.mark.parametrize('by', ['pvd_mm', 'mmdet'])
def test_a_detector(by, tmp_path, mim):
    """Shipped, trained and tested through mim; by its path mmdet takes it
    as well as we do."""
    config = (
        ROOT
        / 'configs/pvd_mask_rcnn'
        / ('pvd-mask-rcnn_r18-c4-c32_1xb4-600_shapes-192x256.py')
    )
    make_shapes_sample(str(tmp_path / 'data/shapes'), train=12, val=2)
    if by == 'mmdet':
        by = installed('onedl-mmdetection', 'mmdet')
    options = (
        '--gpus',
        0,
        '--work-dir',
        'out',
        '--cfg-options',
        'default_hooks.logger.interval=1',
        'train_cfg.max_iters=2',
    )
    mim('train', by, config, '-y', *options, cwd=tmp_path)
    assert sorted(losses(tmp_path / 'out')) == [1, 2]
    out = mim(
        'test', by, config, '--checkpoint', 'out/iter_2.pth', *options, cwd=tmp_path
    )
    for metric in ('bbox_mAP', 'segm_mAP', 'boundary_mAP'):
        assert f'coco/{metric}' in out
    if by == 'pvd_mm':
        (record,), _ = read_records([str(tmp_path)])
        assert 'coco/segm_mAP' in record['result']
        assert record['data']['type'] == 'ShapesDataset'
        assert record['steps'] == 2
