# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Which maps a backbone hands out."""
from .taps import EncoderTaps

__all__ = ['EncoderTaps']
