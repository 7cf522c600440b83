# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Export to ONNX, run by onnxruntime, and by ``torch.jit.trace``."""

import warnings

import pytest
import torch
from mmseg.registry import MODELS

from helpers.torch_features import OLDER_EXPORTER, Dim, needs_automatic_sizes
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
@pytest.mark.parametrize(
    'decoder',
    (
        dict(formulation='exact'),
        dict(formulation='factored'),
        dict(upsampling='dysample'),
    ),
)
def test_head(decoder, tmp_path):
    """Standard operators, dynamic height and width, equal logits."""
    torch.manual_seed(0)
    head = PVDHead(
        [4, 6, 8],
        num_classes=5,
        decoder=decoder,
        norm_cfg=dict(type='BN'),
    ).eval()
    for name, parameter in head.named_parameters():
        if 'conv_votes.weight' in name or 'control' in name:
            torch.nn.init.normal_(parameter)
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


def segmentor(formulation):
    torch.manual_seed(0)
    norm = dict(type='BN')
    backbone = dict(
        type='PVDResNetV1c', depth=18, stem_channels=8, base_channels=8, norm_cfg=norm
    )
    head = dict(
        type='PVDHead',
        in_channels=[8, 8, 16, 32, 64],
        num_classes=5,
        norm_cfg=norm,
        decoder=dict(formulation=formulation, vote_channels=8),
    )
    model = MODELS.build(
        dict(type='EncoderDecoder', backbone=backbone, decode_head=head)
    )
    for step in model.decode_head.decoder.steps:
        torch.nn.init.normal_(step.association.conv_votes.weight)
    return model.eval()


SIZES = (64, 96), (97, 131), (128, 64)


@pytest.mark.parametrize('formulation', ('exact', 'factored'))
def test_traced_segmentor(formulation):
    """It takes other sizes than the example's, as mmseg's own heads do, and says
    nothing of its own while it is traced."""
    model = segmentor(formulation)
    with torch.no_grad(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always', torch.jit.TracerWarning)
        traced = torch.jit.trace(model, torch.rand(1, 3, *SIZES[0]), check_trace=False)
    assert not [each for each in told if 'pvd_mm' in each.filename]
    with torch.no_grad():
        for size in SIZES:
            images = torch.rand(2, 3, *size)
            torch.testing.assert_close(traced(images), model(images))


@pytest.mark.parametrize('formulation', ('exact', 'factored'))
def test_segmentor_by_the_older_exporter(formulation, tmp_path):
    model = segmentor(formulation)
    path = str(tmp_path / 'segmentor.onnx')
    sides = {0: 'batch', 2: 'height', 3: 'width'}
    torch.onnx.export(
        model,
        torch.rand(1, 3, *SIZES[0]),
        path,
        input_names=['images'],
        output_names=['logits'],
        dynamic_axes=dict(images=sides, logits=sides),
        opset_version=17,
        **OLDER_EXPORTER,
    )
    assert {node.domain for node in onnx.load(path).graph.node} == {''}
    session = ort.InferenceSession(path, providers=['CPUExecutionProvider'])
    for size in SIZES:
        images = torch.rand(2, 3, *size)
        (found,) = session.run(None, dict(images=images.numpy()))
        with torch.no_grad():
            expected = model(images)
        torch.testing.assert_close(
            torch.from_numpy(found), expected, atol=1e-4, rtol=1e-4
        )
