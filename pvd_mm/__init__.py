# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Pixel Voting Decoder for MMSegmentation and MMDetection.

Importing the package is light. ``pvd_mm.ops`` needs torch alone. When
mmengine is already loaded, everything that the installed frameworks can use
is registered; otherwise call :func:`register_all_modules`, or name
``pvd_mm.semantic`` in a config's ``custom_imports``.
"""

import sys

from .version import __version__

__all__ = ['__version__', 'register_all_modules']


def register_all_modules() -> list:
    """Apply the upstream mends and register every wing that can be used.

    A wing whose framework is not installed (mmseg for ``pvd_mm.semantic``,
    mmdet for ``pvd_mm.instance``) is left out. Safe to call repeatedly.

    Returns:
        list[str]: Names of the registered wings.

    Raises:
        ModuleNotFoundError: If mmengine is not installed.
    """
    from pvd_mm.engine.registration import register_wings

    return register_wings()


if sys.modules.get('mmengine') is not None:
    register_all_modules()
