# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The Pixel Voting Decoder; it knows nothing of mmseg or mmdet."""

from mmengine.registry import MODELS

from pvd_mm.ops import DynamicDeconv2dPack

from .association import PixelAssociation
from .complexity import register_op
from .config import decoder_config, refuse_arguments, refuse_decoder_arguments
from .intermediate_maps import IntermediateMaps
from .layers import ConcatConv
from .pyramid_context import PyramidContext
from .step import DecodingStep
from .voting_decoder import PixelVotingDecoder

# The op's module can't register itself: it knows torch alone. As mmcv does it, the
# upsample layer has the name of what it does, and none that holds "conv": that is
# for layers that are built from in_channels, out_channels and kernel_size. The bare
# op is not registered, as CARAFE's is not.
MODELS.register_module(name='pixel_voting', module=DynamicDeconv2dPack)
MODELS.register_module(module=PixelVotingDecoder)
register_op()

__all__ = [
    'ConcatConv',
    'DecodingStep',
    'IntermediateMaps',
    'PixelAssociation',
    'PixelVotingDecoder',
    'PyramidContext',
    'decoder_config',
    'refuse_arguments',
    'refuse_decoder_arguments',
]
