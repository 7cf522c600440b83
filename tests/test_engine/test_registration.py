# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What must import with what installed and in which order, in fresh interpreters."""

import json

import pytest

from helpers.fresh import fresh_pythons

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

# Prints what is registered and patched, after importing the words of `order`.
STATE = """
import importlib, json, re, sys
for name in {order!r}.split():
    importlib.import_module(name)

def state():
    import torch, mmengine.registry
    from mmengine.config import Config
    from mmengine.config.utils import MODULE2PACKAGE
    loaded = sys.modules.get
    def patched(module, name):
        owner = loaded(module)
        for part in name.split('.'):
            owner = getattr(owner, part, None)
        return owner and hasattr(owner, '_pvd_mm_patch')
    return dict(
        {{
            f'{{module}}.{{name}}': [key for key, value in sorted(
                registry.module_dict.items())
                if value.__module__.startswith('pvd_mm.')]
            for module in ('mmengine.registry', 'mmseg.registry', 'mmdet.registry')
            for name, registry in vars(loaded(module) or sys).items()
            if isinstance(registry, mmengine.registry.Registry)
        }},
        finders=sum('pvd_mm' in type(one).__module__ for one in sys.meta_path),
        globals=sorted(re.sub('0x[0-9a-f]+', '', str(one))
                       for one in torch.serialization.get_safe_globals()),
        packages=sorted(MODULE2PACKAGE.items()),
        patches=[
            patched('mmengine.config', 'Config._get_cfg_path'),
            patched('mmengine.hub', 'get_config'),
            patched('mmengine.runner.checkpoint', '_safe_torch_load'),
            patched('mmseg.models.losses.cross_entropy_loss', 'cross_entropy'),
            patched('mmcv.ops.nms', 'NMSop.forward'),
            patched('mmdet.models.roi_heads', 'SingleRoIExtractor.forward'),
        ],
    )
"""
# What a user comes to import by and by.
ALL = """
import mmengine.runner, mmengine.hub, pvd_mm.semantic, pvd_mm.instance
import mmdet.evaluation, mmdet.models, mmseg.evaluation, mmseg.models, mmseg.registry
"""
ORDERS = (
    'pvd_mm mmengine mmseg mmdet',
    'mmengine mmseg mmdet pvd_mm',
    'mmseg.models mmdet pvd_mm',
    'mmdet.evaluation pvd_mm mmseg.datasets',
    'mmengine pvd_mm mmdet.datasets mmseg.evaluation',
    'pvd_mm.semantic',
    'pvd_mm.instance mmseg',
    'mmengine.runner pvd_mm.instance pvd_mm.semantic',
    'mmdet.models pvd_mm.semantic',
    'pvd_mm.engine.checkpoint mmseg.apis',
    'pvd_mm.decoder mmdet.apis',
    'pvd_mm mmengine.hub',
)


def isolated(code, *blocked):
    return BLOCK.format(blocked=blocked) + code


def test_the_order_of_imports_means_nothing(tmp_path):
    config = tmp_path / 'mine.py'
    config.write_text("_base_ = 'pvd_mm::_base_/models/pvd_r18-stage.py'\n")
    again = f"""
before = state()
import pvd_mm
assert Config.fromfile({str(config)!r}).model.type == 'EncoderDecoder'
importlib.reload(pvd_mm)
pvd_mm.register_all_modules()
assert state() == before
print(json.dumps(before))
"""
    codes = [STATE.format(order=order) + ALL for order in ORDERS]
    codes = [code + 'from mmengine.config import Config\n' + again for code in codes]
    states = [json.loads(out.splitlines()[-1]) for out in fresh_pythons(*codes)]
    for order, state in zip(ORDERS, states):
        assert state == states[0], order
    assert states[0]['finders'] == 1
    assert False not in states[0]['patches']
    assert states[0]['mmengine.registry.HOOKS'] == [
        'LoadReportHook',
        'RecordHook',
        'ReproducibleResumeHook',
    ]
    assert states[0]['mmengine.registry.OPTIM_WRAPPERS'] == ['CPUAmpOptimWrapper']
    assert 'PixelVotingDecoder' in states[0]['mmengine.registry.MODELS']
    assert 'PVDHead' in states[0]['mmseg.registry.MODELS']
    assert 'BoundaryIoUMetric' in states[0]['mmseg.registry.METRICS']
    assert 'PVDMaskRCNN' in states[0]['mmdet.registry.MODELS']
    assert 'ShapesDataset' in states[0]['mmdet.registry.DATASETS']


def test_a_part_of_upstream_in_either_order():
    """Only what it needs is registered, and nothing else is imported."""
    pairs = ('pvd_mm', 'mmengine.runner'), ('pvd_mm', 'mmdet.models')
    codes = [
        STATE.format(order=' '.join(order)) + 'print(json.dumps(state()))\n'
        'print("mmseg" in sys.modules, "mmdet" in sys.modules)'
        for pair in pairs
        for order in (pair, pair[::-1])
    ]
    runner, runner_too, detectors, detectors_too = fresh_pythons(*codes)
    assert runner.splitlines()[-2:] == runner_too.splitlines()[-2:]
    assert 'False False' in runner and 'RecordHook' in runner
    assert detectors.splitlines()[-2:] == detectors_too.splitlines()[-2:]
    assert 'False True' in detectors and 'PVDMaskRCNN' in detectors


