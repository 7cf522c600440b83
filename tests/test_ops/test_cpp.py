# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The C++ backend, called directly, against the two in Python.

Not silently green where the extension is missing: all of it fails there,
unless PVD_MM_OPS=0 says that this is meant.
"""

import os
import subprocess
import sys
import threading

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.op_results import compare
from pvd_mm.ops.backends import cpp, matrix, reference
from pvd_mm.ops.checks import check_arguments

pytestmark = pytest.mark.skipif(
    os.environ.get('PVD_MM_OPS') == '0'
    and bool(cpp.why_not(torch.device('cpu'), torch.float32)),
    reason='PVD_MM_OPS=0, and the extension is not built',
)

FORMULATIONS = ('exact', 'factored')
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.half)
LAYOUTS = (
    'contiguous',
    'channels_last',
    'expanded',
    'transposed',
    'sliced',
    'some_channels',
)
BOTH = (True, True)

formulations = pytest.mark.parametrize('formulation', FORMULATIONS)
formats = pytest.mark.parametrize('layout', ('contiguous', 'channels_last'))
many = settings(
    max_examples=250,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.fixture(autouse=True, scope='module')
def _threads():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_it_is_built():
    assert cpp.why_not(torch.device('cpu'), torch.float32) is None


def test_where_it_cannot_run(tmp_path):
    assert 'on meta' in cpp.why_not(torch.device('meta'), torch.float32)
    assert 'float8' in cpp.why_not(torch.device('cpu'), torch.float8_e5m2)
    found, problem = cpp._find(tmp_path, '2.13.0+cpu')
    assert found is None and 'not built' in problem
    assert '--no-build-isolation' in problem
    (tmp_path / '_cpp_torch2_9.so').touch()
    found, problem = cpp._find(tmp_path, '2.13.0+cpu')
    assert found is None and 'for torch 2.9, and this is 2.13' in problem
    assert cpp._find(tmp_path, '2.9.1')[0] == tmp_path / '_cpp_torch2_9.so'


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
    if layout == 'some_channels':  # of a map in channels_last format
        n, c, h, w = tensor.shape
        big = tensor.new_full((n, h, w, c + 2), float('nan'))
        return big[..., 1:-1].permute(0, 3, 1, 2).copy_(tensor)
    if layout == 'expanded' and tensor.numel():
        return tensor[:, :, :1, :].expand_as(tensor)
    return tensor


@st.composite
def cases(draw, wide=False, special=()):
    """Maps, a gradient, a geometry and a formulation; some numbers of the
    maps are among ``special``."""
    kernel_size = draw(st.sampled_from((3, 3, 3, 1, 5, 7)))
    stride = draw(st.sampled_from((1, 2, 2, 3, 4)))
    groups = draw(st.integers(1, 3))
    channels = groups * draw(
        st.integers(0 if not wide else 1, 4) | st.sampled_from((7, 8, 9, 16, 19, 35))
    )
    n = draw(st.integers(0, 2) if not wide else st.integers(1, 2))
    if wide:
        h, w = (
            draw(st.integers(1, 5)),
            draw(st.integers(1, 70) | st.sampled_from((255, 256, 257, 300, 515))),
        )
    else:
        h, w = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    most = min(
        ((min(h, w) - 1) * stride + kernel_size + stride - 1) // 2, 2 * kernel_size
    )
    padding = draw(st.just((kernel_size - 1) // 2) | st.integers(0, most))
    least = [max(0, (side - 1) * stride - 2 * padding + kernel_size) for side in (h, w)]
    high = [
        (side - 1) * stride - 2 * padding + kernel_size + stride - 1 for side in (h, w)
    ]
    size = None
    if min(high) < 0 or draw(st.booleans()):
        size = [draw(st.integers(a, max(a, b))) for a, b in zip(least, high)]
    dtype = draw(st.sampled_from(DTYPES))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**20)))
    layouts = iter(
        draw(
            st.sampled_from(
                [
                    ('channels_last',) * 3,
                    ('channels_last', 'contiguous', 'channels_last'),
                ]
            )
            | st.tuples(*[st.sampled_from(LAYOUTS)] * 3)
        )
    )

    def random(*shape):
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        for value in special:
            x[torch.rand(shape, generator=generator) < 0.03] = value
        return lay_out(x.to(dtype), next(layouts))

    maps = [random(n, c, h, w) for c in (channels, groups * kernel_size**2)]
    formulation = draw(st.sampled_from(FORMULATIONS))
    geometry = check_arguments(
        *maps, kernel_size, stride, padding, size, groups, formulation
    )
    grad = random(n, channels, *geometry.output_size)
    return (*maps, grad, geometry, formulation)


def check(input, votes, grad, geometry, formulation, oracle):
    exact = [x.double() for x in (grad, input, votes)]
    compare(
        cpp.forward(input, votes, geometry, formulation),
        oracle.forward(*exact[1:], geometry, formulation),
        input,
    )
    truth = oracle.backward(*exact, geometry, formulation, BOTH)
    for needs in (BOTH, (True, False), (False, True)):
        grads = cpp.backward(grad, input, votes, geometry, formulation, needs)
        for need, one, other, like in zip(needs, grads, truth, (input, votes)):
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


@many
@given(cases(special=(float('inf'), -float('inf'), float('nan'))))
def test_inf_and_nan_like_reference(case):
    """They stay where the windows take them: no masked 0 times inf."""
    check(*case, reference)


@many
@given(cases(wide=True, special=(float('inf'), float('nan'))))
def test_inf_and_nan_in_wide_rows(case):
    check(*case, matrix)


@pytest.mark.parametrize('shape', [(1, 1, 255, 257), (1, 51, 5, 257)])
@formats
def test_half_is_rounded_like_torch(shape, layout):
    """All of its numbers but a NaN, times some that make ties, infinities and
    numbers below the smallest normal one."""
    bits = torch.arange(-(2**15), 2**15 - 1, dtype=torch.int16)
    input = lay_out(bits.view(torch.half).reshape(shape), layout)
    for factor in (1.0, 1 / 3, 1.5, -3e-5, 2.0**-11, 60000.0):
        votes = torch.full_like(input[:, :1], factor)
        geometry = check_arguments(input, votes, 1, 1, None, None, 1, 'exact')
        found = cpp.forward(input, votes, geometry, 'exact')
        truth = (0.0 + input.float() * votes.float()).half()
        same = found.view(torch.int16) == truth.view(torch.int16)
        assert (same | found.isnan() & truth.isnan()).all()


@pytest.mark.parametrize('capability', ('default', 'avx2'))
def test_older_processors(capability):
    """The kernels that this processor does not choose by itself."""
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pytest',
            '-q',
            '-p',
            'no:cacheprovider',
            __file__,
            '-k',
            'like_reference or wide_rows or like_torch',
        ],
        env={**os.environ, 'ATEN_CPU_CAPABILITY': capability},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert '8 passed' in done.stdout


def make(
    n=1,
    c=4,
    h=6,
    w=40,
    kernel_size=3,
    stride=2,
    groups=1,
    formulation='exact',
    dtype=torch.float32,
    layout='contiguous',
):
    def random(*shape):
        return lay_out(torch.randn(shape, dtype=dtype), layout)

    maps = [random(n, channels, h, w) for channels in (c, groups * kernel_size**2)]
    geometry = check_arguments(
        *maps, kernel_size, stride, None, None, groups, formulation
    )
    grad = random(n, c, *geometry.output_size)
    return (*maps, grad, geometry, formulation)


@formulations
@formats
@pytest.mark.parametrize(
    'shape', [(0, 8, 3, 3), (2, 0, 3, 3), (2, 8, 0, 3), (2, 8, 3, 0), (0, 0, 0, 0)]
)
@pytest.mark.parametrize('kernel_size,stride', [(3, 1), (3, 2), (5, 3)])
def test_empty_maps(formulation, layout, shape, kernel_size, stride):
    check(
        *make(*shape, kernel_size, stride, formulation=formulation, layout=layout),
        reference,
    )


@formulations
@formats
def test_no_input_but_an_output(formulation, layout):
    """Without padding the windows' own margin is left."""
    input, votes = (
        lay_out(torch.ones(2, channels, 0, 0), layout) for channels in (8, 9)
    )
    geometry = check_arguments(input, votes, 3, 2, 0, None, 1, formulation)
    output = cpp.forward(input, votes, geometry, formulation)
    assert output.shape == (2, 8, 2, 2) and not output.any()


