# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a decoder may upsample by in place of its votes, to see what the votes
bring: the controls of an experiment.

An upsampler has the two halves of a decoding step: ``kernels`` from the coarse
map B, where a step regresses its votes, and ``forward`` from M to D, where it
decodes by them. All else in the decoder stays as it is.
"""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from pvd_mm.ops.compatibility import crop
from pvd_mm.ops.tracing import sizes_of

from .layers import Conv1x1


def _check_stride(name: str, stride: int, most: int) -> None:
    if stride > most:
        raise ValueError(
            f'upsampling={name!r} goes up to stride {most}, but a step has {stride}'
        )


def _pixel_shuffle(x: Tensor, stride: int) -> Tensor:
    """(N, C·s², H, W) to (N, C, s·H, s·W): F.pixel_shuffle, whose backward pass fails
    without any RoI."""
    parts = x.unflatten(1, (-1, stride, stride))
    return parts.permute(0, 1, 4, 2, 5, 3).flatten(4).flatten(2, 3)


class BilinearUpsampler(BaseModule):
    """Bilinear interpolation; the identity where the size stays.

    Args:
        channels (int): C_B, channels of the coarse map; not used.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()

    def kernels(self, coarse: Tensor, stride: int) -> Tensor:
        """Nothing is regressed: an empty map, (N, 0, H_B, W_B)."""
        return coarse[:, :0]

    def forward(
        self, fused: Tensor, kernels: Tensor, size: tuple[int, int], stride: int
    ) -> Tensor:
        """M (N, C_obj, H_B, W_B) to D (N, C_obj, H_A, W_A)."""
        return F.interpolate(fused, size, mode='bilinear', align_corners=False)


class CarafeUpsampler(BaseModule):
    """Content-aware reassembly as in CARAFE (Wang et al. 2019): each pixel of
    the result gathers k×k pixels around its source, with softmax weights
    regressed from the coarse map. In plain torch, on every device.

    Args:
        channels (int): C_B, channels of the coarse map.
        kernel_size (int): k. Defaults to 5, as there.
        compressed_channels (int): Channels of the encoder of the kernels.
            Defaults to 32.
        max_stride (int): The largest stride of a step. Defaults to 2.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int = 5,
        compressed_channels: int = 32,
        max_stride: int = 2,
    ) -> None:
        super().__init__()
        self.kernel_size = kernel_size
        self.max_stride = max_stride
        self.compress = Conv1x1(channels, compressed_channels, 1)
        self.encode = nn.Conv2d(
            compressed_channels, (kernel_size * max_stride) ** 2, 3, padding=1
        )

    def init_weights(self) -> None:
        """As in CARAFE: near equal weights."""
        super().init_weights()
        nn.init.normal_(self.encode.weight, std=0.001)
        nn.init.zeros_(self.encode.bias)

    def kernels(self, coarse: Tensor, stride: int) -> Tensor:
        """B (N, C_B, H_B, W_B) to logits (N, k²·s², H_B, W_B)."""
        _check_stride('carafe', stride, self.max_stride)
        logits = self.encode(self.compress(coarse))
        return logits[:, : (self.kernel_size * stride) ** 2]

    def forward(
        self, fused: Tensor, kernels: Tensor, size: tuple[int, int], stride: int
    ) -> Tensor:
        """M (N, C_obj, H_B, W_B) to D (N, C_obj, H_A, W_A)."""
        k = self.kernel_size
        height, width = sizes_of(fused)[2:]
        # (N, k², s², H_B, W_B), for the s² pixels of A in each pixel of B
        weights = kernels.unflatten(1, (k**2, -1)).softmax(dim=1)
        padded = F.pad(fused, [k // 2] * 4)
        gathered = 0
        for index in range(k**2):  # a window at a time holds memory down
            y, x = divmod(index, k)
            neighbours = padded[:, :, None, y : y + height, x : x + width]
            gathered = gathered + neighbours * weights[:, None, index]
        return crop(_pixel_shuffle(gathered.flatten(1, 2), stride), *size)


class DySampleUpsampler(BaseModule):
    """Sampling at learned points as in DySample (Liu et al. 2023): each pixel of the
    result is interpolated at its own place in M plus an offset regressed from the
    coarse map (eqs. 1-4; linear, then pixel shuffle; static scope factor). It starts
    as bilinear interpolation. One group: the paper's four do not divide any number of
    classes. On a GPU the backward pass of ``F.grid_sample`` is not deterministic.

    Args:
        channels (int): C_B, channels of the coarse map.
        scope (float): What offsets are multiplied by, in pixels of M. Defaults to
            0.25, as there: the range of neighbours hardly overlaps.
        max_stride (int): The largest stride of a step. Defaults to 2.
    """

    def __init__(self, channels: int, scope: float = 0.25, max_stride: int = 2) -> None:
        super().__init__()
        self.scope = scope
        self.max_stride = max_stride
        self.offset = Conv1x1(channels, 2 * max_stride**2, 1)

    def init_weights(self) -> None:
        """As in DySample: offsets near zero."""
        super().init_weights()
        nn.init.normal_(self.offset.weight, std=0.001)
        nn.init.zeros_(self.offset.bias)

    def kernels(self, coarse: Tensor, stride: int) -> Tensor:
        """B (N, C_B, H_B, W_B) to offsets in x, then in y, (N, 2·s², H_B, W_B)."""
        _check_stride('dysample', stride, self.max_stride)
        return self.offset(coarse)[:, : 2 * stride**2]

    def forward(
        self, fused: Tensor, kernels: Tensor, size: tuple[int, int], stride: int
    ) -> Tensor:
        """M (N, C_obj, H_B, W_B) to D (N, C_obj, H_A, W_A)."""
        height, width = size
        # places of a large map are more than half precision tells apart
        dtype = torch.promote_types(kernels.dtype, torch.float32)
        offsets = _pixel_shuffle(kernels, stride)
        offsets = self.scope * crop(offsets, height, width)
        x, y = offsets.to(dtype).unbind(1)
        # pixel i of M is from i to i + 1
        x = x + (torch.arange(width, device=x.device) + 0.5) / stride
        y = y + ((torch.arange(height, device=y.device) + 0.5) / stride)[:, None]
        rows, columns = sizes_of(fused)[2:]
        grid = torch.stack([2 * x / columns - 1, 2 * y / rows - 1], -1)
        sampled = F.grid_sample(
            fused.to(dtype), grid, padding_mode='border', align_corners=False
        )
        return sampled.to(fused.dtype)


UPSAMPLERS = dict(
    bilinear=BilinearUpsampler, carafe=CarafeUpsampler, dysample=DySampleUpsampler
)
