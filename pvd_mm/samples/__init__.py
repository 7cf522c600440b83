# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Generators of small data sets that need no download."""

from .street import CLASSES, make_street_sample, street_scene

__all__ = ['CLASSES', 'make_street_sample', 'street_scene']
