# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Context for the top map."""

import torch
import torch.nn.functional as F
from mmcv.cnn import ConvModule
from mmengine.model import BaseModule
from torch import Tensor, nn

from pvd_mm.ops.tracing import sizes_of

from .association import RELU

_SCALES = 1, 2, 3, 6


class PyramidContext(BaseModule):
    """Pyramid pooling (Zhao et al. 2017, section 3.2) of the top map.

    The map is averaged over 1×1, 2×2, 3×3 and 6×6 regions, each average is
    convolved and interpolated back, and a 3×3 convolution joins them with the
    map itself. The top map has few pixels, so that this is cheap there.

    Args:
        in_channels (int): C_L.
        channels (int): Channels of the result; of each average a quarter.
        norm_cfg (dict, optional): Normalisation of the joining convolution.
            The averages have none: of a batch of one, 1×1 is a single value.
        act_cfg (dict, optional): Activation. Defaults to ReLU.
        align_corners (bool): Of the interpolation. Defaults to False.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        norm_cfg: dict | None = None,
        act_cfg: dict | None = RELU,
        align_corners: bool = False,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        width = max(1, channels // len(_SCALES))
        self.pool = nn.ModuleList(
            nn.Sequential(
                nn.AdaptiveAvgPool2d(scale),
                ConvModule(in_channels, width, 1, act_cfg=act_cfg),
            )
            for scale in _SCALES
        )
        self.join = ConvModule(
            in_channels + len(_SCALES) * width,
            channels,
            3,
            padding=1,
            norm_cfg=norm_cfg,
            act_cfg=act_cfg,
        )

    def forward(self, x: Tensor) -> Tensor:
        """z_L (N, C_L, H_L, W_L) to (N, channels, H_L, W_L)."""
        size = sizes_of(x)[2:]
        averages = [
            F.interpolate(
                pool(x), size, mode='bilinear', align_corners=self.align_corners
            )
            for pool in self.pool
        ]
        return self.join(torch.cat([x, *averages], 1))
