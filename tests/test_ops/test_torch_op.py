# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op as torch's own machinery sees it."""

import contextlib
import itertools
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.func import functionalize, grad, hessian, jacfwd, jacrev, jvp, vmap
from torch.utils.flop_counter import FlopCounterMode

from helpers.torch_features import (
    Dim,
    needs_automatic_sizes,
    needs_dynamic_compile,
    needs_export,
    needs_opcheck,
    needs_stack_of_transforms,
    needs_vmap_of_operators,
)
from pvd_mm.decoder import PixelVotingDecoder
from pvd_mm.ops import (
    compatibility,
    deconv_macs,
    dynamic_deconv2d,
    standard_operators,
)
from pvd_mm.ops.backends import BACKENDS, FASTEST, VARIABLE, get_backend, load
from pvd_mm.ops.checks import check_arguments
from pvd_mm.ops.op import backward_op, forward_op

FORMULATIONS = ('exact', 'factored')
formulations = pytest.mark.parametrize('formulation', FORMULATIONS)
HERE = [
    name
    for name in BACKENDS
    if load(name).why_not(torch.device('cpu'), torch.float32) is None
]


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make(n=2, c=4, h=3, w=5, groups=1, dtype=torch.float64):
    return (
        torch.randn(n, c, h, w, dtype=dtype),
        torch.randn(n, groups * 9, h, w, dtype=dtype),
    )


@needs_opcheck
@formulations
@pytest.mark.parametrize('backend', HERE)
@pytest.mark.parametrize('layout', (torch.contiguous_format, torch.channels_last))
@pytest.mark.parametrize('needs', [(True, True), (True, False), (False, True)])
def test_opcheck(backend, formulation, layout, needs):
    """Schema, fake kernels, autograd registration, dynamic shapes."""
    input, votes = (x.contiguous(memory_format=layout) for x in make())
    size, rest = (6, 9), (1, formulation, backend)
    maps = [x.clone().requires_grad_(need) for x, need in zip((input, votes), needs)]
    torch.library.opcheck(forward_op, (*maps, 3, 2, 1, size, *rest))
    top = torch.randn(2, 4, *size, dtype=torch.float64, requires_grad=True)
    torch.library.opcheck(backward_op, (top, *maps, 3, 2, 1, size, *rest, list(needs)))


@formulations
@pytest.mark.parametrize('needs', [(True, True), (True, False), (False, True)])
def test_double_backward(formulation, needs):
    """By all three: M, V and the gradient that came in."""
    input, votes = make(1, 2, 2, 2)
    fixed = dict(stride=2, formulation=formulation)
    maps = [x.requires_grad_(need) for x, need in zip((input, votes), needs)]
    wanted = [x for x in maps if x.requires_grad]

    def run(*wanted):
        found = iter(wanted)
        return dynamic_deconv2d(
            *(next(found) if need else x for need, x in zip(needs, maps)), **fixed
        )

    assert torch.autograd.gradgradcheck(run, wanted)


@formulations
def test_torch_func(formulation):
    """grad, vmap, jvp, jacrev and hessian, alone and nested."""
    fixed = dict(stride=2, formulation=formulation)
    input, votes = make()

    def loss(input, votes):
        return dynamic_deconv2d(input, votes, **fixed).square().sum()

    leaves = [x.clone().requires_grad_() for x in (input, votes)]
    expected = torch.autograd.grad(loss(*leaves), leaves)
    torch.testing.assert_close(grad(loss, (0, 1))(input, votes), expected)
    # four factors: twice M and twice V
    torch.testing.assert_close(
        jvp(loss, (input, votes), (input, votes))[1], 4 * loss(input, votes)
    )
    torch.testing.assert_close(
        jvp(lambda v: loss(input, v), (votes,), (votes,))[1], 2 * loss(input, votes)
    )

    many = torch.randn(3, *input.shape, dtype=input.dtype)
    each = torch.stack([grad(loss)(one, votes) for one in many])
    torch.testing.assert_close(vmap(grad(loss), (0, None))(many, votes), each)
    each = torch.stack([dynamic_deconv2d(one, votes, **fixed) for one in many])
    torch.testing.assert_close(
        vmap(lambda x: dynamic_deconv2d(x, votes, **fixed), 1, 2)(many.movedim(0, 1)),
        each.movedim(0, 2),
    )

    input, votes = make(1, 1, 2, 2)

    def by_votes(votes):
        return loss(input, votes)

    expected = torch.autograd.functional.hessian(by_votes, votes)
    torch.testing.assert_close(jacrev(grad(by_votes))(votes), expected)
    torch.testing.assert_close(jacrev(jacrev(by_votes))(votes), expected)
    torch.testing.assert_close(jacfwd(jacrev(by_votes))(votes), expected)
    torch.testing.assert_close(jacrev(jacfwd(by_votes))(votes), expected)


