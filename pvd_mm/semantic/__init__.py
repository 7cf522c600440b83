# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What registers in mmseg, on import: backbones, decode head, data sets and the
boundary metric."""

from .backbones import PVDResNet, PVDResNetV1c, PVDResNetV1d, PVDResNeXt
from .boundary_iou import BoundaryIoUMetric
from .camvid import CamVidDataset
from .checked_dataset import CheckedCityscapesDataset, CheckedDatasetMixin
from .efficientnet_lite import EfficientNetLite
from .pvd_head import PVDHead

__all__ = [
    'BoundaryIoUMetric',
    'CamVidDataset',
    'CheckedCityscapesDataset',
    'CheckedDatasetMixin',
    'EfficientNetLite',
    'PVDHead',
    'PVDResNet',
    'PVDResNetV1c',
    'PVDResNetV1d',
    'PVDResNeXt',
]
