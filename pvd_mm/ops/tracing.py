# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Sizes while ``torch.jit.trace`` or torch's older ONNX exporter is at work.

What is compared and branched on must be an int. What a traced operator gets must be
the tensor that the tracer follows, or it keeps the size of the example for ever. A
:class:`TracedSide` is both.
"""

import warnings

import torch
from torch import Tensor


class TracedSide(int):
    """A side of a map, as an int that has its 0-dimensional ``tensor`` with it.

    Sums, differences, products and floor divisions with ints have theirs.

    Args:
        side (Tensor): As the tracer hands it out.
    """

    tensor: Tensor

    def __new__(cls, side: Tensor) -> 'TracedSide':
        """See the class."""
        with warnings.catch_warnings():
            # "might cause the trace to be incorrect": that is what tensor is for
            warnings.simplefilter('ignore', torch.jit.TracerWarning)
            self = super().__new__(cls, side)
        self.tensor = side
        return self


def _traced(name: str):
    def method(self: TracedSide, *others: int):
        if not all(isinstance(other, int) for other in others):
            return NotImplemented
        function = getattr(self.tensor, name)
        return TracedSide(function(*(getattr(x, 'tensor', x) for x in others)))

    return method


for _name in ('add', 'radd', 'sub', 'rsub', 'mul', 'rmul', 'floordiv', 'neg'):
    setattr(TracedSide, f'__{_name}__', _traced(f'__{_name}__'))


def sizes_of(tensor: Tensor) -> tuple[int, ...]:
    """The shape, in ints also where the tracer hands out tensors."""
    if torch.jit.is_tracing():
        return tuple(map(traced_side, tensor.shape))
    return tuple(tensor.shape)


def traced_side(side: int | Tensor) -> TracedSide:
    """A side, of whichever type, as the tracer follows it."""
    if isinstance(side, TracedSide):
        return side
    return TracedSide(side if isinstance(side, Tensor) else torch.full((), side))
