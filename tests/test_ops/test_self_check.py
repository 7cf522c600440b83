# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The self-check of compiled kernels, with kernels that are broken on purpose.

``triton`` is what 'auto' takes on the CPU here, with the functions of ``matrix`` in
place of kernels. ``test_triton.py`` has the same with the kernels themselves.
"""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

from pvd_mm.ops import backends, dynamic_deconv2d
from pvd_mm.ops.backends import FASTEST, VARIABLE, cpp, matrix, reference, self_check
from pvd_mm.version import __version__

triton = pytest.importorskip('triton', reason='triton is not installed')

from pvd_mm.ops.backends import triton as backend  # noqa: E402

CPU = torch.device('cpu')
FORMULATIONS = ('exact', 'factored')
DTYPES = (torch.float32, torch.float64, torch.half, torch.bfloat16)
HERE = [x for x in (matrix, reference, cpp) if not x.why_not(CPU, torch.float32)]
formulations = pytest.mark.parametrize('formulation', FORMULATIONS)
dtypes = pytest.mark.parametrize('dtype', DTYPES)


class AsKernels:
    """A backend in at least single precision, its results rounded to the input's."""

    def __init__(self, backend):
        self.backend = backend

    def _run(self, function, maps, *rest):
        dtype = maps[0].dtype
        found = function(
            *(x.to(torch.promote_types(dtype, torch.float32)) for x in maps), *rest
        )
        if isinstance(found, tuple):
            return tuple(x if x is None else x.to(dtype) for x in found)
        return found.to(dtype)

    def forward(self, input, votes, *rest):
        return self._run(self.backend.forward, (input, votes), *rest)

    def backward(self, grad, input, votes, *rest):
        return self._run(self.backend.backward, (grad, input, votes), *rest)


right = AsKernels(matrix)


@pytest.fixture(autouse=True)
def _taken_by_auto(monkeypatch):
    why_not = backends._why_not
    monkeypatch.setattr(
        backends,
        '_why_not',
        lambda name, *at: None if name == 'triton' else why_not(name, *at),
    )
    monkeypatch.setattr(backends, '_warned', set())
    monkeypatch.setattr(self_check, '_problems', {})
    monkeypatch.setattr(backend, 'forward', right.forward)
    monkeypatch.setattr(backend, 'backward', right.backward)
    monkeypatch.setitem(FASTEST, 'cpu', 'triton')
    monkeypatch.delenv(VARIABLE, raising=False)


@pytest.fixture
def break_kernels(monkeypatch):
    """Lets a function change what the kernels return: D, ∂M and ∂V, or None. It gets
    the three, the geometry and the formulation."""

    def broken(change):
        def forward(input, votes, geometry, formulation):
            results = [right.forward(input, votes, geometry, formulation), None, None]
            return change(results, geometry, formulation)[0]

        def backward(grad, input, votes, geometry, formulation, needs):
            grads = right.backward(grad, input, votes, geometry, formulation, needs)
            return tuple(change([None, *grads], geometry, formulation)[1:])

        monkeypatch.setattr(backend, 'forward', forward)
        monkeypatch.setattr(backend, 'backward', backward)

    return broken


