# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Detectors that let their RoI head see the backbone's maps."""

from collections.abc import Sequence

from mmdet.models.detectors import MaskRCNN
from mmdet.registry import MODELS
from torch import Tensor


class FeatureMaps(tuple):
    """The maps for RPN and RoI extractors, as everywhere in mmdet, and beside
    them ``encoder``, the backbone's own z_0 …, finest first."""

    encoder: tuple[Tensor, ...]

    def __new__(
        cls, maps: Sequence[Tensor], encoder: Sequence[Tensor]
    ) -> 'FeatureMaps':
        """A tuple of ``maps``."""
        self = super().__new__(cls, maps)
        self.encoder = tuple(encoder)
        return self


class EncoderMaps:
    """A mixin in front of a two-stage detector: hands the backbone's maps to
    the RoI head, from which PVD regresses its votes.

    The backbone may give more maps than the detector itself works on. A neck
    gets the last ones, as many as it has ``in_channels``; without a neck the
    RPN gets the last ones, as many as it has levels (C4: one).
    Adds no parameter and renames none.
    """

    def extract_feat(self, batch_inputs: Tensor) -> FeatureMaps:
        """Images (N, 3, H, W) to maps."""
        encoder = self.backbone(batch_inputs)
        if self.with_neck:
            maps = self.neck(encoder[-len(self.neck.in_channels) :])
        else:
            maps = encoder[-self.rpn_head.prior_generator.num_levels :]
        return FeatureMaps(maps, encoder)


@MODELS.register_module()
class PVDMaskRCNN(EncoderMaps, MaskRCNN):
    """mmdet's ``MaskRCNN`` for a :class:`PVDRoIHead` (section 4.3)."""
