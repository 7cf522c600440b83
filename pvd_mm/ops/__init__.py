# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The dynamic deconvolution, on torch alone.

Nothing in this package imports mmengine, mmcv, mmseg or mmdet.
"""

from .functional import dynamic_deconv2d
from .macs import deconv_macs
from .modules import DynamicDeconv2d, DynamicDeconv2dPack
from .standard_operators import use_standard_operators
from .upsampling import upsampling_kernel

__all__ = [
    'DynamicDeconv2d',
    'DynamicDeconv2dPack',
    'deconv_macs',
    'dynamic_deconv2d',
    'upsampling_kernel',
    'use_standard_operators',
]
