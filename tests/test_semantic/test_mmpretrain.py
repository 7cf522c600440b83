# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The head on backbones of mmpretrain, and of timm by mmpretrain's wrapper."""

import json
import os
from pathlib import Path

from helpers.commands import python

# In a folder of their own: where mmpretrain is installed, every import of mmdet
# imports it too.
PACKAGES = [
    'einops==0.8.2',
    'importlib-metadata==7.2.1',
    'mat4py==0.6.0',
    'mmpretrain==1.2.0',
    'modelindex==0.0.2',
    'timm==1.0.22',
    'zipp==3.23.0',
]

PYRAMIDS = [
    dict(
        type='mmpretrain.MobileNetV2',
        out_indices=(0, 1, 2, 4, 7),
        channels=[16, 24, 32, 96, 1280],
    ),
    dict(
        type='mmpretrain.TIMMBackbone',
        model_name='efficientnet_lite0',
        features_only=True,
        channels=[16, 24, 40, 112, 320],
    ),
]

# A step of training each. mmpretrain and timm import torchvision for their data: where
# it is missing anything may stand for it.
STEPS = """
import json, sys
from unittest.mock import MagicMock

try:
    import torchvision
except ImportError:
    for part in ('', '.datasets', '.ops', '.ops.boxes', '.ops.misc', '.transforms',
                 '.transforms.functional', '.transforms.transforms'):
        sys.modules[f'torchvision{part}'] = MagicMock(__version__='0.0.0')

from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from test_pvd_head import losses, segmentor

init_default_scope('mmseg')
for cfg in json.loads(sys.argv[1]):
    channels = cfg.pop('channels')
    model = segmentor(head=dict(in_channels=channels))
    model.backbone = MODELS.build(cfg)
    loss = losses(model)['decode.loss_ce']
    loss.backward()
    gradient = next(model.backbone.parameters()).grad
    assert loss > 0 and gradient.isfinite().all() and gradient.any()
    print(type(model.backbone).__module__)
"""


def test_pyramids_by_their_names_alone(tmp_path):
    """As mmseg's documentation has it."""
    install = ['-m', 'pip', 'install', '-q', '--disable-pip-version-check', '--no-deps']
    python(*install, '--target', tmp_path, *PACKAGES)
    here = Path(__file__).parent
    path = os.pathsep.join(map(str, (tmp_path, here, here.parent)))
    output = python('-c', STEPS, json.dumps(PYRAMIDS), PYTHONPATH=path)
    for module in ('mobilenet_v2', 'timm_backbone'):
        assert f'mmpretrain.models.backbones.{module}\n' in output
