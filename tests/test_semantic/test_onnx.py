# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Export to ONNX, run by onnxruntime."""

import pytest
import torch

from helpers.torch_features import Dim, needs_automatic_sizes
from pvd_mm.semantic import PVDHead

onnx = pytest.importorskip('onnx', reason='onnx is not installed')
ort = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
pytest.importorskip('onnxscript', reason='onnxscript is not installed')


def maps(height, width):
    """What a backbone gives: strides 1 and 2, sizes rounded up."""
    half = -(-height // 2), -(-width // 2)
    sizes = (height, width), (height, width), half
    return [torch.randn(1, c, *size) for c, size in zip((4, 6, 8), sizes)]


@needs_automatic_sizes
@pytest.mark.parametrize('formulation', ('exact', 'factored'))
def test_head(formulation, tmp_path):
    """Standard operators, dynamic height and width, equal logits."""
    torch.manual_seed(0)
    head = PVDHead(
        [4, 6, 8],
        num_classes=5,
        decoder=dict(formulation=formulation),
        norm_cfg=dict(type='BN'),
    ).eval()
    for step in head.decoder.steps:
        torch.nn.init.normal_(step.association.conv_votes.weight)
    sides = {2: Dim.AUTO, 3: Dim.AUTO}
    path = tmp_path / 'head.onnx'
    torch.onnx.export(
        head, (maps(16, 24),), path, dynamo=True, dynamic_shapes=([sides] * 3,)
    )
    graph = onnx.load(path).graph
    assert {node.domain for node in graph.node} == {''}
    session = ort.InferenceSession(path, providers=['CPUExecutionProvider'])
    for size in ((16, 24), (32, 40), (13, 21)):
        inputs = maps(*size)
        (found,) = session.run(
            None, {one.name: x.numpy() for one, x in zip(session.get_inputs(), inputs)}
        )
        with torch.no_grad():
            expected = head(inputs)
        assert found.shape == (1, 5, *size)
        torch.testing.assert_close(torch.from_numpy(found), expected, atol=1e-4, rtol=0)
