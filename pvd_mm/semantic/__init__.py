# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What registers in mmseg, on import: backbones, decode head, data sets and
metrics."""

from .backbones import PVDResNet, PVDResNetV1c, PVDResNetV1d, PVDResNeXt
from .boundary_iou import BoundaryIoUMetric
from .camvid import CamVidDataset
from .checked_dataset import CheckedCityscapesDataset, CheckedDatasetMixin
from .connectedness import ConnectednessMetric
from .efficientnet_lite import EfficientNetLite
from .pvd_head import PVDHead

__all__ = [
    'BoundaryIoUMetric',
    'CamVidDataset',
    'CheckedCityscapesDataset',
    'CheckedDatasetMixin',
    'ConnectednessMetric',
    'EfficientNetLite',
    'PVDHead',
    'PVDResNet',
    'PVDResNetV1c',
    'PVDResNetV1d',
    'PVDResNeXt',
]
