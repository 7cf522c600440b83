# Copyright (c) PVD-MM contributors. Apache-2.0.
"""mmdet's ResNets handing out every step's map, and a narrow shared head."""

from mmdet.models.backbones import ResNet, ResNetV1d, ResNeXt
from mmdet.models.layers import ResLayer
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

from pvd_mm.decoder.intermediate_maps import IntermediateMaps


@MODELS.register_module()
class PVDResNet(IntermediateMaps, ResNet):
    """mmdet's ``ResNet`` that hands out the maps
    of :class:`pvd_mm.decoder.IntermediateMaps`."""


@MODELS.register_module()
class PVDResNetV1d(IntermediateMaps, ResNetV1d):
    """mmdet's ``ResNetV1d`` (deep stem, average down-sampling) that hands out
    the maps of :class:`pvd_mm.decoder.IntermediateMaps`."""


@MODELS.register_module()
class PVDResNeXt(IntermediateMaps, ResNeXt):
    """mmdet's ``ResNeXt`` that hands out the maps
    of :class:`pvd_mm.decoder.IntermediateMaps`."""


@MODELS.register_module()
class NarrowResLayer(BaseModule):
    """The last stage of a C4 detector inside the RoI, of any width.

    mmdet's ``ResLayer`` is made for a backbone of 64 base channels; this one
    goes with narrower ones as well.

    Args:
        depth (int): Depth of the ResNet.
        base_channels (int): Base channels of the ResNet. Defaults to 64.
        stage (int): Which stage it is, from 0. Defaults to 3.
        stride (int): Stride of its first block. Defaults to 2.
        norm_cfg (dict, optional): Defaults to BN.
        init_cfg (dict, optional): Defaults to Kaiming's, as in ResNet.
    """

    def __init__(
        self,
        depth: int,
        base_channels: int = 64,
        stage: int = 3,
        stride: int = 2,
        norm_cfg: dict | None = None,
        init_cfg=None,
    ) -> None:
        super().__init__(
            init_cfg
            or [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            ]
        )
        block, blocks = ResNet.arch_settings[depth]
        width = base_channels * 2**stage
        self.name = f'layer{stage + 1}'
        self.add_module(
            self.name,
            ResLayer(
                block,
                width // 2 * block.expansion,
                width,
                blocks[stage],
                stride=stride,
                norm_cfg=norm_cfg or dict(type='BN'),
            ),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(R, C, H, W) to (R, 2C, H / stride, W / stride)."""
        return getattr(self, self.name)(x)
