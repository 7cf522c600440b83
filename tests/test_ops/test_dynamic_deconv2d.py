# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The op against torch's transposed convolution, and the fast backend against
the step update."""

import itertools
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F

from helpers.torch_features import needs_half_autocast
from pvd_mm.ops import (
    DynamicDeconv2d,
    DynamicDeconv2dPack,
    dynamic_deconv2d,
    upsampling_kernel,
)
from pvd_mm.ops.backends import BACKENDS, load

KERNELS = (1, 3, 5, 7)
STRIDES = (1, 2, 3, 4)
FORMULATIONS = ('exact', 'factored')
CPU = torch.device('cpu')
# triton has tests of its own, in its interpreter
HERE = [name for name in BACKENDS if load(name).why_not(CPU, torch.float32) is None]
backends = pytest.mark.parametrize('backend', HERE)
formulations = pytest.mark.parametrize('formulation', FORMULATIONS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def make(n=2, c=4, h=4, w=5, kernel_size=3, groups=1, **kwargs):
    kwargs.setdefault('dtype', torch.float64)
    return (
        torch.randn(n, c, h, w, **kwargs),
        torch.randn(n, groups * kernel_size**2, h, w, **kwargs),
    )


@backends
@pytest.mark.parametrize('kernel_size', KERNELS)
@pytest.mark.parametrize('stride', STRIDES)
@pytest.mark.parametrize('groups', (1, 2, 4))
def test_constant_votes_are_a_transposed_convolution(
    backend, kernel_size, stride, groups
):
    """At every output size that the stride allows."""
    c, h, w = 4, 3, 5
    input = torch.randn(2, c, h, w, dtype=torch.float64)
    kernel = torch.randn(groups, kernel_size**2, dtype=torch.float64)
    votes = kernel.reshape(1, -1, 1, 1).expand(2, -1, h, w)
    weight = kernel.reshape(groups, 1, kernel_size, kernel_size)
    weight = weight.repeat_interleave(c // groups, dim=0)
    for extra in itertools.product(range(stride), repeat=2):
        expected = F.conv_transpose2d(
            input,
            weight,
            stride=stride,
            padding=(kernel_size - 1) // 2,
            output_padding=extra,
            groups=c,
        )
        output = dynamic_deconv2d(
            input,
            votes,
            kernel_size,
            stride,
            output_size=expected.shape[2:],
            groups=groups,
            backend=backend,
        )
        torch.testing.assert_close(output, expected)


@backends
@pytest.mark.parametrize('padding', (0, 1, 2))
def test_other_paddings(backend, padding):
    input = torch.randn(2, 4, 4, 3, dtype=torch.float64)
    kernel = torch.randn(5, 5, dtype=torch.float64)
    votes = kernel.reshape(1, 25, 1, 1).expand(2, -1, 4, 3)
    expected = F.conv_transpose2d(
        input,
        kernel.expand(4, 1, 5, 5),
        stride=2,
        padding=padding,
        output_padding=1,
        groups=4,
    )
    output = dynamic_deconv2d(input, votes, 5, 2, padding, backend=backend)
    torch.testing.assert_close(output, expected)


@backends
def test_each_vote_lands_where_equation_7_says(backend):
    """One input pixel, nine different votes, by hand."""
    input = torch.zeros(1, 1, 4, 4)
    input[..., 1, 2] = 2.0
    votes = torch.arange(1.0, 10.0).reshape(1, 9, 1, 1).expand(-1, -1, 4, 4)
    output = dynamic_deconv2d(
        input, votes, stride=2, output_size=(7, 7), backend=backend
    )
    expected = torch.zeros(7, 7)
    expected[1:4, 3:6] = 2 * torch.arange(1.0, 10.0).reshape(3, 3)
    assert torch.equal(output[0, 0], expected)


@backends
def test_pixel_types_of_equation_11(backend):
    """With stride 2 and k = 3 an output pixel has 1, 2, 2 or 4 voters."""
    ones = torch.ones(1, 1, 4, 4)
    votes = torch.ones(1, 9, 4, 4)
    voters = dynamic_deconv2d(ones, votes, stride=2, backend=backend)[0, 0]
    assert voters.shape == (8, 8)
    inside = voters[:7, :7]
    assert (inside[0::2, 0::2] == 1).all()
    assert (inside[0::2, 1::2] == 2).all()
    assert (inside[1::2, 0::2] == 2).all()
    assert (inside[1::2, 1::2] == 4).all()


@backends
def test_factored_takes_the_own_source(backend):
    """Equation 12 by hand: pixel d of the first group gets M[0, 0] alone,
    times the votes of four pixels."""
    input = torch.tensor([[10.0, 20.0], [30.0, 40.0]]).reshape(1, 1, 2, 2)
    votes = torch.rand(1, 9, 2, 2)
    output = dynamic_deconv2d(
        input, votes, stride=2, formulation='factored', backend=backend
    )
    v = votes.reshape(3, 3, 2, 2)
    vote_sum = v[2, 2, 0, 0] + v[2, 0, 0, 1] + v[0, 2, 1, 0] + v[0, 0, 1, 1]
    torch.testing.assert_close(output[0, 0, 1, 1], 10 * vote_sum)
    torch.testing.assert_close(output[0, 0, 0, 2], 20 * v[1, 1, 0, 1])


@formulations
@pytest.mark.parametrize('kernel_size', KERNELS)
@pytest.mark.parametrize('stride', STRIDES)
@pytest.mark.parametrize('groups', (1, 2))
def test_matrix_equals_reference(formulation, kernel_size, stride, groups):
    """Outputs and both gradients, over shapes, paddings and sizes."""
    for (h, w), padding in itertools.product(
        [(1, 1), (4, 3)], {0, (kernel_size - 1) // 2}
    ):
        input, votes = make(h=h, w=w, kernel_size=kernel_size, groups=groups)
        input.requires_grad_(), votes.requires_grad_()
        results = []
        for backend in ('reference', 'matrix'):
            output = dynamic_deconv2d(
                input,
                votes,
                kernel_size,
                stride,
                padding,
                None,
                groups,
                formulation,
                backend,
            )
            weight = torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(
                output
            )
            grads = torch.autograd.grad((output * weight).sum(), (input, votes))
            results.append((output, *grads))
        torch.testing.assert_close(results[1], results[0])


@backends
@formulations
@pytest.mark.parametrize('stride', STRIDES)
@pytest.mark.parametrize('groups', (1, 2))
def test_gradcheck(backend, formulation, stride, groups):
    input, votes = make(n=1, h=3, w=2, groups=groups, requires_grad=True)
    size = (2 * stride + 1, stride + 1)

    def run(input, votes):
        return dynamic_deconv2d(
            input, votes, 3, stride, None, size, groups, formulation, backend
        )

    assert torch.autograd.gradcheck(run, (input, votes))


@formulations
def test_gradgradcheck(formulation):
    input, votes = make(n=1, c=2, h=2, w=2, requires_grad=True)
    assert torch.autograd.gradgradcheck(
        lambda *maps: dynamic_deconv2d(*maps, stride=2, formulation=formulation),
        (input, votes),
    )


@backends
@pytest.mark.parametrize('needs', [(True, False), (False, True)])
def test_one_gradient_alone(backend, needs):
    input, votes = make()
    input.requires_grad_(needs[0]), votes.requires_grad_(needs[1])
    dynamic_deconv2d(input, votes, stride=2, backend=backend).sum().backward()
    assert (input.grad is not None, votes.grad is not None) == needs


@backends
@formulations
def test_odd_sizes_of_the_paper(backend, formulation):
    input, votes = make(c=19, h=4, w=4)
    output = dynamic_deconv2d(
        input,
        votes,
        stride=2,
        output_size=(7, 7),
        formulation=formulation,
        backend=backend,
    )
    whole = dynamic_deconv2d(
        input, votes, stride=2, formulation=formulation, backend=backend
    )
    assert whole.shape[2:] == (8, 8)
    torch.testing.assert_close(output, whole[..., :7, :7])


@backends
@formulations
@pytest.mark.parametrize('shape', [(0, 4, 3, 3), (2, 0, 3, 3), (2, 4, 0, 3)])
def test_empty_maps(backend, formulation, shape):
    n, c, h, w = shape
    input, votes = make(n, c, h, w, requires_grad=True)
    output = dynamic_deconv2d(
        input, votes, stride=2, formulation=formulation, backend=backend
    )
    assert output.shape == (n, c, 2 * h, 2 * w)
    output.sum().backward()
    assert input.grad.shape == input.shape
    assert votes.grad.shape == votes.shape


@backends
@formulations
@pytest.mark.parametrize('layout', ('channels_last', 'mixed', 'strided', 'expanded'))
def test_memory_layouts(backend, formulation, layout):
    input, votes = make(c=6, h=6, w=6)
    if layout == 'channels_last':
        odd = [x.to(memory_format=torch.channels_last) for x in (input, votes)]
    elif layout == 'mixed':
        odd = [input.to(memory_format=torch.channels_last), votes]
    elif layout == 'strided':
        odd = [x.transpose(2, 3)[:, :, ::2] for x in (input, votes)]
    else:
        odd = [x[:1].expand(2, -1, -1, -1) for x in (input, votes)]
    plain = [x.contiguous() for x in odd]
    results = []
    for pair in (odd, plain):
        pair = [x.detach().requires_grad_() for x in pair]
        output = dynamic_deconv2d(
            *pair, stride=2, formulation=formulation, backend=backend
        )
        output.square().sum().backward()
        results.append((output, *(x.grad for x in pair)))
    torch.testing.assert_close(results[0], results[1])


@backends
@formulations
@pytest.mark.parametrize('dtype', (torch.half, torch.bfloat16))
def test_half_precision(backend, formulation, dtype):
    """Against the same rounded numbers in double precision."""
    input, votes = (x.to(dtype) for x in make(h=6, w=6))
    pair = [x.clone().requires_grad_() for x in (input, votes)]
    output = dynamic_deconv2d(*pair, stride=2, formulation=formulation, backend=backend)
    output.sum().backward()
    assert output.dtype == pair[0].grad.dtype == pair[1].grad.dtype == dtype
    exact = [x.double().requires_grad_() for x in (input, votes)]
    expected = dynamic_deconv2d(*exact, stride=2, formulation=formulation)
    expected.sum().backward()
    ulp = torch.finfo(dtype).eps
    # the step update sums in the map's own precision
    tolerance = (
        dict(atol=16 * ulp, rtol=8 * ulp)
        if backend == 'reference'
        else dict(atol=4 * ulp, rtol=2 * ulp)
    )
    for mine, truth in (
        (output, expected),
        (pair[0].grad, exact[0].grad),
        (pair[1].grad, exact[1].grad),
    ):
        torch.testing.assert_close(mine.double(), truth, **tolerance)


@pytest.mark.parametrize(
    'dtype', [torch.bfloat16, pytest.param(torch.half, marks=needs_half_autocast)]
)
def test_autocast_does_what_conv_transpose2d_does(dtype):
    for source in (torch.float32, torch.float64):
        input, votes = make(dtype=source, requires_grad=True)
        weight = torch.randn(4, 1, 3, 3, dtype=source)
        with torch.autocast('cpu', dtype=dtype):
            output = dynamic_deconv2d(input, votes)
            expected = F.conv_transpose2d(input, weight, padding=1, groups=4)
        assert output.dtype == expected.dtype
        output.float().sum().backward()
        assert input.grad.dtype == votes.grad.dtype == source
    # mixed precisions, as they leave the layers before, are no error
    with torch.autocast('cpu', dtype=dtype):
        mixed = dynamic_deconv2d(
            torch.randn(1, 2, 3, 3), torch.randn(1, 9, 3, 3, dtype=dtype)
        )
    assert mixed.dtype == dtype


def _peak_beyond(function, output_bytes):
    """Peak memory that torch allocates in ``function``, in outputs."""
    from benchmarks.memory import MIB, peak_memory

    return peak_memory(function, 'cpu') * MIB / output_bytes


@formulations
def test_memory_of_matrix(formulation):
    """At 19×512×512, stride 1, no k²-times-larger tensor: at most 3 times
    the output, forward and backward."""
    input = torch.randn(1, 19, 512, 512, requires_grad=True)
    votes = torch.randn(1, 9, 512, 512, requires_grad=True)
    size = input.numel() * input.element_size()
    output = []
    peak = _peak_beyond(
        lambda: output.append(dynamic_deconv2d(input, votes, formulation=formulation)),
        size,
    )
    assert 1 <= peak <= 3, f'{peak} times the output, forward'
    grad = torch.ones_like(output[0])
    peak = _peak_beyond(lambda: output.pop().backward(grad), size)
    assert 1 <= peak <= 3, f'{peak} times the output, backward'


def test_two_threads_at_once():
    pairs = [make(h=16, w=16) for _ in range(2)]
    expected = [dynamic_deconv2d(*pair) for pair in pairs]
    results = [[], []]

    def work(which):
        for _ in range(20):
            results[which].append(dynamic_deconv2d(*pairs[which]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for truth, found in zip(expected, results):
        assert len(found) == 20
        assert all(torch.equal(truth, one) for one in found)


@pytest.mark.parametrize(
    'kernel_size,stride', [(k, s) for k in KERNELS for s in STRIDES if s <= k]
)
def test_upsampling_kernel_keeps_a_constant(kernel_size, stride):
    kernel = upsampling_kernel(kernel_size, stride)
    votes = kernel.reshape(1, -1, 1, 1).expand(-1, -1, 9, 9)
    output = dynamic_deconv2d(torch.ones(1, 1, 9, 9), votes, kernel_size, stride)
    inside = output[..., kernel_size:-kernel_size, kernel_size:-kernel_size]
    torch.testing.assert_close(inside, torch.ones_like(inside))


def test_upsampling_kernel_is_bilinear():
    """At stride 2 it is torch's bilinear interpolation, corners aligned."""
    input = torch.randn(1, 3, 5, 6)
    votes = upsampling_kernel(3, 2).reshape(1, 9, 1, 1).expand(-1, -1, 5, 6)
    output = dynamic_deconv2d(input, votes, stride=2, output_size=(9, 11))
    expected = F.interpolate(input, size=(9, 11), mode='bilinear', align_corners=True)
    torch.testing.assert_close(output, expected)


