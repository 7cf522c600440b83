# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The street sample: drawn scenes in the layout of Cityscapes."""

from .classes import CLASSES
from .panoptic import make_street_panoptic_sample
from .sample import make_street_sample, street_panoptic_scene, street_scene

__all__ = [
    'CLASSES',
    'make_street_panoptic_sample',
    'make_street_sample',
    'street_panoptic_scene',
    'street_scene',
]
