# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Pixel Voting Decoder for MMSegmentation and MMDetection.

Importing the package is light. ``pvd_mm.ops`` needs torch alone. What pvd_mm has
for mmengine, mmseg and mmdet is registered when they are imported, before or
after; :func:`register_all_modules` imports them.
"""

from .engine.environment import check_environment
from .engine.registration import register_all_modules, watch_imports
from .version import __version__

__all__ = ['__version__', 'register_all_modules']

check_environment()
watch_imports()