def test_module_is_the_function():
    input, votes = make(groups=2, kernel_size=5)
    module = DynamicDeconv2d(5, 2, groups=2, formulation='factored')
    expected = dynamic_deconv2d(input, votes, 5, 2, groups=2, formulation='factored')
    assert torch.equal(module(input, votes), expected)
    assert not list(module.parameters())
    assert 'stride=2' in repr(module) and 'factored' in repr(module)


def test_upsample_layer_from_a_config():
    from mmcv.cnn import build_upsample_layer

    import pvd_mm.decoder  # noqa: F401 - registers it

    layer = build_upsample_layer(
        dict(type='pixel_voting', channels=8, scale_factor=2, groups=2)
    )
    assert isinstance(layer, DynamicDeconv2dPack)
    assert layer.scale_factor == 2
    x = torch.randn(2, 8, 5, 5)
    expected = F.interpolate(x, size=(9, 9), mode='bilinear', align_corners=True)
    torch.testing.assert_close(layer(x)[..., :9, :9], expected)
    assert layer(x).shape == (2, 8, 10, 10)


def test_upsample_layer_in_a_model_that_initialises_its_convolutions():
    """FPN's way to initialise is in ``init_cfg`` of a parent."""
    from mmengine.model import BaseModule

    class Neck(BaseModule):
        def __init__(self):
            super().__init__(dict(type='Xavier', layer='Conv2d', bias=1.0))
            self.lateral = torch.nn.Conv2d(4, 8, 1)
            self.upsample = DynamicDeconv2dPack(8, scale_factor=2)

    neck = Neck()
    neck.init_weights()
    assert (neck.lateral.bias == 1).all() and (
        neck.upsample.compress[0].bias == 1
    ).all()
    x = torch.randn(2, 8, 5, 5)
    expected = F.interpolate(x, size=(9, 9), mode='bilinear', align_corners=True)
    torch.testing.assert_close(neck.upsample(x)[..., :9, :9], expected)


