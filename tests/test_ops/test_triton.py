# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The Triton kernels, called directly.

Without a GPU they run in Triton's interpreter, which must be chosen before
triton is imported, and then holds for the whole process. So the functions
named ``check_*`` run in a process of their own, which
``test_in_the_interpreter`` starts. The interpreter says nothing about whether
a kernel compiles: ``test_every_kernel_compiles`` does, and needs no GPU.
"""

import mmap
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from helpers.fresh import fresh_pythons
from helpers.op_results import compare
from pvd_mm.ops import checks, dynamic_deconv2d
from pvd_mm.ops.backends import reference, self_check

triton = pytest.importorskip('triton', reason='triton is not installed')

from pvd_mm.ops.backends import triton as backend  # noqa: E402

if not hasattr(backend, '_forward'):
    reason = backend.why_not(torch.device('cuda'), torch.float32)
    pytest.skip(reason, allow_module_level=True)

FORMULATIONS = ('exact', 'factored')
DTYPES = (torch.float32, torch.float64, torch.half, torch.bfloat16)
LAYOUTS = ('contiguous', 'channels_last', 'expanded', 'sliced')
BOTH = (True, True)
MAP_NORESERVE = 0x4000  # Linux's number; Python does not always name it
INTERPRETED = os.environ.get('TRITON_INTERPRET') == '1'
compiled = pytest.mark.skipif(
    INTERPRETED, reason='TRITON_INTERPRET=1 leaves no compiler to test'
)
on_a_gpu = pytest.mark.skipif(
    INTERPRETED or not torch.cuda.is_available(), reason='there is no GPU'
)


def lay_out(tensor, layout):
    """The same numbers in other strides; 'expanded' repeats some of them."""
    if layout == 'channels_last':
        return tensor.contiguous(memory_format=torch.channels_last)
    if layout == 'expanded' and tensor.numel():
        return tensor[:, :, :, :1].expand_as(tensor)
    if layout == 'sliced':
        n, c, h, w = tensor.shape
        big = tensor.new_full((n, c + 1, h + 2, 2 * w + 1), float('nan'))
        return big[:, 1:, 1:-1, 1::2].copy_(tensor)
    return tensor


def make(
    n,
    channels,
    h,
    w,
    kernel_size=3,
    stride=2,
    padding=None,
    size=None,
    groups=1,
    formulation='exact',
    dtype=torch.float64,
    seed=0,
    layouts=('contiguous',) * 3,
    device='cpu',
):
    """(grad, input, votes, geometry, formulation), as backward takes them."""
    generator = torch.Generator().manual_seed(seed)

    def draw(layout, *shape):
        numbers = torch.randn(shape, generator=generator, dtype=torch.float64)
        return lay_out(numbers.to(device, dtype), layout)

    input = draw(layouts[0], n, channels, h, w)
    votes = draw(layouts[1], n, groups * kernel_size**2, h, w)
    geometry = checks.check_arguments(
        input, votes, kernel_size, stride, padding, size, groups, formulation
    )
    grad = draw(layouts[2], n, channels, *geometry.output_size)
    return grad, input, votes, geometry, formulation


def check(case, needs=BOTH, **options):
    grad, input, votes, *rest = case
    exact = [x.cpu().double() for x in (grad, input, votes)]
    compare(
        backend.forward(input, votes, *rest, **options),
        reference.forward(*exact[1:], *rest),
        input,
    )
    found = backend.backward(grad, input, votes, *rest, needs, **options)
    truth = reference.backward(*exact, *rest, BOTH)
    for need, one, other, like in zip(needs, found, truth, (input, votes)):
        if need:
            compare(one, other, like)
        else:
            assert one is None


def tiles():
    """Small ones, so that even small maps take several and have tails."""
    return st.none() | st.builds(
        lambda rows, block_c, block_x, rounds: backend.Tile(
            rows, block_c, block_x, block_c * rounds
        ),
        st.integers(1, 3),
        st.sampled_from((1, 2)),
        st.sampled_from((2, 4)),
        st.integers(1, 2),
    )


@st.composite
def cases(draw, kernel_sizes=(3, 3, 1), strides=(1, 2, 2, 3, 4), most=4):
    kernel_size = draw(st.sampled_from(kernel_sizes))
    stride = draw(st.sampled_from(strides))
    n, groups = draw(st.sampled_from(((1, 1), (1, 2), (2, 1))))
    channels = groups * draw(st.integers(1, 3))
    h, w = draw(st.integers(1, most)), draw(st.integers(1, most))
    spare = min((h - 1) * stride, (w - 1) * stride) + kernel_size + stride - 1
    padding = draw(
        st.just((kernel_size - 1) // 2) | st.integers(0, min(spare // 2, kernel_size))
    )
    size = [
        draw(st.integers(max(least, 0), max(least + stride - 1, 0)))
        for least in (
            (side - 1) * stride - 2 * padding + kernel_size for side in (h, w)
        )
    ]
    return make(
        n,
        channels,
        h,
        w,
        kernel_size,
        stride,
        padding,
        size,
        groups,
        draw(st.sampled_from(FORMULATIONS)),
        draw(st.sampled_from(DTYPES)),
        draw(st.integers(0, 99)),
        [draw(st.sampled_from(LAYOUTS)) for _ in range(3)],
    )


def examples(number):
    return settings(
        max_examples=number,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )


needs_one_or_both = st.sampled_from((BOTH, BOTH, (True, False), (False, True)))


@examples(40)
@given(cases(), tiles(), needs_one_or_both)
def check_like_reference(case, tile, needs):
    check(case, needs, tile=tile)


@examples(12)
@given(cases((5, 7), (1, 2, 3), 3), needs_one_or_both)
def check_larger_windows(case, needs):
    check(case, needs)


@examples(25)
@given(cases((1, 3, 3, 5, 9), (1, 2, 3, 9), 3), needs_one_or_both)
def check_plain_kernels(case, needs):
    check(case, needs, plain=True)


@pytest.mark.parametrize('formulation', FORMULATIONS)
@pytest.mark.parametrize('plain', (False, True))
@pytest.mark.parametrize('where', range(3))
def check_inf_and_nan(formulation, plain, where):
    """Each reaches what it reaches in the step update, and nothing else."""
    case = make(1, 2, 3, 3, size=(5, 6), formulation=formulation, seed=where)
    numbers = case[where].flatten()
    numbers[::4] = torch.tensor([float('inf'), float('nan'), -float('inf')]).repeat(
        len(numbers)
    )[: len(numbers[::4])]
    check(
        (*case[:where], numbers.view_as(case[where]), *case[where + 1 :]),
        plain=plain,
        **{} if plain else dict(tile=backend.Tile(2, 1, 2, 1)),
    )


@pytest.mark.parametrize('formulation', FORMULATIONS)
@pytest.mark.parametrize(
    'shape', [(0, 4, 3, 3), (2, 0, 3, 3), (2, 4, 0, 3), (2, 4, 3, 0)]
)
def check_empty_maps(formulation, shape):
    grad, input, votes, *rest = make(*shape, padding=0, formulation=formulation)
    output = backend.forward(input, votes, *rest)
    assert output.shape == grad.shape and not output.any()
    found = backend.backward(grad, input, votes, *rest, BOTH)
    assert [x.shape for x in found] == [input.shape, votes.shape]
    assert not any(x.any() for x in found)


def check_empty_output():
    grad, input, votes, *rest = make(1, 2, 1, 2, padding=2, size=(0, 1))
    assert backend.forward(input, votes, *rest).shape == (1, 2, 0, 1)
    assert not any(x.any() for x in backend.backward(grad, input, votes, *rest, BOTH))


@pytest.mark.parametrize('formulation', FORMULATIONS)
def check_tiles_change_no_bit(formulation):
    """The order of a sum is that of the window, whatever the tile."""
    case = make(1, 3, 4, 4, formulation=formulation, dtype=torch.float32)
    results = []
    for tile in (None, None, backend.Tile(1, 1, 2, 2)):
        results.append(
            (
                backend.forward(*case[1:], tile=tile),
                backend.backward(*case, (True, False), tile=tile)[0],
            )
        )
    for result in results[1:]:
        assert all(map(torch.equal, result, results[0]))


def examine(dtype, formulation):
    return self_check._check(backend, torch.device('cpu'), dtype, formulation)


@pytest.mark.parametrize(('dtype', 'formulation'), list(zip(DTYPES, FORMULATIONS * 2)))
def check_self_check(dtype, formulation):
    assert examine(dtype, formulation) is None


def check_self_check_of_a_wrong_kernel(monkeypatch):
    """One that gets something else to read, at stride 2 alone."""

    class Misled:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            def launch(grad, *args, **options):
                factor = 1.001 if grad.shape[2:] == (6, 10) else 1
                return self.kernel[grid](factor * grad, *args, **options)

            return launch

    for name in ('_backward', '_plain_input_grad'):
        monkeypatch.setattr(backend, name, Misled(getattr(backend, name)))
    said = examine(torch.float32, 'exact')
    assert 'the gradient by input at stride 2 is wrong in' in said


def far_apart(tensor, strides):
    """``tensor`` in memory far larger than what it holds, of which only the
    pages that are touched come to exist."""
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, strides))
    assert last > 2**31
    room = mmap.mmap(
        -1,
        (1 + last) * tensor.element_size(),
        flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE,
    )
    room.madvise(mmap.MADV_NOHUGEPAGE)
    view = torch.frombuffer(room, dtype=tensor.dtype).as_strided(tensor.shape, strides)
    assert torch.equal(view.copy_(tensor), tensor)  # nothing overlaps
    return view


@pytest.mark.parametrize('formulation', FORMULATIONS)
@pytest.mark.parametrize('plain', (False, True))
def check_offsets_beyond_32_bits(formulation, plain, monkeypatch):
    """Strides that fit 32 bits, and products and sums of them that don't, in
    every dimension of everything that is read and written."""
    grad, input, votes, *rest = make(
        3, 4, 3, 3, groups=2, dtype=torch.half, formulation=formulation
    )
    strides = {
        input.shape: (2**30 + 2, 2**29, 2**30 + 16, 2**30 + 128),
        votes.shape: (2**30 + 2, 2**28, 2**30 + 16, 2**30 + 128),
        grad.shape: (2**30 + 2, 2**29, 2**28 + 16, 2**28 + 128),
    }

    def place(tensor):
        return far_apart(tensor, strides[tensor.shape])

    case = [place(grad), place(input), place(votes), *rest]
    monkeypatch.setattr(
        backend,
        '_empty',
        lambda like, *shape: place(torch.empty(shape, dtype=like.dtype).fill_(9.0)),
    )
    options = dict(plain=plain)
    found = (
        backend.forward(*case[1:], **options),
        *backend.backward(*case, BOTH, **options),
    )
    exact = [x.double() for x in (grad, input, votes)]
    truth = (
        reference.forward(*exact[1:], *rest),
        *reference.backward(*exact, *rest, BOTH),
    )
    for one, other in zip(found, truth):
        torch.testing.assert_close(one.double(), other, rtol=2e-3, atol=8e-3)


def test_in_the_interpreter():
    """Runs every ``check_*`` of this file."""
    result = subprocess.run(
        [
            sys.executable,
            '-m',
            'pytest',
            '-q',
            '-p',
            'no:cacheprovider',
            '-o',
            'python_functions=check_*',
            '--durations=5',
            __file__,
        ],
        env={**os.environ, 'TRITON_INTERPRET': '1', 'OMP_NUM_THREADS': '1'},
        capture_output=True,
        text=True,
    )
    print(result.stdout[-6000:], result.stderr[-2000:])
    assert result.returncode == 0 and 'skipped' not in result.stdout


class Compiler:
    """Stands in for a GPU's driver where a kernel is compiled only."""

    def get_current_target(self):
        from triton.backends.compiler import GPUTarget

        return GPUTarget('cuda', 80, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


def use_compiler(monkeypatch, cache):
    """Compile for a GPU that need not be there, into an empty folder."""
    driver = triton.runtime.driver  # has `active` until 3.3, `_active` since 3.4
    active = '_active' if hasattr(driver, '_active') else 'active'
    monkeypatch.setattr(driver, active, Compiler())
    monkeypatch.setenv('TRITON_CACHE_DIR', str(cache))


@triton.jit
def refused(x):
    triton.language.static_assert(False, 'broken on purpose')


class Allocations(TorchDispatchMode):
    """Which operators of torch run."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(function.overloadpacket.__name__)
        return function(*args, **kwargs or {})


@compiled
@pytest.mark.parametrize('formulation', FORMULATIONS)
@pytest.mark.parametrize('plain', (False, True))
def test_every_kernel_compiles(formulation, plain, tmp_path, monkeypatch):
    """For a GPU that need not be there; and the results are all that is
    allocated, in both memory formats."""
    run = triton.JITFunction.run
    kernels = []

    def compile_only(self, *args, warmup, **kwargs):
        kernel = run(self, *args, warmup=True, **kwargs)
        assert kernel.asm['cubin']
        kernels.append(self.fn.__name__)

    monkeypatch.setattr(triton.JITFunction, 'run', compile_only)
    use_compiler(monkeypatch, tmp_path)
    expected = (
        ['_plain_forward', '_plain_input_grad', '_plain_votes_grad']
        if plain or backend._VERSION < (3, 3)
        else ['_forward', '_backward']
    )
    for stride, layout in ((2, 'contiguous'), (1, 'channels_last')):
        case = make(
            2,
            3,
            32,
            64,
            3,
            stride,
            dtype=torch.half,
            formulation=formulation,
            layouts=[layout] * 3,
        )
        kernels.clear()
        with Allocations() as allocations:
            backend.forward(*case[1:], plain=plain)
            backend.backward(*case, BOTH, plain=plain)
        assert kernels == expected
        assert allocations.names == ['empty'] * 3
        backend.backward(*case, (True, False), plain=plain)
        backend.backward(*case, (False, True), plain=plain)


@compiled
def test_self_check_of_a_kernel_that_does_not_compile(tmp_path, monkeypatch):
    class Refused:
        def __getitem__(self, grid):
            return lambda *args, **options: refused[grid](1)

    use_compiler(monkeypatch, tmp_path)
    for name in ('_forward', '_plain_forward'):
        monkeypatch.setattr(backend, name, Refused())
    said = examine(torch.float32, 'exact')
    assert 'CompilationError: ' in said or 'CompileTimeAssertionFailure: ' in said
    assert 'broken on purpose' in said


@compiled
@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a GPU')
def test_self_check_of_a_kernel_that_does_not_run():
    """No driver will have tensors of the CPU."""
    assert 'Error: ' in examine(torch.float32, 'exact')


@on_a_gpu
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('formulation', FORMULATIONS)
def test_self_check_on_a_gpu(dtype, formulation):
    device = torch.device('cuda', torch.cuda.current_device())
    assert self_check._check(backend, device, dtype, formulation) is None


@on_a_gpu
def test_self_check_and_graph_capture_on_a_gpu(monkeypatch):
    """It waits until the capture is over; the graph holds the op and no more."""
    monkeypatch.setattr(self_check, '_problems', {})
    maps = torch.rand(1, 2, 3, 3, device='cuda'), torch.rand(1, 9, 3, 3, device='cuda')
    expected = dynamic_deconv2d(*maps, backend='matrix')
    backend.forward(*maps, checks.Geometry(3, 1, 1, (3, 3), 1), 'exact')  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        output = dynamic_deconv2d(*maps)
    assert not self_check._problems
    graph.replay()
    torch.testing.assert_close(output, expected)
    dynamic_deconv2d(*maps)
    assert list(self_check._problems.values()) == [None]


@on_a_gpu
@pytest.mark.parametrize('dtype', DTYPES)
@pytest.mark.parametrize('formulation', FORMULATIONS)
@pytest.mark.parametrize('plain', (False, True))
def test_on_a_gpu(dtype, formulation, plain):
    for kernel_size, stride, layout in (
        (3, 1, 'contiguous'),
        (3, 2, 'channels_last'),
        (5, 2, 'sliced'),
        (7, 3, 'expanded'),
    ):
        case = make(
            2,
            6,
            9,
            21,
            kernel_size,
            stride,
            groups=2,
            dtype=dtype,
            formulation=formulation,
            layouts=[layout] * 3,
            device='cuda',
        )
        check(case, plain=plain)
        again = [
            (
                backend.forward(*case[1:], plain=plain),
                *backend.backward(*case, BOTH, plain=plain),
            )
            for _ in range(2)
        ]
        assert all(map(torch.equal, *again))


@on_a_gpu
def test_more_than_32_bits_on_a_gpu():
    """An output of 2³¹ elements and more; its end against a small one."""
    if torch.cuda.mem_get_info()[0] < 16 * 2**30:
        pytest.skip('it takes 16 GiB of GPU memory')
    n, c, h, w = 9, 16, 1024, 1024
    input = torch.rand(1, c, h, w, device='cuda').half().expand(n, -1, -1, -1)
    votes = torch.rand(1, 9, h, w, device='cuda').half().expand(n, -1, -1, -1)
    geometry = checks.check_arguments(input, votes, 3, 4, None, None, 1, 'exact')
    output = backend.forward(input, votes, geometry, 'exact')
    assert output.numel() > 2**31
    assert torch.equal(
        output[:1], backend.forward(input[:1], votes[:1], geometry, 'exact')
    )
    assert torch.equal(output[0], output[-1])


def test_why_not():
    cpu = backend.why_not(torch.device('cpu'), torch.float32)
    assert cpu is None if INTERPRETED else 'needs a GPU' in cpu
    assert 'float8' in backend.why_not(torch.device('cuda'), torch.float8_e5m2)
    assert backend.why_not(torch.device('cuda'), torch.bfloat16) is None


def test_without_triton_and_with_old_ones():
    """The module can be imported, and says what is missing. A Triton before 3.0 is
    shown no kernel: 2.1 refuses their decorators, with an error that is no
    ImportError; one before 3.3 is given no fused kernel."""
    expected = {
        'sys.modules["triton"] = None': 'triton is not installed (import of',
        'triton.__version__ = "2.1.0"': 'triton 2.1.0 is older than 3.0',
        'triton.__version__ = "3.2.0"': 'None, fused: False',
        'triton.__version__ = "3.10.0+git"': 'None, fused: True',
    }
    code = """
import sys, torch, triton
BEFORE
from pvd_mm.ops.backends import triton as backend
from pvd_mm.ops.checks import Geometry
print(backend.why_not(torch.device("cuda"), torch.float32), end=', fused: ')
if backend._PROBLEM is None:
    print(backend._fits_registers(Geometry(3, 1, 1, (3, 3), 1)))
assert hasattr(backend, "_forward") == (backend._PROBLEM is None)
"""
    said = fresh_pythons(*(code.replace('BEFORE', before) for before in expected))
    for text, words in zip(said, expected.values()):
        assert text.startswith(words)
