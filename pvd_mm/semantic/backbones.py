# Copyright (c) PVD-MM contributors. Apache-2.0.
"""mmseg's ResNet family, handing out every step's map."""

from mmseg.models.backbones import ResNet, ResNetV1c, ResNetV1d, ResNeXt
from mmseg.registry import MODELS

from pvd_mm.decoder.intermediate_maps import IntermediateMaps


@MODELS.register_module()
class PVDResNet(IntermediateMaps, ResNet):
    """mmseg's ``ResNet`` that hands out the maps
    of :class:`pvd_mm.decoder.IntermediateMaps`."""


@MODELS.register_module()
class PVDResNetV1c(IntermediateMaps, ResNetV1c):
    """mmseg's ``ResNetV1c`` (deep stem) that hands out the maps
    of :class:`pvd_mm.decoder.IntermediateMaps`."""


@MODELS.register_module()
class PVDResNetV1d(IntermediateMaps, ResNetV1d):
    """mmseg's ``ResNetV1d`` (deep stem, average down-sampling) that hands out
    the maps of :class:`pvd_mm.decoder.IntermediateMaps`."""


@MODELS.register_module()
class PVDResNeXt(IntermediateMaps, ResNeXt):
    """mmseg's ``ResNeXt`` that hands out the maps
    of :class:`pvd_mm.decoder.IntermediateMaps`."""