def test_names_that_are_taken_for_convolutions():
    """What has "conv" in its name in mmengine's registry is built as a convolution, by
    mmcv's own tests for one."""
    from mmcv.cnn import build_conv_layer
    from mmengine.registry import MODELS

    import pvd_mm.decoder  # noqa: F401 - registers its layers

    names = [
        name
        for name, module in MODELS.module_dict.items()
        if 'conv' in name.lower() and 'Sparse' not in name and 'SubM' not in name
    ]
    assert {'Conv2d', 'deconv'} < set(names)
    for name in names:
        layer = build_conv_layer(
            dict(type=name), in_channels=4, out_channels=8, kernel_size=3, dilation=2
        )
        assert (layer.in_channels, layer.out_channels) == (4, 8)


BAD = [
    (dict(kernel_size=4), ValueError, 'kernel_size must be odd.*4'),
    (dict(kernel_size=3.0), TypeError, 'kernel_size must be an int'),
    (dict(kernel_size=(3, 3)), TypeError, 'kernel_size must be an int'),
    (dict(kernel_size=5), ValueError, r'25 channels, but got 9'),
    (dict(stride=0), ValueError, 'stride must be at least 1'),
    (dict(stride=True), TypeError, 'stride must be an int'),
    (dict(padding=-1), ValueError, 'padding must be at least 0'),
    (dict(padding=9), ValueError, 'padding=9 leaves nothing'),
    (dict(groups=3), ValueError, 'groups must divide the 4 channels'),
    (dict(groups=2), ValueError, r'2 \* 3\*\*2 = 18 channels, but got 9'),
    (
        dict(stride=2, output_size=(9, 10)),
        ValueError,
        r'between \(7, 9\) and \(8, 10\).*got \(9, 10\)',
    ),
    (dict(output_size=7), ValueError, 'output_size must be'),
    (dict(output_size=4.5), ValueError, r'output_size must be.*got 4\.5'),
    (dict(output_size='45'), ValueError, 'output_size must be'),
    (dict(output_size=(4, 5, 6)), ValueError, 'output_size must be'),
    (dict(output_size=torch.tensor([4, 5])), ValueError, 'output_size must'),
    (dict(output_size=(4.0, 5)), TypeError, 'output_size must be an int'),
    (dict(formulation='fast'), ValueError, 'formulation must be one of.*fast'),
    (dict(backend='cuda'), ValueError, "backend must be one of.*'cuda'"),
]


