# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What must import with what installed, each in a fresh interpreter."""

import pytest

from helpers.commands import python

BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {blocked!r}:
            raise ModuleNotFoundError(f'No module named {{name!r}}', name=name)
sys.meta_path.insert(0, Block())
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: (
    None if name.partition('.')[0] in {blocked!r} else find(name, *args))
"""


def isolated(code, *blocked):
    return python('-W', 'ignore', '-c', BLOCK.format(blocked=blocked) + code)


def test_op_needs_torch_alone():
    isolated(
        'from pvd_mm.ops import dynamic_deconv2d\n'
        'import torch\n'
        'x = torch.ones(1, 2, 3, 3); v = torch.ones(1, 9, 3, 3)\n'
        'print(dynamic_deconv2d(x, v).shape)\n'
        'assert not {"mmengine", "mmcv", "mmseg", "mmdet"} & set(sys.modules)',
        'mmengine',
        'mmcv',
        'mmseg',
        'mmdet',
        'mim',
    )


@pytest.mark.parametrize('missing', ['mmseg', 'mmdet'])
def test_one_framework_is_enough(missing):
    out = isolated(
        'import mmengine\nimport pvd_mm\nprint(pvd_mm.register_all_modules())', missing
    )
    assert ('pvd_mm.semantic' in out) is (missing == 'mmdet')


def test_neither_framework():
    out = isolated(
        'import mmengine, pvd_mm\nprint(pvd_mm.register_all_modules())',
        'mmseg',
        'mmdet',
    )
    assert out.strip().endswith('[]')


def test_no_mmengine_is_said_clearly():
    out = isolated(
        'import pvd_mm\n'
        'try:\n    pvd_mm.register_all_modules()\n'
        'except ModuleNotFoundError as error:\n    print(error)',
        'mmengine',
    )
    assert 'pvd_mm[openmmlab]' in out and 'pvd_mm[onedl]' in out


def test_import_is_light_and_registers_after_mmengine():
    out = python(
        '-W',
        'ignore',
        '-c',
        'import sys, pvd_mm\n'
        'assert not {"torch", "mmengine", "mmseg"} & set(sys.modules)\n'
        'print(pvd_mm.__version__)',
    )
    assert out.strip()
    python(
        '-W',
        'ignore',
        '-c',
        'import mmengine, pvd_mm\n'
        'from mmseg.registry import MODELS\n'
        'assert MODELS.get("PVDHead")',
    )
