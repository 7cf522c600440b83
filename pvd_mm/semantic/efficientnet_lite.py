# Copyright (c) PVD-MM contributors. Apache-2.0.
"""EfficientNet-Lite, handing out every step's map."""

import math
from collections.abc import Sequence

from mmcv.cnn import ConvModule
from mmengine.model import BaseModule, Sequential
from mmengine.utils.dl_utils.parrots_wrapper import _BatchNorm
from mmseg.models.utils import make_divisible
from mmseg.registry import MODELS
from torch import Tensor

from pvd_mm.ops.checks import check_choice

_NORM = dict(type='BN', eps=1e-3, momentum=0.01)
_ACT = dict(type='ReLU6')
# multipliers of width and depth
_ARCHS = dict(
    lite0=(1.0, 1.0),
    lite1=(1.0, 1.1),
    lite2=(1.1, 1.2),
    lite3=(1.2, 1.4),
    lite4=(1.4, 1.8),
)
_STEM_CHANNELS = 32
# side of the depthwise convolution, blocks, stride, expansion, channels
_STAGES = (
    (3, 1, 1, 1, 16),
    (3, 2, 2, 6, 24),
    (5, 2, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (5, 3, 1, 6, 112),
    (5, 4, 2, 6, 192),
    (3, 1, 1, 6, 320),
)


class _InvertedResidual(BaseModule):
    """MobileNetV2's block with a depthwise convolution of any side, which mmseg's
    own lacks, and a dilation, which its block of MobileNetV3 lacks."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int,
        expansion: int,
        dilation: int,
        strided_conv: dict | None,
        **layers,
    ) -> None:
        super().__init__()
        middle = in_channels * expansion
        self.expand = (
            ConvModule(in_channels, middle, 1, **layers) if expansion > 1 else None
        )
        self.depthwise = ConvModule(
            middle,
            middle,
            kernel_size,
            stride=stride,
            padding=dilation * (kernel_size // 2),
            dilation=dilation,
            groups=middle,
            conv_cfg=strided_conv if stride > 1 else None,
            **layers,
        )
        self.project = ConvModule(
            middle, out_channels, 1, **{**layers, 'act_cfg': None}
        )
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        out = x if self.expand is None else self.expand(x)
        out = self.project(self.depthwise(out))
        return x + out if self.has_shortcut else out


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite: EfficientNet (Tan and Le 2019) without squeeze and excitation,
    with ReLU6 and a stem that is never widened, as
    https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite has
    it; without the classifier.

    For PVD it hands out the maps z_0 … z_L (eq. 3), finest first: the stem's output
    and that of every block or stage, (N, C_l, H_l, W_l), of the image's sides by a
    stride of 2 to 32, rounded up. ``out_channels`` lists their channels. Of lite0 by
    stage:

    ======== ==== == == == == === === ===
    map      stem 1  2  3  4  5   6   7
    stride   2    2  4  8  16 16  32  32
    channels 32   16 24 40 80 112 192 320
    ======== ==== == == == == === === ===

    ``tools/model_converters/efficientnet_lite.py`` makes weights for ``init_cfg``. They
    are of RGB images with mean 127 and std 128 in each channel.

    Args:
        arch (str): 'lite0' to 'lite4'. Defaults to 'lite0'.
        granularity (str): 'block' for the map of every block, or 'stage' for that of
            every stage. Defaults to 'stage'.
        finest_stride (int): Stride of the finest map: 4, 2 (with the stem's) or 1 (with
            the image itself). Defaults to 4.
        out_indices (Sequence[int], optional): Which of these maps are handed out, in
            ascending order: for a neck or head that takes fewer. Defaults to None: all.
        output_stride (int): The largest stride: with 16 or 8 later steps of stride 2
            have stride 1, and what follows them is dilated, so that every second pixel
            is what it was. Defaults to 32.
        padding (str): Of convolutions with stride 2. 'same' is TensorFlow's and what
            the weights were trained with: of an even side all of the padding that is
            left over is at its end, and pixel i lies on 2i + 1 of the finer map.
            'symmetric' has it on 2i, where the votes of a decoder are laid around.
            Defaults to 'same'.
        norm_cfg (dict): Normalisation. Defaults to that of the weights: batch norm
            with ``eps=1e-3`` and ``momentum=0.01``.
        act_cfg (dict): Activation. Defaults to ReLU6.
        norm_eval (bool): Whether batch norm keeps its statistics in training.
            Defaults to False.
        init_cfg (dict, optional): Defaults to None, which is mmseg's for its
            MobileNets: Kaiming's for convolutions, 1 for normalisation.

    Raises:
        ValueError: If an argument is none of its choices, or ``out_indices`` is empty,
            not ascending or beyond the maps.
    """

    def __init__(
        self,
        arch: str = 'lite0',
        granularity: str = 'stage',
        finest_stride: int = 4,
        out_indices: Sequence[int] | None = None,
        output_stride: int = 32,
        padding: str = 'same',
        norm_cfg: dict = _NORM,
        act_cfg: dict = _ACT,
        norm_eval: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            init_cfg
            or [
                dict(type='Kaiming', layer='Conv2d'),
                dict(type='Constant', val=1, layer=['_BatchNorm', 'GroupNorm']),
            ]
        )
        check_choice('arch', arch, tuple(_ARCHS))
        check_choice('granularity', granularity, ('block', 'stage'))
        check_choice('finest_stride', finest_stride, (4, 2, 1))
        check_choice('output_stride', output_stride, (32, 16, 8))
        check_choice('padding', padding, ('same', 'symmetric'))
        self.granularity = granularity
        self.finest_stride = finest_stride
        self.norm_eval = norm_eval
        strided = dict(type='Conv2dAdaptivePadding') if padding == 'same' else None
        layers = dict(norm_cfg=norm_cfg, act_cfg=act_cfg)
        self.stem = ConvModule(
            3, _STEM_CHANNELS, 3, stride=2, padding=1, conv_cfg=strided, **layers
        )
        wider, deeper = _ARCHS[arch]
        width, reached, dilation = _STEM_CHANNELS, 2, 1
        # of every map, the image first
        strides, channels = [1, reached], [3, width]
        self.stages = []
        for number, stage in enumerate(_STAGES, 1):
            side, blocks, stride, expansion, out_width = stage
            out_width = make_divisible(out_width * wider, 8)
            if number not in (1, len(_STAGES)):
                blocks = math.ceil(blocks * deeper)
            # its first block still sees the pixels of before
            dilations = [dilation]
            if reached * stride > output_stride:
                dilation, stride = dilation * stride, 1
            reached *= stride
            dilations += [dilation] * (blocks - 1)
            self.add_module(
                f'stage{number}',
                Sequential(
                    *(
                        _InvertedResidual(
                            out_width if place else width,
                            out_width,
                            side,
                            1 if place else stride,
                            expansion,
                            dilations[place],
                            strided,
                            **layers,
                        )
                        for place in range(blocks)
                    )
                ),
            )
            self.stages.append(f'stage{number}')
            width = out_width
            maps = blocks if granularity == 'block' else 1
            strides += [reached] * maps
            channels += [width] * maps
        first = next(i for i, s in enumerate(strides) if s == finest_stride)
        there = range(len(strides) - first)
        indices = tuple(there if out_indices is None else out_indices)
        if not indices or list(indices) != sorted(set(indices) & set(there)):
            raise ValueError(
                f'out_indices must be ascending numbers from 0 to {there[-1]} of the '
                f'{len(there)} maps of granularity={granularity!r} and finest_stride='
                f'{finest_stride}, but got {out_indices!r}'
            )
        self.out_indices = indices
        self.out_channels = [channels[first + index] for index in indices]
        self._handed_out = [first + index for index in indices]

    def train(self, mode: bool = True) -> 'EfficientNetLite':
        """As torch has it; with ``norm_eval`` batch norm stays as in evaluation."""
        super().train(mode)
        if mode and self.norm_eval:
            for module in self.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()
        return self

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) to maps z_0 … z_L, (N, C_l, H_l, W_l), finest first."""
        maps = [x]
        x = self.stem(x)
        maps.append(x)
        for name in self.stages:
            for block in getattr(self, name):
                x = block(x)
                if self.granularity == 'block':
                    maps.append(x)
            if self.granularity == 'stage':
                maps.append(x)
        return tuple(maps[index] for index in self._handed_out)
