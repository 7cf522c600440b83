# Copyright (c) PVD-MM contributors. Apache-2.0.
"""mmseg's ResNet family, handing out every step's map."""
from mmseg.models.backbones import ResNet, ResNetV1c, ResNetV1d, ResNeXt
from mmseg.registry import MODELS

from pvd_mm.encoder import EncoderTaps


@MODELS.register_module()
class PVDResNet(EncoderTaps, ResNet):
    """mmseg's ``ResNet`` with the taps of
    :class:`pvd_mm.encoder.EncoderTaps`."""


@MODELS.register_module()
class PVDResNetV1c(EncoderTaps, ResNetV1c):
    """mmseg's ``ResNetV1c`` (deep stem) with the taps of
    :class:`pvd_mm.encoder.EncoderTaps`."""


@MODELS.register_module()
class PVDResNetV1d(EncoderTaps, ResNetV1d):
    """mmseg's ``ResNetV1d`` (deep stem, average down-sampling) with the taps
    of :class:`pvd_mm.encoder.EncoderTaps`."""


@MODELS.register_module()
class PVDResNeXt(EncoderTaps, ResNeXt):
    """mmseg's ``ResNeXt`` with the taps of
    :class:`pvd_mm.encoder.EncoderTaps`."""