@formulations
@pytest.mark.parametrize('needs', [(True, True), (True, False), (False, True)])
def test_forward_mode(formulation, needs):
    """Of the op, and of its backward pass by all three of its arguments."""
    maps = [x.requires_grad_(need) for x, need in zip(make(1, 2, 2, 2), needs)]
    wanted = [x for x in maps if x.requires_grad]

    def run(*wanted):
        wanted = iter(wanted)
        return dynamic_deconv2d(
            *(next(wanted) if need else x for need, x in zip(needs, maps)),
            stride=2,
            formulation=formulation,
        )

    assert torch.autograd.gradcheck(run, wanted, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(run, wanted, check_fwd_over_rev=True)


@formulations
@pytest.mark.parametrize('backend', HERE)
def test_nested_derivatives(backend, formulation):
    """All of torch's second derivatives, forward over reverse among them, and many
    gradients at a time: against those of a transposed convolution, which a voting of
    groups of one channel is at one pixel."""

    def ours(input, votes):
        output = dynamic_deconv2d(
            input,
            votes,
            stride=2,
            groups=2,
            formulation=formulation,
            backend=backend,
        )
        return output.pow(3)

    def torchs(input, votes):
        weight = votes.reshape(2, 1, 3, 3)
        if formulation == 'factored':  # every pixel takes M of the single source
            input, weight = torch.ones_like(input), weight * input.reshape(2, 1, 1, 1)
        return F.conv_transpose2d(
            input, weight, stride=2, padding=1, output_padding=1, groups=2
        ).pow(3)

    maps = make(1, 2, 1, 1, groups=2)
    leaves = tuple(x.clone().requires_grad_() for x in maps)
    functional = torch.autograd.functional
    losses = [lambda *maps, f=f: f(*maps).sum() for f in (ours, torchs)]
    expected = functional.hessian(losses[1], maps)
    by = (0, 1)
    forward = dict(vectorize=True, outer_jacobian_strategy='forward-mode')
    for found in (
        functional.hessian(losses[0], maps),
        functional.hessian(losses[0], maps, vectorize=True),
        functional.hessian(losses[0], maps, **forward),
        hessian(losses[0], by)(*maps),
        jacfwd(grad(losses[0], by), by)(*maps),
        jacrev(jacfwd(losses[0], by), by)(*maps),
    ):
        torch.testing.assert_close(found, expected)
    found, expected = (jvp(grad(loss, by), maps, maps)[1] for loss in losses)
    torch.testing.assert_close(found, expected)

    expected = functional.jacobian(torchs, maps)
    for strategy in ('forward-mode', 'reverse-mode'):
        found = functional.jacobian(ours, maps, vectorize=True, strategy=strategy)
        torch.testing.assert_close(found, expected)
    many = torch.randn(3, 1, 2, 2, 2, dtype=torch.float64)
    found, expected = (
        torch.autograd.grad(f(*leaves), leaves, many, is_grads_batched=True)
        for f in (ours, torchs)
    )
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradgradcheck(ours, leaves, check_fwd_over_rev=True)
    assert torch.autograd.gradcheck(
        ours,
        leaves,
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


@formulations
def test_functionalize(formulation):
    """By itself, and of a gradient, which torch can't do with the derivatives of a
    ``torch.autograd.Function``."""
    maps = make(groups=2)

    def run(*maps):
        return dynamic_deconv2d(*maps, stride=2, groups=2, formulation=formulation)

    def loss(*maps):
        return run(*maps).square().sum()

    torch.testing.assert_close(functionalize(run)(*maps), run(*maps))
    expected = grad(loss, (0, 1))(*maps)
    torch.testing.assert_close(grad(functionalize(loss), (0, 1))(*maps), expected)


@needs_stack_of_transforms
def test_functionalize_a_gradient():
    maps = make()

    def loss(*maps):
        return dynamic_deconv2d(*maps, stride=2).square().sum()

    by = (0, 1)
    found = functionalize(grad(loss, by))(*maps)
    torch.testing.assert_close(found, grad(loss, by)(*maps))


def test_vmap_over_nothing():
    """As many as there are, or of as many as there are: none."""

    def loss(*maps):
        return dynamic_deconv2d(*maps, stride=2).sum()

    for sizes in ((0, 2), (3, 0)):
        maps = torch.rand(*sizes, 4, 3, 5), torch.rand(*sizes, 9, 3, 5)
        result = vmap(lambda *maps: dynamic_deconv2d(*maps, stride=2))(*maps)
        assert result.shape == (*sizes, 4, 6, 10)
        grads = vmap(grad(loss, (0, 1)))(*maps)
        assert [x.shape for x in grads] == [x.shape for x in maps]


@needs_vmap_of_operators
def test_vmap_of_the_operator():
    maps = [torch.randn(3, *x.shape, dtype=x.dtype) for x in make()]
    rest = 3, 2, 1, (6, 10), 1, 'exact', 'auto'
    found = vmap(lambda *maps: forward_op(*maps, *rest))(*maps)
    each = [dynamic_deconv2d(*pair, stride=2) for pair in zip(*maps)]
    torch.testing.assert_close(found, torch.stack(each))
    top = torch.randn_like(found)
    found = vmap(lambda *maps: backward_op(*maps, *rest, (True, True)))(top, *maps)
    each = [backward_op(*three, *rest, (True, True)) for three in zip(top, *maps)]
    for one, all_of_it in zip(zip(*each), found):
        torch.testing.assert_close(all_of_it, torch.stack(one))


@pytest.mark.parametrize('backend', HERE)
@pytest.mark.parametrize('stride', (1, 2))
def test_strides_are_those_of_a_transposed_convolution(backend, stride):
    """Also where a map is in two formats at once, having one channel or pixel; its
    gradient's, too."""

    def layouts(x):
        yield x
        yield x.contiguous(memory_format=torch.channels_last)
        if x.size(1) > 1:  # some channels of a map
            more = torch.cat([x, x], 1).contiguous(memory_format=torch.channels_last)
            yield more[:, : x.size(1)]

    sizes = itertools.product((1, 2), (1, 3), (1, 4), (1, 5))
    for input in itertools.chain.from_iterable(layouts(torch.rand(x)) for x in sizes):
        size = input.shape
        weight = torch.rand(size[1], 1, 3, 3)
        expected = F.conv_transpose2d(
            input, weight, None, stride, 1, stride - 1, groups=size[1]
        )
        votes = torch.rand(size[0], 9, *size[2:])
        found = dynamic_deconv2d(input, votes, stride=stride, backend=backend)
        assert found.stride() == expected.stride(), (size, input.stride())
        meta = dynamic_deconv2d(input.to('meta'), votes.to('meta'), stride=stride)
        assert meta.stride() == expected.stride()


def test_tangents_without_gradients():
    """They are not lost where no gradient is asked for, nor silently by a
    compiler, which has no forward mode of the op before torch 2.15."""
    input, votes = make()
    compiled = torch.compile(dynamic_deconv2d, backend='eager')
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(input, input)
        outputs = [dynamic_deconv2d(dual, votes)]
        with contextlib.suppress(Exception):  # dynamo's, which differs
            outputs.append(compiled(dual, votes))
        for primal, tangent in map(forward_ad.unpack_dual, outputs):
            torch.testing.assert_close(tangent, primal)
    torch._dynamo.reset()


PRIVATE = [
    ('_C', '_are_functorch_transforms_active'),
    ('_C', '_len_torch_dispatch_stack'),
    ('forward_ad', '_current_level'),
]


@pytest.mark.parametrize('gone', [*([pair] for pair in PRIVATE), PRIVATE])
def test_without_the_private_parts_of_torch(gone, monkeypatch):
    """Eager mode, torch.func, a compiler and the FLOP counter do what they
    did. Only the op sees the names gone, for torch needs them itself."""
    input, votes = make()

    def run(input, votes):
        return dynamic_deconv2d(input, votes, stride=2)

    def results():
        leaves = [x.clone().requires_grad_() for x in (input, votes)]
        output = run(*leaves)
        yield output, *torch.autograd.grad(output.square().sum(), leaves)
        with torch.no_grad():
            yield run(*leaves)
        with forward_ad.dual_level():
            output = run(forward_ad.make_dual(input, input), votes)
            yield tuple(forward_ad.unpack_dual(output))
        yield jvp(run, (input, votes), (input, votes))
        yield vmap(run)(input[:, None], votes[:, None])
        yield grad(lambda *maps: run(*maps).square().sum(), (0, 1))(input, votes)
        torch._dynamo.reset()
        compiled = torch.compile(run, fullgraph=True, backend='aot_eager')
        output = compiled(*leaves)
        yield output, *torch.autograd.grad(output.square().sum(), leaves)
        with FlopCounterMode(display=False) as counter:
            run(*leaves).sum().backward()
        yield counter.get_total_flops()

    expected = list(results())
    for owner, name in gone:
        rest = dict(vars(getattr(compatibility, owner)))
        del rest[name]
        monkeypatch.setattr(compatibility, owner, SimpleNamespace(**rest))
    for result, truth in zip(results(), expected, strict=True):
        torch.testing.assert_close(result, truth)


def pyramid_model():
    """Strided convolutions and the decoder over their maps."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            widths, strides = (3, 4, 6, 6, 8), (2, 2, 1, 2)
            self.encoder = torch.nn.ModuleList(
                torch.nn.Conv2d(a, b, 3, stride, 1)
                for a, b, stride in zip(widths, widths[1:], strides)
            )
            self.top = torch.nn.Conv2d(8, 5, 1)
            self.decoder = PixelVotingDecoder(widths[1:], 5)
            for step in self.decoder.steps:
                torch.nn.init.normal_(step.association.conv_votes.weight)

        def forward(self, x):
            maps = []
            for conv in self.encoder:
                x = conv(x)
                maps.append(x)
            return self.decoder(maps, self.top(x))[0]

    return Model()


@pytest.mark.parametrize(
    'dynamic', [False, pytest.param(True, marks=needs_dynamic_compile)]
)
def test_compiled_decoder_has_no_graph_break(dynamic):
    """Forward and backward, ahead of time (inductor's C++ is not the point
    here, and compiling it is slow)."""
    model = pyramid_model()
    compiled = torch.compile(
        model, fullgraph=True, dynamic=dynamic, backend='aot_eager'
    )
    for size in ((32, 48), (45, 50)) if dynamic else ((32, 48),):
        x = torch.randn(2, 3, *size)
        results = []
        for module in (compiled, model):
            output = module(x)
            model.zero_grad()
            output.square().mean().backward()
            results.append((output, *(p.grad for p in model.parameters())))
        torch.testing.assert_close(*results)


def test_compiled_by_inductor():
    model = pyramid_model()
    x = torch.randn(1, 3, 32, 48)
    compiled = torch.compile(model, fullgraph=True)
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.parametrize(
    'automatic', [pytest.param(True, marks=needs_automatic_sizes), False]
)
@needs_export
def test_exported_decoder(automatic):
    sides = [Dim.AUTO] * 2 if automatic else [8 * Dim(x, min=2, max=512) for x in 'hw']
    model = pyramid_model().eval()
    program = torch.export.export(
        model,
        (torch.randn(1, 3, 32, 48),),
        dynamic_shapes=({2: sides[0], 3: sides[1]},),
    )
    targets = {str(node.target) for node in program.graph.nodes}
    assert 'pvd_mm.dynamic_deconv2d.default' in targets
    for other in ((32, 48), (64, 40)):
        x = torch.randn(1, 3, *other)
        torch.testing.assert_close(program.module()(x), model(x))


@formulations
@pytest.mark.parametrize('given', (False, True))
@pytest.mark.parametrize('stride', (1, 2, 3))
def test_traced(stride, given, formulation):
    """The output's size follows the maps', or that of another map."""

    def run(input, votes, finer):
        return dynamic_deconv2d(
            input,
            votes,
            stride=stride,
            output_size=finer.shape[2:] if given else None,
            formulation=formulation,
        )

    def example(n, h, w):
        finer = torch.rand(n, 1, h * stride, w * stride - (stride > 1))
        return torch.rand(n, 4, h, w), torch.rand(n, 9, h, w), finer

    traced = torch.jit.trace(run, example(1, 5, 6), check_trace=False)
    assert 'pvd_mm::dynamic_deconv2d' in str(traced.graph)
    maps = [x.requires_grad_() for x in example(2, 9, 7)]
    results = []
    for function in (traced, run):
        output = function(*maps)
        results.append((output, *torch.autograd.grad(output.square().sum(), maps[:2])))
    torch.testing.assert_close(*results)


def test_standard_operators():
    """What exporters get is the op, over all that it takes."""
    cases = itertools.product(
        (1, 3, 5), (1, 2, 3, 4), (1, 2), (None, 0, 2), FORMULATIONS
    )
    for kernel_size, stride, groups, padding, formulation in cases:
        input = torch.randn(2, 4, 4, 5, dtype=torch.float64)
        votes = torch.randn(2, groups * kernel_size**2, 4, 5).double()
        for extra in {(0, 0), (stride - 1, stride // 2)}:
            p = (kernel_size - 1) // 2 if padding is None else padding
            size = [
                (side - 1) * stride - 2 * p + kernel_size + more
                for side, more in zip((4, 5), extra)
            ]
            if min(size) < 0:
                continue
            rest = (kernel_size, stride, padding, size, groups, formulation)
            geometry = check_arguments(input, votes, *rest)
            torch.testing.assert_close(
                standard_operators.dynamic_deconv2d(
                    input, votes, geometry, formulation
                ),
                dynamic_deconv2d(input, votes, *rest),
            )


def test_macs():
    """By hand, forward and backward, and of both formulations."""
    input, votes = (x.requires_grad_() for x in make(2, 4, 3, 5, groups=2))
    expected = dict(exact=2 * 4 * 15 * 9, factored=2 * 2 * 15 * 9 + 2 * 4 * 60)
    for formulation, macs in expected.items():
        assert macs == deconv_macs(input.shape, (2, 4, 6, 10), 3, 2, formulation)
        with FlopCounterMode(display=False) as counter:
            output = dynamic_deconv2d(
                input, votes, stride=2, groups=2, formulation=formulation
            )
        assert counter.get_total_flops() == 2 * macs
        with FlopCounterMode(display=False) as counter:
            output.sum().backward()
        assert counter.get_total_flops() == 2 * 2 * macs


@formulations
def test_mmengine_counts_it(formulation):
    from mmengine.analysis import get_model_complexity_info

    class Model(torch.nn.Module):
        def forward(self, x):
            return dynamic_deconv2d(x, x[:, :9], stride=2, formulation=formulation)

    found = get_model_complexity_info(
        Model(), inputs=torch.ones(1, 12, 3, 5), show_table=False, show_arch=False
    )
    assert found['flops'] == deconv_macs(
        (1, 12, 3, 5), (1, 12, 6, 10), 3, 1, formulation
    )
    assert found['activations'] == 12 * 60


def test_variable_overrules_auto_and_argument_the_variable(monkeypatch):
    here = (torch.device('cpu'), torch.float32, 'exact')
    monkeypatch.setenv(VARIABLE, 'reference')
    assert get_backend('auto', *here) is load('reference')
    assert get_backend('matrix', *here) is load('matrix')
    monkeypatch.setenv(VARIABLE, '')
    assert get_backend('auto', *here) is load(FASTEST['cpu'])
    monkeypatch.setenv(VARIABLE, 'fast')
    with pytest.raises(ValueError, match=f"{VARIABLE} must be one of.*'fast'"):
        dynamic_deconv2d(torch.ones(1, 2, 3, 3), torch.ones(1, 9, 3, 3))


def test_a_backend_that_is_not_there_says_why():
    input, votes = make()
    with pytest.raises(RuntimeError, match="backend='triton' cannot run on cpu.*: .+"):
        dynamic_deconv2d(input, votes, backend='triton')


def test_without_the_extension_it_says_so_once():
    """In a process of its own; the result is right all the same."""
    code = """
import warnings, torch
from pvd_mm.ops import dynamic_deconv2d
from pvd_mm.ops.backends import cpp, matrix
cpp.why_not = lambda device, dtype: 'nobody built it.'
pair = torch.rand(1, 2, 3, 3), torch.rand(1, 9, 3, 3)
with warnings.catch_warnings(record=True) as found:
    warnings.simplefilter('always')
    for dtype in (torch.float32, torch.float64, torch.float32):
        result = dynamic_deconv2d(*(x.to(dtype) for x in pair))
expected = dynamic_deconv2d(*pair, backend='matrix')
assert torch.equal(result, expected)
print(*[str(one.message) for one in found], sep='|')
"""
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    said = result.stdout.strip().split('|')
    assert len(said) == 1 and 'cpp' in said[0] and 'nobody built' in said[0]
