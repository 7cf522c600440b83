# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Layers that more than one part of a decoding step uses."""
from typing import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConcatConv1x1(nn.Conv2d):
    """A 1×1 convolution of the concatenation of maps of one size.

    The paper concatenates and convolves in two places (Fig. 3b and 3d). The
    convolution of a concatenation is the sum of the convolutions of its
    parts, so that the concatenation, often the largest map of a step, need
    not be built.

    Args:
        in_channels (Sequence[int]): Channels of each map.
        out_channels (int): Channels of the result.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: int) -> None:
        super().__init__(sum(in_channels), out_channels, 1)
        self.parts = tuple(in_channels)

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps (N, C_i, H, W) to one map (N, out_channels, H, W)."""
        weights = torch.split(self.weight, self.parts, dim=1)
        first, *others = maps
        output = F.conv2d(first, weights[0], self.bias)
        for x, weight in zip(others, weights[1:]):
            output = output + F.conv2d(x, weight)
        return output
