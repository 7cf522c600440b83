# Copyright (c) PVD-MM contributors. Apache-2.0.
"""From what data sets are downloaded as to what the shipped configs read."""

from .camvid import convert_camvid
from .cityscapes import convert_cityscapes, convert_cityscapes_panoptic
from .coco import arrange_coco

__all__ = [
    'arrange_coco',
    'convert_camvid',
    'convert_cityscapes',
    'convert_cityscapes_panoptic',
]
