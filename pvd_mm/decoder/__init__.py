# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The Pixel Voting Decoder; it knows nothing of mmseg or mmdet."""

from mmengine.analysis import complexity_analysis
from mmengine.analysis.jit_handles import generic_activation_jit
from mmengine.registry import MODELS

from pvd_mm.ops import DynamicDeconv2d, DynamicDeconv2dPack, deconv_macs

from .association import PixelAssociation
from .intermediate_maps import IntermediateMaps
from .layers import ConcatConv
from .step import DecodingStep
from .voting_decoder import PixelVotingDecoder

# The op's modules can't register themselves: they know torch alone. The names
# follow mmcv: the bare layer by its class, the upsample layer as CARAFE's.
MODELS.register_module(name='DynamicDeconv2d', module=DynamicDeconv2d)
MODELS.register_module(name='dynamic_deconv2d', module=DynamicDeconv2dPack)
MODELS.register_module(module=PixelVotingDecoder)


def _macs_of_traced_op(inputs, outputs) -> int:
    input, _, kernel_size, _, _, _, groups, formulation, _ = inputs
    return deconv_macs(
        input.type().sizes(),
        outputs[0].type().sizes(),
        kernel_size.toIValue(),
        groups.toIValue(),
        formulation.toIValue(),
    )


# mmengine has no function that adds an operator to all its analyzers.
complexity_analysis._DEFAULT_SUPPORTED_ACT_OPS['pvd_mm::dynamic_deconv2d'] = (
    generic_activation_jit()
)
complexity_analysis._DEFAULT_SUPPORTED_FLOP_OPS['pvd_mm::dynamic_deconv2d'] = (
    _macs_of_traced_op
)

__all__ = [
    'ConcatConv',
    'DecodingStep',
    'IntermediateMaps',
    'PixelAssociation',
    'PixelVotingDecoder',
]
