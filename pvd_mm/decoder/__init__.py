# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The Pixel Voting Decoder; it knows nothing of mmseg or mmdet."""

from mmengine.registry import MODELS

from pvd_mm.ops import DynamicDeconv2d, DynamicDeconv2dPack

from .association import PixelAssociation
from .complexity import register_op
from .config import decoder_config, refuse_decoder_arguments
from .intermediate_maps import IntermediateMaps
from .layers import ConcatConv
from .step import DecodingStep
from .voting_decoder import PixelVotingDecoder

# The op's modules can't register themselves: they know torch alone. The names
# follow mmcv: the bare layer by its class, the upsample layer as CARAFE's.
MODELS.register_module(name='DynamicDeconv2d', module=DynamicDeconv2d)
MODELS.register_module(name='dynamic_deconv2d', module=DynamicDeconv2dPack)
MODELS.register_module(module=PixelVotingDecoder)
register_op()

__all__ = [
    'ConcatConv',
    'DecodingStep',
    'IntermediateMaps',
    'PixelAssociation',
    'PixelVotingDecoder',
    'decoder_config',
    'refuse_decoder_arguments',
]
