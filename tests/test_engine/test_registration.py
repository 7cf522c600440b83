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
                       for one in getattr(
                           torch.serialization, 'get_safe_globals', list)()),
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
    'mmengine mmseg.models mmdet pvd_mm',
    'mmdet.evaluation pvd_mm mmengine.hub mmseg.datasets',
    'pvd_mm.semantic',
    'pvd_mm.instance mmseg',
    'mmdet.models pvd_mm.semantic',
    'pvd_mm.engine.checkpoint mmseg.apis',
    'mmengine.runner pvd_mm.decoder mmdet.apis',
)
AGAIN = """
from mmengine.config import Config
before = state()
import pvd_mm
assert Config.fromfile({config!r}).model.type == 'EncoderDecoder'
importlib.reload(pvd_mm)
pvd_mm.register_all_modules()
assert state() == before
print(json.dumps(before))
"""
# The registries ask for their modules themselves.
ROOT_REGISTRIES = """
from mmengine.registry import HOOKS, MODELS, OPTIM_WRAPPERS
print(*(registry.get(name).__name__ for registry, name in (
    (HOOKS, 'ReproducibleResumeHook'), (HOOKS, 'RecordHook'),
    (OPTIM_WRAPPERS, 'CPUAmpOptimWrapper'), (MODELS, 'PixelVotingDecoder'),
    (MODELS, 'pixel_voting'))))
"""
ROOT_ORDERS = ('pvd_mm mmengine', 'mmengine pvd_mm', 'pvd_mm mmseg', 'mmdet pvd_mm')
PARTS = [
    order
    for pair in (('pvd_mm', 'mmengine.runner'), ('pvd_mm', 'mmdet.models'))
    for order in (' '.join(pair), ' '.join(pair[::-1]))
]
PART = """
print("mmseg" in sys.modules, "mmdet" in sys.modules, json.dumps(state()))
"""
UPSTREAM_FAILS = """
import sys, pvd_mm
sys.modules["mmseg.models.losses"] = None
try:
    import mmseg.models
except ModuleNotFoundError as error:
    print(error)
assert "pvd_mm.semantic" not in sys.modules
del sys.modules["mmseg.models.losses"]
from mmseg.registry import MODELS
print(MODELS.get("PVDHead"), MODELS.get("FCNHead"))
"""
OURS_FAILS = """
import sys, warnings, pvd_mm
sys.modules["pvd_mm.semantic.pvd_head"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    import mmseg.models
print(*(w.message for w in caught if "pvd_mm" in str(w.message)))
try:
    pvd_mm.register_all_modules()
except ModuleNotFoundError as error:
    print("raised", error)
"""
THREADS = """
import importlib, threading, pvd_mm
threads = [threading.Thread(target=importlib.import_module, args=[name])
           for name in ("mmseg.models", "mmdet.models")]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
from mmseg.registry import MODELS
import mmdet.registry
print(MODELS.get("PVDHead"), mmdet.registry.MODELS.get("PVDMaskRCNN"))
"""
REGISTER = """
import mmengine, pvd_mm
print(pvd_mm.register_all_modules())
"""
UNUSABLE = """
import sys, warnings, pvd_mm
sys.modules["mmseg.models"] = None
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(pvd_mm.register_all_modules())
print(*(w.message for w in caught if "pvd_mm" in str(w.message)))
sys.modules["mmdet.models"] = None
try:
    pvd_mm.register_all_modules()
except ImportError as error:
    print("raised", error)
"""
OP = """
from pvd_mm.ops import dynamic_deconv2d
import torch
x = torch.ones(1, 2, 3, 3); v = torch.ones(1, 9, 3, 3)
print(dynamic_deconv2d(x, v).shape)
assert not {"mmengine", "mmcv", "mmseg", "mmdet"} & set(sys.modules)
"""
LIGHT = """
import sys
known = set(sys.modules)
import pvd_mm
new = {name.split(".")[0] for name in set(sys.modules) - known}
assert new == {"pvd_mm"}, new
import mmengine
from mmseg.registry import MODELS
assert MODELS.get("PVDHead")
print(pvd_mm.__version__)
"""


