# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op in mmengine's complexity analysis."""

import torch
from mmengine.analysis import ActivationAnalyzer, FlopAnalyzer, complexity_analysis

from pvd_mm.decoder import DecodingStep
from pvd_mm.decoder.complexity import register_op


def test_mmengine_counts_the_op():
    step = DecodingStep(4, 6, 5, vote_channels=2)
    maps = torch.rand(1, 4, 8, 6), torch.rand(1, 6, 4, 3), torch.rand(1, 5, 4, 3)
    for analyzer, count in (
        (FlopAnalyzer, 5 * 4 * 3 * 9),
        (ActivationAnalyzer, 5 * 8 * 6),
    ):
        analysis = analyzer(_Traced(step), maps)
        assert analysis.by_operator()['dynamic_deconv2d'] == count
        assert 'pvd_mm::dynamic_deconv2d' not in analysis.unsupported_ops()


class _Traced(torch.nn.Module):
    """A step of stride 2; a trace takes tensors alone."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def forward(self, *maps):
        return self.step(*maps, 2)


def test_mmengine_without_its_tables(monkeypatch):
    """They are private: a version without them must not break the import."""
    for table in ('_DEFAULT_SUPPORTED_ACT_OPS', '_DEFAULT_SUPPORTED_FLOP_OPS'):
        monkeypatch.delattr(complexity_analysis, table)
    register_op()
