# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Generators of small data sets that need no download."""

from .shapes import CLASSES as SHAPES_CLASSES
from .shapes import make_shapes_sample, shapes_scene
from .street import (
    CLASSES,
    make_street_panoptic_sample,
    make_street_sample,
    street_panoptic_scene,
    street_scene,
)

__all__ = [
    'CLASSES',
    'SHAPES_CLASSES',
    'make_shapes_sample',
    'make_street_panoptic_sample',
    'make_street_sample',
    'shapes_scene',
    'street_panoptic_scene',
    'street_scene',
]