def make(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    maps = (torch.randn(1, c, 3, 4, generator=generator) for c in (2, 9))
    return [x.to(dtype).requires_grad_() for x in maps]


def run(dtype=torch.float32, formulation='exact', stride=2, backend='auto'):
    """D, and its gradients, of the op as users call it."""
    maps = make(dtype)
    output = dynamic_deconv2d(
        *maps, stride=stride, formulation=formulation, backend=backend
    )
    return output, *torch.autograd.grad(output.sum(), maps)


@contextmanager
def one_warning():
    """Of the op's; a compiler may have others."""
    found = []
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        yield found
    found += [each for each in told if 'dynamic_deconv2d' in str(each.message)]
    assert len(found) == 1


class CompilationError(Exception):
    """As Triton's, which needs the source; `test_triton.py` has a real one."""


def raises_in_the_compiler(results, geometry, formulation):
    raise CompilationError('at 5:4:\n    x = tl.load(y)\n        ^\nno such operation')


def raises_at_launch(results, geometry, formulation):
    raise RuntimeError('Triton Error [CUDA]: invalid argument')


def only(result, stride, damage):
    """Damages one result, D, ∂M or ∂V, at one stride."""

    def change(results, geometry, formulation):
        if geometry.stride == stride and results[result] is not None:
            results[result] = damage(results[result].clone())
        return results

    return change


def slightly_off(x):
    x.flatten()[-1] += 0.02  # a view: the clone is contiguous
    return x


def not_a_number(x):
    x[-1, -1, -1, 0] = float('nan')
    return x


BROKEN = {
    'compiler': (
        raises_in_the_compiler,
        'CompilationError: at 5:4:\n.*\n.*\nno such operation\nPlease',
    ),
    'launch': (raises_at_launch, r'RuntimeError: Triton Error \[CUDA\]: invalid arg'),
    'forward': (only(0, 2, slightly_off), 'the forward pass at stride 2 is wrong in 1'),
    'input': (only(1, 1, slightly_off), 'the gradient by input at stride 1 is wrong'),
    'votes': (only(2, 2, slightly_off), 'the gradient by votes at stride 2 is wrong'),
    'nan': (only(0, 1, not_a_number), r'wrong in 1 of \d+ numbers: nan where matrix'),
    'dtype': (only(2, 1, torch.Tensor.double), 'is of torch.float64, .* of torch.fl'),
    'shape': (only(1, 1, lambda x: x[:, 1:]), r'of shape \(2, 5, 3, 5\), and should'),
}


@formulations
@pytest.mark.parametrize('kind', BROKEN)
def test_auto_goes_to_matrix_with_a_warning_and_a_name_raises(
    kind, formulation, break_kernels, monkeypatch
):
    change, message = BROKEN[kind]
    expected = run(formulation=formulation, backend='matrix')
    break_kernels(change)
    with one_warning() as found:
        for _ in range(2):
            for stride in (1, 2):
                result = run(formulation=formulation, stride=stride)
    assert all(map(torch.equal, result, expected))
    said = str(found[0].message)
    assert said.startswith('dynamic_deconv2d runs on its slower backend matrix')
    reason = backends.why_not('triton', CPU, torch.float32, formulation)
    assert reason in said
    for words in (
        f'self-check on cpu with torch.float32, formulation {formulation!r}, failed: ',
        f'torch {torch.__version__}, triton {triton.__version__}, pvd_mm {__version__}',
        'Please report this, with what `python tools/benchmark_gpu.py`',
    ):
        assert words in reason
    with pytest.raises(RuntimeError, match=message) as named:
        run(formulation=formulation, backend='triton')
    assert str(named.value).startswith("backend='triton' cannot run on cpu")
    assert str(named.value).endswith(reason)
    monkeypatch.setenv(VARIABLE, 'triton')
    with pytest.raises(RuntimeError, match=f"^environment .* {VARIABLE}='triton'"):
        run(formulation=formulation)


@dtypes
@formulations
def test_each_dtype_and_formulation_is_looked_at_by_itself(
    dtype, formulation, break_kernels
):
    def change(results, geometry, used):
        given = [x.dtype for x in results if x is not None]
        if given[0] != dtype or used != formulation:
            return results
        return only(0, 2, slightly_off)(results, geometry, used)

    break_kernels(change)
    with one_warning():
        for one in DTYPES:
            for other in FORMULATIONS:
                run(one, other)
    wrong = [key[2:] for key, problem in self_check._problems.items() if problem]
    assert wrong == [(dtype, formulation)]
    assert len(self_check._problems) == len(DTYPES) * len(FORMULATIONS)


@dtypes
@formulations
@pytest.mark.parametrize('other', HERE)
def test_another_order_of_the_sums_is_no_difference(other, dtype, formulation):
    here = AsKernels(other), CPU, dtype, formulation
    assert self_check.find_problem(*here) is None and here in self_check._problems


@dtypes
@formulations
@pytest.mark.parametrize('lost', range(9))
def test_a_lost_vote_is_a_difference(lost, dtype, formulation, monkeypatch):
    """Whichever of the window's it is, as with a mask that is off by one."""

    def forward(input, votes, *rest):
        votes = votes.clone()
        votes[:, lost::9, :1, :1] = 0
        return right.forward(input, votes, *rest)

    monkeypatch.setattr(backend, 'forward', forward)
    wrong = self_check.find_problem(backend, CPU, dtype, formulation)
    # the first pixel's first row and column of votes lie outside of the map
    outside = lost in (0, 1, 2, 3, 6)
    assert (wrong is None) == outside


class Refusing(TorchDispatchMode):
    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        raise AssertionError(f'{function} was seen')


@contextmanager
def set_to(set_value, value, before):
    set_value(value)
    try:
        yield
    finally:
        set_value(before)


STATES = {
    'no_grad': torch.no_grad,
    'inference_mode': torch.inference_mode,
    'autocast': lambda: torch.autocast('cpu', torch.bfloat16),
    'default_dtype': lambda: set_to(
        torch.set_default_dtype, torch.float64, torch.float32
    ),
    'default_device': lambda: torch.device('meta'),
    'deterministic': lambda: set_to(torch.use_deterministic_algorithms, True, False),
    'dispatch_mode': Refusing,
    'fake_tensors': FakeTensorMode,
    'anomaly': lambda: torch.autograd.detect_anomaly(check_nan=True),
}


@formulations
@pytest.mark.filterwarnings('ignore:Anomaly Detection')
@pytest.mark.parametrize('state', STATES)
def test_it_sees_no_state_of_the_caller_and_leaves_it(state, formulation):
    def settings():
        return (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.get_default_dtype(),
            torch.are_deterministic_algorithms_enabled(),
        )

    random = torch.get_rng_state()
    with STATES[state]():
        before = settings()
        problem = self_check.find_problem(backend, CPU, torch.half, formulation)
        assert settings() == before
    assert problem is None and len(self_check._problems) == 1
    assert torch.equal(torch.get_rng_state(), random)


def transformed(function):
    """It, inside each transform of ``torch.func``."""
    torch.func.vmap(lambda x: (function(), x)[1])(torch.ones(2))
    torch.func.grad(lambda x: (function(), x)[1])(torch.ones(()))
    torch.func.jvp(lambda x: (function(), x)[1], (torch.ones(2),), (torch.ones(2),))


@pytest.mark.parametrize('broken', (False, True))
def test_inside_transforms(broken, break_kernels):
    if broken:
        break_kernels(only(1, 2, slightly_off))
    problems = []

    def look():
        self_check._problems.clear()
        problems.append(
            self_check.find_problem(backend, CPU, torch.float32, 'factored')
        )

    transformed(look)
    assert len(problems) == 3 and all(bool(x) == broken for x in problems)


def test_tracing_looks_at_nothing_and_the_first_real_call_does(break_kernels):
    break_kernels(only(0, 2, slightly_off))
    maps = [x.detach() for x in make()]

    def function(input, votes):
        return dynamic_deconv2d(input, votes, stride=2)

    make_fx(function, tracing_mode='fake')(*maps)
    with FakeTensorMode() as mode:
        function(*map(mode.from_tensor, maps))
    function(*(x.to('meta') for x in maps))
    assert not self_check._problems
    compiled = torch.compile(function, backend='eager', fullgraph=True)
    with one_warning():
        result = compiled(*maps)
    assert torch.equal(result, run(backend='matrix')[0])
    assert len(self_check._problems) == 1


@pytest.mark.filterwarnings('ignore::torch.jit.TracerWarning')
def test_a_trace_holds_nothing_of_it():
    maps = [x.detach() for x in make()]
    graph = torch.jit.trace(lambda *maps: dynamic_deconv2d(*maps), maps).graph
    kinds = [n.kind() for n in graph.nodes() if not n.kind().startswith('prim')]
    of_sizes = {f'aten::{name}' for name in ('size', 'add', 'sub', 'mul', 'stack')}
    assert [kind for kind in kinds if kind not in of_sizes] == [
        'pvd_mm::dynamic_deconv2d'
    ]
    assert self_check._problems


@pytest.mark.parametrize(
    'state', ('is_current_stream_capturing', 'get_sync_debug_mode')
)
def test_it_waits_until_the_gpu_may_be_waited_for(state, monkeypatch):
    """Without a GPU to capture on, torch's answer is a pretence; so is the check."""
    looked = []
    monkeypatch.setattr(self_check, '_check', lambda *key: looked.append(key) or 'bad')
    for name in ('is_current_stream_capturing', 'get_sync_debug_mode'):
        monkeypatch.setattr(torch.cuda, name, lambda name=name: name == state)
    here = backend, torch.device('cuda', 0), torch.float32, 'exact'
    assert self_check.find_problem(*here) is None and not looked
    monkeypatch.setattr(torch.cuda, state, lambda: False)
    assert self_check.find_problem(*here) == 'bad' and looked == [here]
    monkeypatch.setattr(torch.cuda, state, lambda: True)
    assert self_check.find_problem(*here) == 'bad'  # what is known stays known


@pytest.mark.parametrize(
    'error',
    [
        torch.cuda.OutOfMemoryError('CUDA out of memory. Tried to allocate 20 MiB'),
        RuntimeError('Triton Error [CUDA]: out of memory'),
    ],
)
def test_a_full_memory_proves_nothing(error, monkeypatch):
    def forward(*_):
        raise error

    monkeypatch.setattr(backend, 'forward', forward)
    here = backend, CPU, torch.float32, 'exact'
    assert self_check.find_problem(*here) is None and not self_check._problems
    monkeypatch.setattr(backend, 'forward', right.forward)
    assert self_check.find_problem(*here) is None and len(self_check._problems) == 1


def test_many_threads_look_once(break_kernels):
    calls, start = [], threading.Barrier(8)

    def change(results, geometry, formulation):
        calls.append(geometry.stride)
        return only(0, 2, slightly_off)(results, geometry, formulation)

    def first_use(_):
        start.wait()
        return run()[0]

    break_kernels(change)
    with one_warning(), ThreadPoolExecutor(8) as threads:
        results = list(threads.map(first_use, range(8)))
    assert calls == [1, 1, 2, 2]  # forward and backward at each stride
    expected = run(backend='matrix')[0]
    assert all(torch.equal(result, expected) for result in results)


def test_the_report_names_the_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda device: 'NVIDIA T4')
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7, 5))
    said = self_check.describe(torch.device('cuda', 1))
    assert said.endswith('NVIDIA T4 (compute capability 7.5)')


def test_a_long_message_is_cut_in_its_middle(break_kernels):
    def change(*_):
        raise RuntimeError(f'first {"line " * 9999} last')

    break_kernels(change)
    said = self_check.find_problem(backend, CPU, torch.float32, 'exact')
    assert 'RuntimeError: first line' in said and 'line  last\n' in said
    assert len(said) < 3000
