# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Adaptive pooling beside torch's own, and in a file for maps of any size."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from helpers.torch_features import needs_automatic_sizes
from pvd_mm.apis.export.adaptive_pooling import adaptive_avg_pool2d, use_matrix_pooling

SIZES = ((6, 12), (1, 5), (7, 4), (13, 19), (16, 32))


@pytest.mark.parametrize('output', [1, 2, 3, 6, (2, 5), (None, 3), (1, 4)], ids=str)
@pytest.mark.parametrize('size', SIZES, ids=str)
def test_it_is_torchs(size, output):
    image = torch.rand(2, 3, *size)
    for given in (image, image[0]):
        found = adaptive_avg_pool2d(given, output)
        torch.testing.assert_close(found, F.adaptive_avg_pool2d(given, output))


def test_for_a_while():
    image, pool = torch.rand(1, 1, 5, 7).double(), nn.AdaptiveAvgPool2d(3)
    own = F.adaptive_avg_pool2d
    with pytest.raises(KeyError), use_matrix_pooling():
        assert F.adaptive_avg_pool2d is not own
        inside = pool(image)
        raise KeyError
    assert F.adaptive_avg_pool2d is own
    torch.testing.assert_close(inside, pool(image))


@needs_automatic_sizes
def test_a_file_for_any_size(tmp_path):
    for name in ('onnx', 'onnxscript'):
        pytest.importorskip(name, reason=f'{name} is not installed')
    ort = pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
    pool, path = nn.AdaptiveAvgPool2d(6).eval(), str(tmp_path / 'pool.onnx')
    auto = torch.export.Dim.DYNAMIC
    with use_matrix_pooling():
        torch.onnx.export(
            pool,
            (torch.rand(2, 3, 4, 8),),
            path,
            dynamo=True,
            input_names=['x'],
            dynamic_shapes=({0: auto, 2: auto, 3: auto},),
            verbose=False,
        )
    session = ort.InferenceSession(path, providers=['CPUExecutionProvider'])
    for size in SIZES:
        image = torch.rand(1, 3, *size)
        (found,) = session.run(None, dict(x=image.numpy()))
        np.testing.assert_allclose(found, pool(image), atol=1e-6)
