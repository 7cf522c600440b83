# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The semantic wing: importing it registers everything in mmseg."""
from .backbones import PVDResNet, PVDResNetV1c, PVDResNetV1d, PVDResNeXt
from .pvd_head import PVDHead

__all__ = [
    'PVDHead', 'PVDResNet', 'PVDResNetV1c', 'PVDResNetV1d', 'PVDResNeXt'
]
