# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Detectors that let their RoI head see the backbone's maps."""

from collections.abc import Sequence

from mmdet.models.detectors import MaskRCNN, TwoStageDetector
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from pvd_mm.decoder.config import given_arguments

NEEDS_ENCODER_MAPS = (
    "PVDRoIHead needs the backbone's maps: give the detector type='PVDMaskRCNN', or "
    'put pvd_mm.instance.EncoderMaps in front of its class'
)


class FeatureMaps(tuple):
    """The maps for RPN and RoI extractors, as everywhere in mmdet, and beside
    them ``encoder``, the backbone's own z_0 …, finest first, and ``votes``, those of
    its steps where a detector regresses them once for several heads, else None."""

    encoder: tuple[Tensor, ...]
    votes: tuple[Tensor, ...] | None

    def __new__(
        cls,
        maps: Sequence[Tensor],
        encoder: Sequence[Tensor],
        votes: Sequence[Tensor] | None = None,
    ) -> 'FeatureMaps':
        """A tuple of ``maps``."""
        self = super().__new__(cls, maps)
        self.encoder = tuple(encoder)
        self.votes = None if votes is None else tuple(votes)
        return self

    def __getnewargs__(self) -> tuple:
        """What a copy is made of, or an unpickled one."""
        return tuple(self), self.encoder, self.votes


class EncoderMaps:
    """A mixin in front of a two-stage detector: hands the backbone's maps to
    the RoI head, from which PVD regresses its votes.

    The backbone may give more maps than the detector itself works on. A neck
    gets the last ones, as many as it, or the first of a list of necks, has
    ``in_channels``; without a neck the RPN gets the last ones, as many as it
    has levels (C4: one), and without an RPN the RoI head. Of a backbone that
    hands out every block these are the maps of the stages.
    Adds no parameter and renames none.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        # not every neck keeps its in_channels
        self._neck = given_arguments(super().__init__, args, kwargs).get('neck')

    def extract_feat(self, batch_inputs: Tensor) -> FeatureMaps:
        """Images (N, 3, H, W) to maps."""
        encoder = self.backbone(batch_inputs)
        stages = [encoder[i] for i in getattr(self.backbone, 'stage_indices', ())]
        number = self._number_of_inputs() or len(stages)
        maps = (stages if number <= len(stages) else encoder)[-number:]
        return FeatureMaps(self.neck(maps) if self.with_neck else maps, encoder)

    def _number_of_inputs(self) -> int | None:
        """How many maps the detector works on; None if its neck does not say."""
        if not self.with_neck:
            if self.with_rpn:
                return self.rpn_head.prior_generator.num_levels
            if not self.with_roi_head:
                return None
            return self.roi_head.bbox_roi_extractor.num_inputs
        neck, config = self.neck, self._neck
        if isinstance(config, (list, tuple)):
            neck, config = neck[0], config[0]
        for channels in (getattr(neck, 'in_channels', None), config.get('in_channels')):
            if isinstance(channels, (list, tuple)):
                return len(channels)
        return getattr(neck, 'num_levels', None)


def _refuse_to_keep_maps(module: nn.Module, name: str, child: nn.Module) -> None:
    """Say at once that a detector hands out no maps that its RoI head needs:
    else its neck or its RPN, which may be given too many, fails before that."""
    if (
        isinstance(module, TwoStageDetector)
        and type(module).extract_feat is TwoStageDetector.extract_feat
        and getattr(child, 'needs_encoder_maps', False)
    ):
        raise TypeError(NEEDS_ENCODER_MAPS)


# A module is not told which one it becomes a part of, but for this.
register_module_module_registration_hook(_refuse_to_keep_maps)


@MODELS.register_module()
class PVDMaskRCNN(EncoderMaps, MaskRCNN):
    """mmdet's ``MaskRCNN`` for a :class:`PVDRoIHead` (section 4.3)."""