@formulations
@formats
def test_aliases(formulation, layout):
    """Input, votes and gradient may be the same memory."""
    _, votes, _, geometry, _ = make(
        c=9, h=8, w=36, stride=1, formulation=formulation, layout=layout
    )
    check(votes, votes, votes, geometry, formulation, matrix)


@formulations
@formats
@pytest.mark.parametrize('stride', (1, 2, 3))
def test_threads_do_not_change_a_bit(formulation, layout, stride):
    case = make(
        2, 22, 61, 70, stride=stride, groups=2, formulation=formulation, layout=layout
    )
    input, votes, grad, *rest = case
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        results.append(
            (
                cpp.forward(input, votes, *rest),
                *cpp.backward(grad, input, votes, *rest, BOTH),
            )
        )
    torch.set_num_threads(1)
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


def test_two_threads_at_once():
    work = [
        make(c=9, h=30, w=50, stride=s, formulation=f, layout=layout)
        for s in (1, 2)
        for f in FORMULATIONS
        for layout in ('contiguous', 'channels_last')
    ]
    truth = [cpp.forward(m, v, *rest) for m, v, _, *rest in work]
    grads = [cpp.backward(g, m, v, *rest, BOTH) for m, v, g, *rest in work]
    failures = []

    def run():
        for _ in range(20):
            for (m, v, g, *rest), one, two in zip(work, truth, grads):
                if not torch.equal(cpp.forward(m, v, *rest), one):
                    failures.append(rest)
                found = cpp.backward(g, m, v, *rest, BOTH)
                if not all(map(torch.equal, found, two)):
                    failures.append(rest)

    threads = [threading.Thread(target=run) for _ in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert not failures


@formulations
@pytest.mark.parametrize('dtype', (torch.float32, torch.half))
@pytest.mark.parametrize('layout', ('contiguous', 'channels_last', 'sliced'))
def test_it_allocates_its_results_only(formulation, dtype, layout):
    from benchmarks.memory import MIB, peak_memory

    input, votes, grad, *rest = make(
        c=8, h=64, w=64, formulation=formulation, dtype=dtype, layout=layout
    )
    size = input.element_size()
    peak = peak_memory(lambda: cpp.forward(input, votes, *rest), 'cpu') * MIB
    assert peak == pytest.approx(grad.numel() * size, abs=4096)
    peak = (
        peak_memory(lambda: cpp.backward(grad, input, votes, *rest, BOTH), 'cpu') * MIB
    )
    assert peak == pytest.approx((input.numel() + votes.numel()) * size, abs=4096)


def test_the_operator_itself_refuses_what_does_not_fit():
    """Whoever calls it past the checks gets an error, and no crash."""
    assert cpp.why_not(torch.device('cpu'), torch.float32) is None
    op = torch.ops.pvd_mm_cpp.forward
    input, votes = torch.ones(1, 4, 3, 3), torch.ones(1, 9, 3, 3)
    for bad in (
        (input, votes[:, :8], 3, 1, 1, 3, 3, 1, False),
        (input, votes[:, :, :2], 3, 1, 1, 3, 3, 1, False),
        (input, votes.double(), 3, 1, 1, 3, 3, 1, False),
        (input, votes, 3, 0, 1, 3, 3, 1, False),
        (input, votes, 3, 1, 1, 3, 3, 3, False),
        (input[0], votes, 3, 1, 1, 3, 3, 1, False),
    ):
        with pytest.raises(RuntimeError):
            op(*bad)
