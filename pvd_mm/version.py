# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The version of PVD-MM, read by ``setup.cfg`` without importing the rest."""

__version__ = '0.1.0'
