# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Layers that more than one part of a decoding step uses."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pvd_mm.ops.compatibility import is_compiling
from pvd_mm.ops.standard_operators import are_wanted


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int = 1,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """torch's ``conv2d``, with a 1×1 convolution on a CPU as a product of matrices.

    The 1×1 convolutions of a decoding step have few channels and large maps. torch's
    own reorders such a map for every convolution, which takes longer than the
    convolution; a product of matrices reads it as it is. Maps in channels_last need
    no reordering, and compilers and exporters are given the convolution.

    Args:
        x (Tensor): (N, C, H, W).
        weight (Tensor): (O, C, k, k).
        bias (Tensor, optional): (O,). Defaults to None.
        stride (int): Defaults to 1.
        padding (int | tuple[int, int]): Defaults to 0.

    Returns:
        Tensor: (N, O, H', W').
    """
    if not _as_product(x) or weight.shape[2:] != (1, 1) or stride != 1:
        return F.conv2d(x, weight, bias, stride, padding)
    weights = weight.flatten(1).expand(len(x), -1, -1)  # of each image
    if bias is None:
        product = weights @ x.flatten(2)
    else:
        product = torch.baddbmm(
            bias[:, None].expand(len(x), -1, 1), weights, x.flatten(2)
        )
    return product.unflatten(2, x.shape[2:])


def _as_product(x: Tensor) -> bool:
    return (
        not (torch.jit.is_tracing() or are_wanted() or is_compiling())
        and x.device.type == 'cpu'
        and x.dtype in (torch.float, torch.double)
        and (x.size(1) == 1 or x.stride(1) != 1)  # not channels_last
    )


class Conv1x1(nn.Conv2d):
    """``nn.Conv2d`` of kernel size 1, computed by :func:`conv2d`."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, O, H, W)."""
        return conv2d(x, self.weight, self.bias)


#: For mmcv's ``ConvModule``
CONV_1X1 = dict(type=Conv1x1)


class ConcatConv(nn.Conv2d):
    """A convolution of the concatenation of maps of one size.

    The paper concatenates and convolves in two places (Fig. 3b and 3d). The
    convolution of a concatenation is the sum of the convolutions of its
    parts, so that the concatenation, often the largest map of a step, need
    not be built.

    Weights are stored without their gain and multiplied by it when used. The
    layer can express the same, but a step of the optimiser changes its result
    less, by the gain (AdamW) or its square (SGD). With 1 / sqrt(channels), the
    equalised learning rate of Karras et al. 2018, that change is about the
    same for a map of 64 channels and one of 2048.

    Args:
        in_channels (Sequence[int]): Channels of each map.
        out_channels (int): Channels of the result.
        gains (Sequence[float], optional): What the weights of each map are
            multiplied by. Defaults to None, which is 1 for all.
        bias_gain (float): What the bias is multiplied by. Defaults to 1.
        kernel_size (int): Side of the convolution, odd; maps keep their size.
            Defaults to 1.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        out_channels: int,
        gains: Sequence[float] | None = None,
        bias_gain: float = 1.0,
        kernel_size: int = 1,
    ) -> None:
        super().__init__(
            sum(in_channels), out_channels, kernel_size, padding=kernel_size // 2
        )
        self.parts = tuple(in_channels)
        self.gains = tuple(gains or [1.0] * len(self.parts))
        self.bias_gain = bias_gain

    def part(self, index: int, x: Tensor) -> Tensor:
        """What one of the maps adds to the result; the first brings the bias.

        Args:
            index (int): Which of the concatenated maps this is.
            x (Tensor): (N, C_index, H, W).

        Returns:
            Tensor: (N, out_channels, H, W).
        """
        first = sum(self.parts[:index])
        weight = self.weight.narrow(1, first, self.parts[index])
        bias = self.bias * self.bias_gain if index == 0 else None
        return conv2d(x, weight * self.gains[index], bias, padding=self.padding)

    def forward(self, *maps: Tensor) -> Tensor:
        """Maps (N, C_i, H, W) to one map (N, out_channels, H, W)."""
        return sum(self.part(index, x) for index, x in enumerate(maps))