def test_a_failing_import_of_upstream():
    """Its own error comes through, and a second attempt works. One of ours is a
    warning, and an error of register_all_modules()."""
    upstream, ours = fresh_pythons(
        'import sys, pvd_mm\n'
        'sys.modules["mmseg.models.losses"] = None\n'
        'try:\n    import mmseg.models\n'
        'except ModuleNotFoundError as error:\n    print(error)\n'
        'assert "pvd_mm.semantic" not in sys.modules\n'
        'del sys.modules["mmseg.models.losses"]\n'
        'from mmseg.registry import MODELS\n'
        'print(MODELS.get("PVDHead"), MODELS.get("FCNHead"))',
        'import sys, warnings, pvd_mm\n'
        'sys.modules["pvd_mm.semantic.pvd_head"] = None\n'
        'with warnings.catch_warnings(record=True) as caught:\n'
        '    warnings.simplefilter("always")\n'
        '    import mmseg.models\n'
        'print(*(w.message for w in caught if "pvd_mm" in str(w.message)))\n'
        'try:\n    pvd_mm.register_all_modules()\n'
        'except ModuleNotFoundError as error:\n    print("raised", error)',
    )
    assert 'import of mmseg.models.losses halted' in upstream
    assert 'pvd_mm.semantic.pvd_head.PVDHead' in upstream and 'FCNHead' in upstream
    assert 'could not register what it has for mmseg.models' in ours
    assert 'raised import of pvd_mm.semantic.pvd_head halted' in ours


def test_threads():
    """Two threads that import both frameworks at once."""
    (out,) = fresh_pythons(
        'import importlib, threading, pvd_mm\n'
        'threads = [threading.Thread(target=importlib.import_module, args=[name])\n'
        '           for name in ("mmseg.models", "mmdet.models")]\n'
        'for thread in threads:\n    thread.start()\n'
        'for thread in threads:\n    thread.join()\n'
        'from mmseg.registry import MODELS\n'
        'import mmdet.registry\n'
        'print(MODELS.get("PVDHead"), mmdet.registry.MODELS.get("PVDMaskRCNN"))'
    )
    assert 'PVDHead' in out and 'PVDMaskRCNN' in out and 'None' not in out


@pytest.fixture(scope='module')
def outputs():
    """By what is missing."""
    register = 'import mmengine\nimport pvd_mm\nprint(pvd_mm.register_all_modules())'
    codes = dict(
        mmseg=isolated(register, 'mmseg'),
        mmdet=isolated(register, 'mmdet'),
        both=isolated(register, 'mmseg', 'mmdet'),
        mmengine=isolated(
            'import pvd_mm\n'
            'try:\n    pvd_mm.register_all_modules()\n'
            'except ModuleNotFoundError as error:\n    print(error)',
            'mmengine',
        ),
        all=isolated(
            'from pvd_mm.ops import dynamic_deconv2d\n'
            'import torch\n'
            'x = torch.ones(1, 2, 3, 3); v = torch.ones(1, 9, 3, 3)\n'
            'print(dynamic_deconv2d(x, v).shape)\n'
            'assert not {"mmengine", "mmcv", "mmseg", "mmdet"} & set(sys.modules)',
            *('mmengine', 'mmcv', 'mmseg', 'mmdet', 'mim'),
        ),
        none='import sys\n'
        'known = set(sys.modules)\n'
        'import pvd_mm\n'
        'new = {name.split(".")[0] for name in set(sys.modules) - known}\n'
        'assert new == {"pvd_mm"}, new\n'
        'assert not {"numpy", "torch", "mmengine", "mmseg"} & new\n'
        'import mmengine\n'
        'from mmseg.registry import MODELS\n'
        'assert MODELS.get("PVDHead")\n'
        'print(pvd_mm.__version__)',
    )
    return dict(zip(codes, fresh_pythons(*codes.values())))


def test_op_needs_torch_alone(outputs):
    assert 'torch.Size([1, 2, 3, 3])' in outputs['all']


@pytest.mark.parametrize('missing', ['mmseg', 'mmdet'])
def test_one_framework_is_enough(missing, outputs):
    assert ('pvd_mm.semantic' in outputs[missing]) is (missing == 'mmdet')
    assert ('pvd_mm.instance' in outputs[missing]) is (missing == 'mmseg')


def test_neither_framework(outputs):
    assert outputs['both'].strip().endswith('[]')


def test_no_mmengine_is_said_clearly(outputs):
    out = outputs['mmengine']
    assert 'pvd_mm[openmmlab]' in out and 'pvd_mm[onedl]' in out


def test_import_is_light_and_registers_after_mmengine(outputs):
    assert outputs['none'].strip()
