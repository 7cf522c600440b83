# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The shapes sample: drawn figures in the layout of COCO."""

from .sample import CLASSES, make_shapes_sample, shapes_scene
from .scene import SceneObject

__all__ = ['CLASSES', 'SceneObject', 'make_shapes_sample', 'shapes_scene']
