# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op as modules: bare, and packed as an upsample layer."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .backends import check_backend
from .checks import FORMULATIONS, check_choice, check_kernel
from .functional import dynamic_deconv2d
from .upsampling import upsampling_kernel


class DynamicDeconv2d(nn.Module):
    """Module form of :func:`pvd_mm.ops.dynamic_deconv2d`.

    It has no parameters: the kernel of every pixel is an input.

    Args:
        kernel_size (int): Side k of the window, odd. Defaults to 3.
        stride (int): The stride s. Defaults to 1.
        padding (int, optional): Defaults to None, which means (k - 1) / 2.
        groups (int): Number G of channel groups with votes of their own.
            Defaults to 1.
        formulation (str): 'exact' or 'factored'. Defaults to 'exact'.
        backend (str): See the function. Defaults to 'auto'.

    Raises:
        TypeError, ValueError: As the function, as soon as it is built.
    """

    def __init__(
        self,
        kernel_size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        formulation: str = 'exact',
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        self.padding = check_kernel(kernel_size, stride, padding, groups)
        check_choice('formulation', formulation, FORMULATIONS)
        check_backend(backend)  # refuses an unknown one
        self.kernel_size = kernel_size
        self.stride = stride
        self.groups = groups
        self.formulation = formulation
        self.backend = backend

    def forward(
        self, input: Tensor, votes: Tensor, output_size: Sequence[int] | None = None
    ) -> Tensor:
        """Decode ``input`` (N, C, H, W) by ``votes`` (N, G·k², H, W) to
        (N, C, H', W'); see :func:`pvd_mm.ops.dynamic_deconv2d`."""
        return dynamic_deconv2d(
            input,
            votes,
            self.kernel_size,
            self.stride,
            self.padding,
            output_size,
            self.groups,
            self.formulation,
            self.backend,
        )

    def extra_repr(self) -> str:
        """The arguments."""
        return (
            f'kernel_size={self.kernel_size}, stride={self.stride}, '
            f'padding={self.padding}, groups={self.groups}, '
            f'formulation={self.formulation!r}, '
            f'backend={self.backend!r}'
        )


class DynamicDeconv2dPack(nn.Module):
    """An upsample layer that regresses the votes from its own input.

    What ``CARAFEPack`` is to CARAFE. Registered as ``pixel_voting``, so that
    ``build_upsample_layer(dict(type='pixel_voting', channels=256,
    scale_factor=2))`` builds it. It starts as bilinear upsampling.

    Args:
        channels (int): Channels C of the input.
        scale_factor (int): Upsampling factor s. Defaults to 2.
        kernel_size (int): Side k of the window, odd, at least s.
            Defaults to 3.
        groups (int): Number G of channel groups with votes of their own.
            Defaults to 1.
        compressed_channels (int): Channels between the two convolutions that
            regress the votes. Defaults to 64.
        formulation (str): 'exact' or 'factored'. Defaults to 'exact'.
        backend (str): Defaults to 'auto'.

    Raises:
        ValueError: If ``groups`` does not divide ``channels``, or the kernel
            does not fit the factor.
    """

    def __init__(
        self,
        channels: int,
        scale_factor: int = 2,
        kernel_size: int = 3,
        groups: int = 1,
        compressed_channels: int = 64,
        formulation: str = 'exact',
        backend: str = 'auto',
    ) -> None:
        super().__init__()
        if channels % groups:
            raise ValueError(
                f'groups must divide channels={channels}, but got groups={groups}'
            )
        self.deconv = DynamicDeconv2d(
            kernel_size,
            scale_factor,
            groups=groups,
            formulation=formulation,
            backend=backend,
        )
        self.scale_factor = scale_factor
        self.compress = nn.Sequential(
            nn.Conv2d(channels, compressed_channels, 1), nn.ReLU(inplace=True)
        )
        self.votes = nn.Conv2d(compressed_channels, groups * kernel_size**2, 1)
        self.init_weights()

    def init_weights(self) -> None:
        """Start as bilinear upsampling. mmengine calls it after a parent's ``init_cfg``
        has initialised all convolutions in it."""
        start = upsampling_kernel(self.deconv.kernel_size, self.scale_factor)
        nn.init.zeros_(self.votes.weight)
        with torch.no_grad():
            self.votes.bias.copy_(start.flatten().repeat(self.deconv.groups))

    def forward(self, x: Tensor) -> Tensor:
        """Upsample ``x`` from (N, C, H, W) to (N, C, s·H, s·W)."""
        return self.deconv(x, self.votes(self.compress(x)))
