# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The primary mask: a box head's classifier applied to every pixel."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.bbox_heads import BBoxHead, ConvFCBBoxHead
from torch import Tensor, nn
from torch.func import functional_call


def check_box_head(head: nn.Module) -> None:
    """Can :func:`class_activation` be made of this box head?

    Raises:
        TypeError: If its classifier can't be applied to a pixel.
    """
    known = type(head).forward in (BBoxHead.forward, ConvFCBBoxHead.forward)
    if not known or not head.with_cls:
        raise TypeError(
            'the primary mask is the classifier of bbox_head, applied to '
            'every pixel; that is written for BBoxHead and ConvFCBBoxHead '
            f'(Shared2FC…, Shared4Conv1FC…) with a classifier, not for '
            f'{type(head).__name__}'
        )


def class_activation(
    head: nn.Module,
    features: Tensor,
    labels: Tensor | None = None,
    train_classifier: bool = True,
) -> Tensor:
    """The class logits of every pixel of a RoI (section 4.3).

    A pixel's logits are those that ``head`` would give if the whole RoI
    looked like this pixel. For a head that averages the RoI and classifies
    by one linear layer (C4) that is the class activation map of Zhou et al.
    2016, whose average is the RoI's logit. For a head with layers over the
    flattened RoI (FPN) these layers are summed over the pixels.

    Args:
        head (nn.Module): An mmdet ``BBoxHead`` or ``ConvFCBBoxHead``.
        features (Tensor): What the head is given, unpooled, (R, C, H, W).
        labels (Tensor, optional): (R,), the classes that are wanted.
            Defaults to None: all.
        train_classifier (bool): Whether gradients reach the parameters of
            the head; they always reach ``features``. Defaults to True.

    Returns:
        Tensor: (R, num_classes, H, W), without the background; with
        ``labels`` (R, 1, H, W).
    """

    def call(layer: nn.Module, x: Tensor) -> Tensor:
        if train_classifier:
            return layer(x)
        fixed = {name: p.detach() for name, p in layer.named_parameters()}
        return functional_call(layer, fixed, (x,))

    x = features
    for part in ('shared', 'cls'):
        for conv in getattr(head, f'{part}_convs', ()):
            x = call(conv, x)
        for fc in getattr(head, f'{part}_fcs', ()):
            x = F.relu(_per_pixel(fc, x, call))
    logits = _per_pixel(head.fc_cls, x, call)
    if labels is None:
        return logits[:, : head.num_classes]
    rows = torch.arange(len(labels), device=labels.device)
    return logits[rows, labels][:, None]


def _per_pixel(
    fc: nn.Module, x: Tensor, call: Callable[[nn.Module, Tensor], Tensor]
) -> Tensor:
    """A layer over vectors, or over flattened RoIs, at every pixel."""
    channels = x.size(1)
    # not its type: while it is exported, a layer is of a class made for it
    if type(fc).forward is nn.Linear.forward and fc.in_features != channels:
        # as if every pixel of the RoI were this one
        fc = _SummedLinear(fc, channels)
    pixels = x.movedim(1, -1)
    # a list of vectors, as the head has it: NormedLinear counts on that
    vectors = call(fc, pixels.flatten(0, 2))
    return vectors.unflatten(0, pixels.shape[:3]).movedim(-1, 1)


class _SummedLinear(nn.Module):
    """A linear layer over flattened (C, H, W), summed over H and W."""

    def __init__(self, fc: nn.Linear, channels: int) -> None:
        super().__init__()
        self.fc = fc
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        weight = self.fc.weight.unflatten(1, (self.channels, -1)).sum(2)
        return F.linear(x, weight, self.fc.bias)