@pytest.fixture(scope='module')
def printed(tmp_path_factory):
    """What each code prints, by its name; all from one process, for speed."""
    config = tmp_path_factory.mktemp('config') / 'mine.py'
    config.write_text("_base_ = 'pvd_mm::_base_/models/pvd_r18-stage.py'\n")
    again = AGAIN.format(config=str(config))
    codes = {order: STATE.format(order=order) + ALL + again for order in ORDERS}
    codes |= {order: STATE.format(order=order) + PART for order in PARTS}
    codes |= {
        order: STATE.format(order=order) + ROOT_REGISTRIES for order in ROOT_ORDERS
    }
    for name, code, *blocked in (
        ('upstream fails', UPSTREAM_FAILS),
        ('ours fails', OURS_FAILS),
        ('threads', THREADS),
        ('mmseg', REGISTER, 'mmseg'),
        ('mmdet', REGISTER, 'mmdet'),
        ('unusable', UNUSABLE),
        ('neither', REGISTER, 'mmseg', 'mmdet'),
        ('op', OP, 'mmengine', 'mmcv', 'mmseg', 'mmdet', 'mim'),
        ('light', LIGHT),
    ):
        codes[name] = BLOCK.format(blocked=blocked) + code if blocked else code
    return dict(zip(codes, fresh_pythons(*codes.values())))


def test_the_order_of_imports_means_nothing(printed):
    states = {order: json.loads(printed[order].splitlines()[-1]) for order in ORDERS}
    state = states[ORDERS[0]]
    for order in ORDERS:
        assert states[order] == state, order
    assert state['finders'] == 1
    assert False not in state['patches']
    assert state['mmengine.registry.HOOKS'] == [
        'ClassCheckHook',
        'LoadReportHook',
        'RecordHook',
        'ReproducibleResumeHook',
    ]
    assert state['mmengine.registry.OPTIM_WRAPPERS'] == ['CPUAmpOptimWrapper']
    assert 'PixelVotingDecoder' in state['mmengine.registry.MODELS']
    assert 'PVDHead' in state['mmseg.registry.MODELS']
    assert 'BoundaryIoUMetric' in state['mmseg.registry.METRICS']
    assert 'PVDMaskRCNN' in state['mmdet.registry.MODELS']
    assert 'ShapesDataset' in state['mmdet.registry.DATASETS']


@pytest.mark.parametrize('order', ROOT_ORDERS)
def test_mmengine_s_own_registries(order, printed):
    """Nothing but the order has been imported when they are asked."""
    assert printed[order].split()[-5:] == [
        'ReproducibleResumeHook',
        'RecordHook',
        'CPUAmpOptimWrapper',
        'PixelVotingDecoder',
        'DynamicDeconv2dPack',
    ]


def test_a_part_of_upstream_in_either_order(printed):
    """Only what it needs is registered, and nothing else is imported."""
    runner, runner_too, detectors, detectors_too = (
        printed[order].splitlines()[-1] for order in PARTS
    )
    assert runner == runner_too
    assert runner.startswith('False False') and 'RecordHook' in runner
    assert detectors == detectors_too
    assert detectors.startswith('False True') and 'PVDMaskRCNN' in detectors


def test_a_failing_import_of_upstream(printed):
    """Its own error comes through, and a second attempt works."""
    out = printed['upstream fails']
    assert 'import of mmseg.models.losses halted' in out
    assert 'pvd_mm.semantic.pvd_head.PVDHead' in out and 'FCNHead' in out


def test_a_failing_import_of_ours(printed):
    """A warning, and an error of register_all_modules()."""
    out = printed['ours fails']
    assert 'could not register what it has for mmseg.models' in out
    assert 'raised import of pvd_mm.semantic.pvd_head halted' in out


def test_threads(printed):
    """Two threads that import both frameworks at once."""
    out = printed['threads']
    assert 'PVDHead' in out and 'PVDMaskRCNN' in out and 'None' not in out


def test_op_needs_torch_alone(printed):
    assert 'torch.Size([1, 2, 3, 3])' in printed['op']


@pytest.mark.parametrize('missing', ['mmseg', 'mmdet'])
def test_one_framework_is_enough(missing, printed):
    assert ('pvd_mm.semantic' in printed[missing]) is (missing == 'mmdet')
    assert ('pvd_mm.instance' in printed[missing]) is (missing == 'mmseg')


def test_frameworks_that_cannot_be_imported(printed):
    """A warning of one, an error of both."""
    out = printed['unusable']
    assert "['pvd_mm.instance']\nmmseg is installed but cannot be imported" in out
    assert 'raised mmseg is installed but cannot be imported' in out


def test_neither_framework(printed):
    assert printed['neither'].strip().endswith('[]')


def test_import_is_light_and_registers_after_mmengine(printed):
    assert printed['light'].strip()
