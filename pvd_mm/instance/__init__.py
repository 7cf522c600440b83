# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What registers in mmdet, on import: backbones, detector, RoI head, mask head,
data sets and the boundary metric."""

from .backbones import NarrowResLayer, PVDResNet, PVDResNetV1d, PVDResNeXt
from .boundary_ap import BoundaryAPMetric
from .checked_coco import CheckedCocoDataset, CheckedCocoMixin
from .class_activation import class_activation
from .detectors import EncoderMaps, FeatureMaps, PVDMaskRCNN
from .mask_head import PVDMaskHead
from .roi_head import PVDRoIHead
from .shapes_dataset import ShapesDataset

__all__ = [
    'BoundaryAPMetric',
    'CheckedCocoDataset',
    'CheckedCocoMixin',
    'EncoderMaps',
    'FeatureMaps',
    'NarrowResLayer',
    'PVDMaskHead',
    'PVDMaskRCNN',
    'PVDResNeXt',
    'PVDResNet',
    'PVDResNetV1d',
    'PVDRoIHead',
    'ShapesDataset',
    'class_activation',
]
