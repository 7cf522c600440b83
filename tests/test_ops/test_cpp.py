# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The C++ backend, called directly, against the two in Python."""
import os
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pvd_mm.ops.backends import cpp, matrix, reference
from pvd_mm.ops.checks import check_arguments

# Not silently green where the extension is missing: that takes PVD_MM_OPS=0.
pytestmark = pytest.mark.skipif(
    os.environ.get('PVD_MM_OPS') == '0'
    and bool(cpp.why_not(torch.device('cpu'), torch.float32)),
    reason='PVD_MM_OPS=0, and the extension is not built')

FORMULATIONS = ('exact', 'factored')
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.half)
LAYOUTS = ('contiguous', 'channels_last', 'expanded', 'transposed', 'sliced')
BOTH = (True, True)

formulations = pytest.mark.parametrize('formulation', FORMULATIONS)
many = settings(max_examples=150, deadline=None, derandomize=True,
                suppress_health_check=list(HealthCheck))


@pytest.fixture(autouse=True, scope='module')
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_it_is_built():
    assert cpp.why_not(torch.device('cpu'), torch.float32) is None


def lay_out(tensor, layout):
    """The same numbers in other strides; 'expanded' repeats some of them."""
    if layout == 'channels_last':
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == 'transposed':
        return tensor.transpose(2, 3).contiguous().transpose(2, 3)
    if layout == 'sliced':
        n, c, h, w = tensor.shape
        big = tensor.new_full((n, c + 1, h + 2, 2 * w + 1), float('nan'))
        part = big[:, 1:, 1:-1, 1::2]
        return part.copy_(tensor)
    if layout == 'expanded' and tensor.numel():
        return tensor[:, :, :1, :].expand_as(tensor)
    return tensor


@st.composite
def cases(draw, wide=False):
    kernel_size = draw(st.sampled_from((3, 3, 3, 1, 5, 7)))
    stride = draw(st.sampled_from((1, 2, 2, 3, 4)))
    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(0 if not wide else 1, 4))
    n = draw(st.integers(0, 2) if not wide else st.integers(1, 2))
    if wide:
        h, w = draw(st.integers(1, 5)), draw(
            st.integers(1, 70) | st.sampled_from((255, 256, 257, 300, 515)))
    else:
        h, w = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    most = min(((min(h, w) - 1) * stride + kernel_size + stride - 1) // 2,
               2 * kernel_size)
    padding = draw(st.just((kernel_size - 1) // 2) | st.integers(0, most))
    least = [max(0, (side - 1) * stride - 2 * padding + kernel_size)
             for side in (h, w)]
    high = [(side - 1) * stride - 2 * padding + kernel_size + stride - 1
            for side in (h, w)]
    size = None
    if min(high) < 0 or draw(st.booleans()):
        size = [draw(st.integers(a, max(a, b))) for a, b in zip(least, high)]
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    maps = [
        lay_out(
            torch.randn(n, c, h, w, generator=generator,
                        dtype=torch.float64).to(dtype),
            draw(st.sampled_from(LAYOUTS)))
        for c in (channels, groups * kernel_size**2)
    ]
    formulation = draw(st.sampled_from(FORMULATIONS))
    geometry = check_arguments(*maps, kernel_size, stride, padding, size,
                               groups, formulation)
    grad = lay_out(
        torch.randn(n, channels, *geometry.output_size, generator=generator,
                    dtype=torch.float64).to(dtype),
        draw(st.sampled_from(LAYOUTS)))
    return (*maps, grad, geometry, formulation)


def wanted_format(like):
    if not like.is_contiguous() and like.is_contiguous(
            memory_format=torch.channels_last):
        return torch.channels_last
    return torch.contiguous_format


def compare(found, truth, like):
    """Against double precision, in which the numbers are the same."""
    assert found.dtype == like.dtype
    assert found.is_contiguous(memory_format=wanted_format(like))
    eps = torch.finfo(found.dtype).eps
    scale = 8. if found.dtype in (torch.float32, torch.float64) else 1.
    torch.testing.assert_close(
        found.double(), truth, rtol=2 * scale * eps, atol=8 * scale * eps,
        equal_nan=True)


def check(input, votes, grad, geometry, formulation, oracle):
    exact = [x.double() for x in (grad, input, votes)]
    compare(cpp.forward(input, votes, geometry, formulation),
            oracle.forward(*exact[1:], geometry, formulation), input)
    truth = oracle.backward(*exact, geometry, formulation, BOTH)
    for needs in (BOTH, (True, False), (False, True)):
        grads = cpp.backward(grad, input, votes, geometry, formulation, needs)
        for need, one, other, like in zip(needs, grads, truth,
                                          (input, votes)):
            if need:
                compare(one, other, like)
            else:
                assert one is None


@many
@given(cases())
def test_like_reference(case):
    check(*case, reference)


@many
@given(cases(wide=True))
def test_wide_rows_like_matrix(case):
    check(*case, matrix)
