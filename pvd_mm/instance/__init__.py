# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The instance wing: importing it registers everything in mmdet."""

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
