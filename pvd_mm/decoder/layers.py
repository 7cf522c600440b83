# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Layers that more than one part of a decoding step uses."""
from typing import Optional, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ConcatConv1x1(nn.Conv2d):
    """A 1×1 convolution of the concatenation of maps of one size.

    The paper concatenates and convolves in two places (Fig. 3b and 3d). The
    convolution of a concatenation is the sum of the convolutions of its
    parts, so that the concatenation, often the largest map of a step, need
    not be built.

    A part's weights are stored without their ``gain`` and multiplied by it
    when used. What the layer can express is the same, but an optimiser's step
    changes its result by the gain (AdamW) or the gain's square (SGD) less. A
    gain of 1 / sqrt(channels), the equalised learning rate of Karras et al.
    2018, makes that change about the same for maps of 64 and 2048 channels.

    Args:
        in_channels (Sequence[int]): Channels of each map.
        out_channels (int): Channels of the result.
        gains (Sequence[float], optional): What the weights of each map are
            multiplied by. Defaults to None, which is 1 for all.
    """

    def __init__(self,
                 in_channels: Sequence[int],
                 out_channels: int,
                 gains: Optional[Sequence[float]] = None) -> None:
        super().__init__(sum(in_channels), out_channels, 1)
        self.parts = tuple(in_channels)
        self.gains = tuple(gains or [1.] * len(self.parts))

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps (N, C_i, H, W) to one map (N, out_channels, H, W)."""
        weights = torch.split(self.weight, self.parts, dim=1)
        weights = [w * gain for w, gain in zip(weights, self.gains)]
        first, *others = maps
        output = F.conv2d(first, weights[0], self.bias)
        for x, weight in zip(others, weights[1:]):
            output = output + F.conv2d(x, weight)
        return output