# They are told before it matters whether the backend is there.
every_backend = pytest.mark.parametrize('backend', ('auto', *BACKENDS))


@every_backend
@pytest.mark.parametrize('change,error,message', BAD)
def test_bad_arguments(backend, change, error, message):
    input, votes = make()
    with pytest.raises(error, match=message):
        dynamic_deconv2d(input, votes, **{'backend': backend, **change})


@every_backend
def test_bad_tensors(backend):
    input, votes = make()
    small = torch.float8_e5m2
    cases = [
        (input.long(), votes, TypeError, 'input must be a floating point'),
        (input, votes.long(), TypeError, 'votes must be a floating point'),
        (input.float(), votes, TypeError, 'one dtype'),
        (input.to('meta'), votes, ValueError, 'one device.*meta'),
        (input[0], votes, ValueError, '4 dimensions'),
        (input, votes[:, :8], ValueError, '9 channels, but got 8'),
        (input, votes[:1], ValueError, 'batch size, height and width'),
        (input, votes[..., :4], ValueError, 'batch size, height and width'),
        (input.numpy(), votes, TypeError, 'input must be a Tensor'),
        (input, None, TypeError, 'votes must be a Tensor'),
        (input.to(small), votes.to(small), TypeError, '16 bits or more.*e5m2'),
        (input.to_sparse(), votes, TypeError, 'input must be a dense.*sparse'),
        (input, votes.to_sparse(), TypeError, 'votes must be a dense.*sparse'),
    ]
    for one, other, error, message in cases:
        with pytest.raises(error, match=message):
            dynamic_deconv2d(one, other, backend=backend)


def test_bad_modules():
    for arguments in (
        dict(kernel_size=2),
        dict(formulation='x'),
        dict(backend='x'),
        dict(stride=0),
    ):
        with pytest.raises(ValueError):
            DynamicDeconv2d(**arguments)
    with pytest.raises(ValueError, match='groups must divide channels=8'):
        DynamicDeconv2dPack(8, groups=3)
    with pytest.raises(ValueError, match='no vote reaches'):
        DynamicDeconv2dPack(8, scale_factor=4)


def test_the_op_needs_torch_alone():
    """In a process of its own, where every mm package is out of reach."""
    code = (
        'import sys\n'
        'for name in ("mmengine", "mmcv", "mmseg", "mmdet"):\n'
        '    sys.modules[name] = None\n'
        'import torch\n'
        'from pvd_mm.ops import dynamic_deconv2d\n'
        'print(dynamic_deconv2d(torch.ones(1, 2, 3, 3), '
        'torch.ones(1, 9, 3, 3)).sum().item())\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    assert float(result.stdout) == 2 * (4 * 4 + 4 * 6 + 9)
