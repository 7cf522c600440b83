# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op in mmengine's complexity analysis; torch's own counter knows it from
:mod:`pvd_mm.ops`."""

from mmengine.analysis import complexity_analysis
from mmengine.analysis.jit_handles import generic_activation_jit

from pvd_mm.ops import deconv_macs

_OP = 'pvd_mm::dynamic_deconv2d'


def _macs(inputs, outputs) -> int:
    """Of the op's node in a traced graph."""
    input, _, kernel_size, _, _, _, groups, formulation, _ = inputs
    return deconv_macs(
        input.type().sizes(),
        outputs[0].type().sizes(),
        kernel_size.toIValue(),
        groups.toIValue(),
        formulation.toIValue(),
    )


def register_op() -> None:
    """Make all of mmengine's analyzers count the op.

    mmengine 0.10.7 has no public function for that: ``set_op_handle`` is one
    analyzer's. Where its tables are gone, the analyzers say that they skip
    the op, as they do of any that they don't know.
    """
    handles = dict(
        _DEFAULT_SUPPORTED_ACT_OPS=generic_activation_jit(),
        _DEFAULT_SUPPORTED_FLOP_OPS=_macs,
    )
    for table, handle in handles.items():
        getattr(complexity_analysis, table, {})[_OP] = handle
