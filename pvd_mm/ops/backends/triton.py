# Copyright (c) PVD-MM contributors. Apache-2.0.
"""GPU kernels in Triton, forward and backward, in gather form.

Nothing is scattered, so there are no atomics and the result is the same in
every run. Two fused kernels do the usual work: their lanes hold the votes of
some pixels in registers and walk over the channels, so that input, votes and
output are each read or written once. Three plain ones, which hold nothing,
take the rest: large windows, large strides, the gradient of `factored`
where border pixels own more of the output than others do, and everything with
a Triton before 3.3.

Shape shorthand: N batch, G groups, C channels per group, k window, s stride,
p padding, (H, W) input size, (H', W') output size. M is the fused input
(N, G·C, H, W), V the votes (N, G·k², H, W), D the output (N, G·C, H', W'). Of
the strides M_n is M's by sample, M_c by channel, M_y by row and M_x by column.

Where things lie, per side (rows here; columns alike), all from
y = s·i + u - p, the output row that position u of input row i reaches:

* Output row y = s·q + b, of "cell" q and phase 0 ≤ b < s, is reached by the
  positions u ≡ b + p (mod s) alone, from the input rows q + (b + p - u) / s.
* `factored` takes M at the own source q + floor((b - centre) / s), clamped to
  the map, with centre = (k - 1) / 2 - p.
* Seen from input row i, position u lies in cells of the own source
  i + floor((u - (k - 1) / 2) / s), and row i owns the s positions from
  (k - 1) / 2 on.

Offsets: an index is turned into int64 before it is multiplied by a stride, so
that tensors of more than 2³¹ elements are addressed rightly. Program ids fit
int32: a program writes at least one output tile of its own.
"""

from contextlib import nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from ..checks import Geometry, format_like

try:
    import triton
    import triton.language as tl
except ImportError as error:
    _PROBLEM = f'triton is not installed ({error})'
else:
    _PROBLEM = None
    _VERSION = tuple(map(int, triton.__version__.split('.')[:2]))
    if _VERSION < (3, 0):  # the first whose interpreter runs the kernels
        _PROBLEM = (
            f'triton {triton.__version__} is older than 3.0, which comes with torch 2.4'
        )

_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


def why_not(device: torch.device, dtype: torch.dtype) -> str | None:
    """Why this backend cannot run there; None if it can."""
    if _PROBLEM:
        return _PROBLEM
    if dtype not in _DTYPES:
        return f'triton has no kernels for {dtype}'
    if _INTERPRETED:
        return (
            None
            if device.type in ('cpu', 'cuda')
            else (f"triton's interpreter does not run on {device.type}")
        )
    if device.type != 'cuda':
        return (
            f'triton needs a GPU, but the tensors are on {device.type} '
            '(TRITON_INTERPRET=1 runs its interpreter on the CPU, slowly)'
        )
    return None


class Tile(NamedTuple):
    """What one program works on, at a time and in all."""

    rows: int  # of cells (forward) or input pixels (backward), per lane
    block_c: int  # channels side by side, a power of 2
    block_x: int  # columns side by side, a power of 2
    chunk: int  # channels in all


# Programs that keep the hundred-odd multiprocessors of a large GPU busy.
_ENOUGH = 1024


def _tile(
    batch: int,
    channels: int,
    rows: int,
    columns: int,
    window: int,
    channels_last: bool,
    share: bool,
) -> Tile:
    """The block sizes, from the shapes alone: no timing at the first call.

    A lane has one column, so that neighbouring lanes touch neighbouring
    addresses whatever the shift, and as many rows as registers allow: rows of
    a lane share what they load. Where the map gives too few programs, the
    channels are shared out among lanes of a program (``share``: they have a
    sum in common) or else among programs.

    Args:
        batch (int): N·G.
        channels (int): C.
        rows (int): Rows of cells or of input pixels.
        columns (int): Columns likewise.
        window (int): Values of a pixel that a lane keeps in registers.
        channels_last (bool): Whether lanes should lie along the channels.
        share (bool): Whether a program must see all channels.
    """
    per_lane = max(1, min(4, 36 // window, rows))
    block_x = min(128, _power_of_2(columns))
    if channels_last:
        block_x = min(block_x, 8)
    block_c = min(128 // block_x, _power_of_2(channels))

    def programs():
        return batch * -(-rows // per_lane) * -(-columns // block_x)

    if share:
        if programs() < _ENOUGH:
            per_lane = 1
        while programs() < _ENOUGH and block_x > 32:
            block_x //= 2
        while (
            programs() * block_c < _ENOUGH
            and block_c < channels
            and block_c * block_x < 256
        ):
            block_c *= 2
        return Tile(per_lane, block_c, block_x, channels)
    pieces = min(-(-_ENOUGH // programs()), -(-channels // block_c))
    chunk = -(-channels // pieces)
    return Tile(per_lane, block_c, block_x, -(-chunk // block_c) * block_c)


def _power_of_2(number: int) -> int:
    """The least one that is not smaller."""
    return 1 << max(number - 1, 0).bit_length()


def _warps(lanes: int) -> int:
    """One element of a tile per thread, as far as possible."""
    return max(1, lanes // (64 if torch.version.hip else 32))


def _empty(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(
        shape, dtype=like.dtype, device=like.device, memory_format=format_like(like)
    )


def _on(device: torch.device):
    """Triton launches on the current device, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == 'cuda' else nullcontext()


def _fits_registers(geometry: Geometry) -> bool:
    """Whether the fused kernels take it; they unroll k² and s² values, in tuples,
    which compilers before Triton 3.3 don't know."""
    return geometry.kernel_size <= 7 and geometry.stride <= 7 and _VERSION >= (3, 3)


def _accumulator(tensor: Tensor):
    return tl.float64 if tensor.dtype == torch.float64 else tl.float32


_PLAIN_BLOCK = 128


def forward(
    input: Tensor,
    votes: Tensor,
    geometry: Geometry,
    formulation: str,
    tile: Tile | None = None,
    plain: bool = False,
) -> Tensor:
    """D (N, G·C, H', W') from M (N, G·C, H, W) and V (N, G·k², H, W).

    ``tile`` and ``plain`` overrule the choice of block sizes and kernels.
    """
    k, s, p, (out_h, out_w), groups = geometry
    n, c, h, w = input.shape
    output = _empty(input, n, c, out_h, out_w)
    if not input.numel() or not output.numel():
        return output.zero_()  # no window at all
    maps = (
        input,
        votes,
        output,
        *input.stride(),
        *votes.stride(),
        *output.stride(),
        c // groups,
        groups,
        h,
        w,
        out_h,
        out_w,
    )
    options = dict(FACTORED=formulation == 'factored', ACC=_accumulator(input))
    with _on(input.device):
        if plain or not _fits_registers(geometry):
            grid = (n * c * triton.cdiv(out_h * out_w, _PLAIN_BLOCK),)
            _plain_forward[grid](*maps, k, s, p, **options, BLOCK=_PLAIN_BLOCK)
            return output
        rows, cols = triton.cdiv(out_h, s), triton.cdiv(out_w, s)
        tile = tile or _tile(
            n * groups,
            c // groups,
            rows,
            cols,
            max(k * k, s * s),
            output.stride(1) == 1 < c,
            False,
        )
        grid = (
            n
            * groups
            * triton.cdiv(c // groups, tile.chunk)
            * triton.cdiv(rows, tile.rows)
            * triton.cdiv(cols, tile.block_x),
        )
        _forward[grid](
            *maps,
            tile.chunk,
            K=k,
            S=s,
            P=p,
            INTERLEAVE=s == 2 and out_w % 2 == 0 and output.stride(3) == 1,
            ROWS=tile.rows,
            BLOCK_C=tile.block_c,
            BLOCK_X=tile.block_x,
            num_warps=_warps(tile.block_c * tile.block_x),
            **options,
        )
    return output


def backward(
    grad: Tensor,
    input: Tensor,
    votes: Tensor,
    geometry: Geometry,
    formulation: str,
    needs: tuple[bool, bool] = (True, True),
    tile: Tile | None = None,
    plain: bool = False,
) -> tuple[Tensor | None, Tensor | None]:
    """∂M and ∂V from ∂D (N, G·C, H', W'); None where ``needs`` is False.

    ``tile`` and ``plain`` overrule the choice of block sizes and kernels.
    """
    k, s, p, (out_h, out_w), groups = geometry
    n, c, h, w = input.shape
    input_grad = _empty(input, *input.shape) if needs[0] else None
    votes_grad = _empty(votes, *votes.shape) if needs[1] else None
    wanted = [x for x in (input_grad, votes_grad) if x is not None]
    if not input.numel() or not grad.numel() or not wanted:
        for x in wanted:
            x.zero_()
        return input_grad, votes_grad
    sizes = (c // groups, groups, h, w, out_h, out_w)
    factored = formulation == 'factored'
    options = dict(FACTORED=factored, ACC=_accumulator(input))
    centre = (k - 1) // 2 - p
    with _on(input.device):
        if plain or not _fits_registers(geometry) or factored and centre > 0:
            grid = n * triton.cdiv(h * w, _PLAIN_BLOCK)
            options['BLOCK'] = _PLAIN_BLOCK
            if needs[0]:
                # positions of the output that one pixel adds up, at most
                extents = [
                    (out if side == 1 else s + max(centre, 0)) if factored else k
                    for side, out in ((h, out_h), (w, out_w))
                ]
                _plain_input_grad[(grid * c,)](
                    grad,
                    votes,
                    input_grad,
                    *grad.stride(),
                    *votes.stride(),
                    *input_grad.stride(),
                    *sizes,
                    k,
                    s,
                    p,
                    *extents,
                    **options,
                )
            if needs[1]:
                _plain_votes_grad[(grid * groups * k * k,)](
                    grad,
                    input,
                    votes_grad,
                    *grad.stride(),
                    *input.stride(),
                    *votes_grad.stride(),
                    *sizes,
                    k,
                    s,
                    p,
                    **options,
                )
            return input_grad, votes_grad
        tile = tile or _tile(
            n * groups,
            c // groups,
            h,
            w,
            2 * max(k * k, s * s),
            grad.stride(1) == 1 < c,
            True,
        )
        grid = (n * groups * triton.cdiv(h, tile.rows) * triton.cdiv(w, tile.block_x),)
        # a gradient that is not needed is never touched: any tensor stands in
        input_out = input if input_grad is None else input_grad
        votes_out = votes if votes_grad is None else votes_grad
        _backward[grid](
            grad,
            input,
            votes,
            input_out,
            votes_out,
            *grad.stride(),
            *input.stride(),
            *votes.stride(),
            *input_out.stride(),
            *votes_out.stride(),
            *sizes,
            K=k,
            S=s,
            P=p,
            NEEDS_M=needs[0],
            NEEDS_V=needs[1],
            ROWS=tile.rows,
            BLOCK_C=tile.block_c,
            BLOCK_X=tile.block_x,
            num_warps=_warps(tile.block_c * tile.block_x),
            **options,
        )
    return input_grad, votes_grad


if _PROBLEM is None:
    # Sizes must not make a kernel of their own each: images come in any size.
    # Strides do, by whether they are 1 and whether they are aligned: the first
    # orders the lanes, the second lets `_forward` store two columns at once.
    _SIZES = ['C', 'G', 'H', 'W', 'H_out', 'W_out']
    _NUMBERS = [*_SIZES, 'k', 's', 'p', 'rows', 'cols']

    @triton.jit(do_not_specialize=[*_SIZES, 'chunk'])
    def _forward(
        M,
        V,
        D,
        M_n,
        M_c,
        M_y,
        M_x,
        V_n,
        V_c,
        V_y,
        V_x,
        D_n,
        D_c,
        D_y,
        D_x,
        C,
        G,
        H,
        W,
        H_out,
        W_out,
        chunk,
        K: tl.constexpr,
        S: tl.constexpr,
        P: tl.constexpr,
        FACTORED: tl.constexpr,
        INTERLEAVE: tl.constexpr,
        ACC: tl.constexpr,
        ROWS: tl.constexpr,
        BLOCK_C: tl.constexpr,
        BLOCK_X: tl.constexpr,
    ):
        """A program: ROWS × BLOCK_X cells of one group of one sample. A lane:
        a column of cells, ROWS·s output rows by s columns, of every
        BLOCK_C-th channel."""
        CENTRE: tl.constexpr = (K - 1) // 2 - P
        # input pixels of a cell's outputs: SPAN of them from LOW on, per side
        LOW: tl.constexpr = -CENTRE // S if FACTORED else -((K - 1 - P) // S)
        HIGH: tl.constexpr = (S - 1 - CENTRE) // S if FACTORED else -(-P // S)
        SPAN: tl.constexpr = HIGH - LOW + 1

        pid = tl.program_id(0)
        columns = tl.cdiv(tl.cdiv(W_out, S), BLOCK_X)
        rows = tl.cdiv(tl.cdiv(H_out, S), ROWS)
        chunks = tl.cdiv(C, chunk)
        block_x = (pid % columns).to(tl.int64)
        pid //= columns
        # a block too: Triton 3.9's interpreter broadcasts no mask from a scalar
        i = tl.full([1, 1], pid % rows, tl.int64) * ROWS
        pid //= rows
        first = (pid % chunks).to(tl.int64) * chunk
        pid //= chunks
        g = (pid % G).to(tl.int64)
        n = (pid // G).to(tl.int64)
        last = tl.minimum(first + chunk, C)
        j = block_x * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
        pair = block_x * (2 * BLOCK_X) + tl.arange(0, 2 * BLOCK_X)[None, :]
        lane_c = tl.arange(0, BLOCK_C)[:, None]
        M += n * M_n
        V += n * V_n
        D += n * D_n

        # What reaches these cells, ROWS × k × k; every vote is read once.
        votes = ()
        for r in tl.static_range(ROWS):
            for u in tl.static_range(K):
                for v in tl.static_range(K):
                    y, x = i + (r - (u - P) // S), j - (v - P) // S
                    votes += (
                        tl.load(
                            V + (g * (K * K) + (u * K + v)) * V_c + y * V_y + x * V_x,
                            mask=(y >= 0) & (y < H) & (x >= 0) & (x < W),
                            other=0,
                        ).to(ACC),
                    )
        # Their sums, ROWS × s × s: all that `factored` needs of them.
        sums = ()
        if FACTORED:
            zero = tl.zeros([1, BLOCK_X], ACC)
            for r in tl.static_range(ROWS):
                for a in tl.static_range(S):
                    for b in tl.static_range(S):
                        vote_sum = zero
                        for u in tl.static_range((a + P) % S, K, S):
                            for v in tl.static_range((b + P) % S, K, S):
                                vote_sum += votes[(r * K + u) * K + v]
                        sums += (vote_sum,)

        zero = tl.zeros([BLOCK_C, BLOCK_X], ACC)
        for c0 in range(first, last, BLOCK_C):
            c = c0 + lane_c
            m = M + (g * C + c) * M_c
            patch = ()  # of M, (ROWS + SPAN - 1) × SPAN
            for a in tl.static_range(ROWS + SPAN - 1):
                for b in tl.static_range(SPAN):
                    y, x, ok = i + (a + LOW), j + (b + LOW), c < last
                    if FACTORED:
                        y = tl.minimum(tl.maximum(y, 0), H - 1)
                        x = tl.minimum(tl.maximum(x, 0), W - 1)
                    else:  # 0 where the vote is 0 too: there is no 0·∞
                        ok &= (y >= 0) & (y < H) & (x >= 0) & (x < W)
                    patch += (tl.load(m + y * M_y + x * M_x, mask=ok, other=0).to(ACC),)
            d = D + (g * C + c) * D_c
            for r in tl.static_range(ROWS):
                for a in tl.static_range(S):
                    line = ()
                    for b in tl.static_range(S):
                        total = zero
                        if FACTORED:
                            total = (
                                sums[(r * S + a) * S + b]
                                * patch[
                                    (r + (a - CENTRE) // S - LOW) * SPAN
                                    + (b - CENTRE) // S
                                    - LOW
                                ]
                            )
                        else:
                            for u in tl.static_range((a + P) % S, K, S):
                                for v in tl.static_range((b + P) % S, K, S):
                                    total += (
                                        votes[(r * K + u) * K + v]
                                        * patch[
                                            (r - (u - P) // S - LOW) * SPAN
                                            - (v - P) // S
                                            - LOW
                                        ]
                                    )
                        line += (total,)
                    y = (i + r) * S + a
                    row = d + y * D_y
                    ok = (c < last) & (y < H_out)
                    if INTERLEAVE:  # s = 2 and an even W': one wide store
                        tl.store(
                            row + pair * D_x,
                            tl.interleave(line[0], line[1]),
                            mask=ok & (pair // 2 < W_out // 2),
                        )
                    else:
                        for b in tl.static_range(S):
                            x = j * S + b
                            tl.store(row + x * D_x, line[b], mask=ok & (x < W_out))

    @triton.jit(do_not_specialize=_SIZES)
    def _backward(
        D,
        M,
        V,
        GM,
        GV,
        D_n,
        D_c,
        D_y,
        D_x,
        M_n,
        M_c,
        M_y,
        M_x,
        V_n,
        V_c,
        V_y,
        V_x,
        GM_n,
        GM_c,
        GM_y,
        GM_x,
        GV_n,
        GV_c,
        GV_y,
        GV_x,
        C,
        G,
        H,
        W,
        H_out,
        W_out,
        K: tl.constexpr,
        S: tl.constexpr,
        P: tl.constexpr,
        NEEDS_M: tl.constexpr,
        NEEDS_V: tl.constexpr,
        FACTORED: tl.constexpr,
        ACC: tl.constexpr,
        ROWS: tl.constexpr,
        BLOCK_C: tl.constexpr,
        BLOCK_X: tl.constexpr,
    ):
        """D is ∂D here, GM is ∂M and GV is ∂V. A program: ROWS × BLOCK_X
        input pixels of one group of one sample, all its channels. A lane:
        ROWS pixels, one above the other, of every BLOCK_C-th channel. Both
        gradients take the same window of ∂D, which is read once."""
        HALF: tl.constexpr = (K - 1) // 2
        # positions that ∂M sums, per side: the window, or the s owned ones
        FIRST: tl.constexpr = HALF if FACTORED else 0
        COUNT: tl.constexpr = S if FACTORED else K
        # positions of ∂D that are loaded: SPAN of them from START on
        START: tl.constexpr = 0 if NEEDS_V else FIRST
        STOP_M: tl.constexpr = FIRST + COUNT if NEEDS_M else 0
        STOP_V: tl.constexpr = K if NEEDS_V else 0
        SPAN: tl.constexpr = (STOP_M if STOP_M > STOP_V else STOP_V) - START
        # own sources of the window's positions: M_SPAN of them from LOW on
        LOW: tl.constexpr = -HALF // S if FACTORED else 0
        M_SPAN: tl.constexpr = HALF // S - LOW + 1 if FACTORED else 1

        pid = tl.program_id(0)
        columns = tl.cdiv(W, BLOCK_X)
        rows = tl.cdiv(H, ROWS)
        j = (pid % columns).to(tl.int64) * BLOCK_X + tl.arange(0, BLOCK_X)[None, :]
        pid //= columns
        i = tl.full([1, 1], pid % rows, tl.int64) * ROWS
        pid //= rows
        g = (pid % G).to(tl.int64)
        n = (pid // G).to(tl.int64)
        lane_c = tl.arange(0, BLOCK_C)[:, None]
        D += n * D_n
        M += n * M_n
        V += n * V_n
        GM += n * GM_n
        GV += n * GV_n

        # By what ∂M weighs each of its positions: the pixel's own vote, or
        # all votes that reach the position. ROWS × COUNT × COUNT
        weights = ()
        if NEEDS_M:
            zero = tl.zeros([1, BLOCK_X], ACC)
            for r in tl.static_range(ROWS):
                for a in tl.static_range(FIRST, FIRST + COUNT):
                    for b in tl.static_range(FIRST, FIRST + COUNT):
                        y, x = (i + r) * S + (a - P), j * S + (b - P)
                        ok = (y >= 0) & (y < H_out) & (x >= 0) & (x < W_out)
                        weight = zero
                        for u in tl.static_range(
                            a % S if FACTORED else a, K if FACTORED else a + 1, S
                        ):
                            for v in tl.static_range(
                                b % S if FACTORED else b, K if FACTORED else b + 1, S
                            ):
                                y = i + (r + (a - u) // S)
                                x = j + (b - v) // S
                                weight += tl.load(
                                    V
                                    + (g * (K * K) + (u * K + v)) * V_c
                                    + y * V_y
                                    + x * V_x,
                                    mask=ok & (y >= 0) & (y < H) & (x >= 0) & (x < W),
                                    other=0,
                                ).to(ACC)
                        weights += (weight,)

        zero = tl.zeros([BLOCK_C, BLOCK_X], ACC)
        sums = ()  # of ∂V, ROWS × k × k
        if NEEDS_V:
            for _ in tl.static_range(ROWS * K * K):
                sums += (zero,)

        for c0 in range(0, C, BLOCK_C):
            c = c0 + lane_c
            d = D + (g * C + c) * D_c
            window = ()  # of ∂D, (s·(ROWS - 1) + SPAN) × SPAN
            for a in tl.static_range(S * (ROWS - 1) + SPAN):
                for b in tl.static_range(SPAN):
                    y, x = i * S + (a + START - P), j * S + (b + START - P)
                    window += (
                        tl.load(
                            d + y * D_y + x * D_x,
                            mask=(c < C)
                            & (y >= 0)
                            & (y < H_out)
                            & (x >= 0)
                            & (x < W_out),
                            other=0,
                        ).to(ACC),
                    )
            if NEEDS_M:
                gm = GM + (g * C + c) * GM_c
                for r in tl.static_range(ROWS):
                    total = zero
                    for a in tl.static_range(COUNT):
                        for b in tl.static_range(COUNT):
                            total += (
                                weights[(r * COUNT + a) * COUNT + b]
                                * window[
                                    (r * S + a + FIRST - START) * SPAN
                                    + b
                                    + FIRST
                                    - START
                                ]
                            )
                    tl.store(
                        gm + (i + r) * GM_y + j * GM_x,
                        total,
                        mask=(c < C) & (i + r < H) & (j < W),
                    )
            if NEEDS_V:
                m = M + (g * C + c) * M_c
                patch = ()  # of M, (ROWS + M_SPAN - 1) × M_SPAN
                for a in tl.static_range(ROWS + M_SPAN - 1):
                    for b in tl.static_range(M_SPAN):
                        y = tl.minimum(tl.maximum(i + (a + LOW), 0), H - 1)
                        x = tl.minimum(tl.maximum(j + (b + LOW), 0), W - 1)
                        patch += (
                            tl.load(
                                m + y * M_y + x * M_x,
                                mask=c < C,
                                other=0,
                            ).to(ACC),
                        )
                added = ()
                for r in tl.static_range(ROWS):
                    for u in tl.static_range(K):
                        for v in tl.static_range(K):
                            added += (
                                sums[(r * K + u) * K + v]
                                + window[(r * S + u) * SPAN + v]
                                * patch[
                                    (r + (u - HALF) // S - LOW) * M_SPAN
                                    + (v - HALF) // S
                                    - LOW
                                    if FACTORED
                                    else r
                                ],
                            )
                sums = added

        if NEEDS_V:
            for r in tl.static_range(ROWS):
                for u in tl.static_range(K):
                    for v in tl.static_range(K):
                        total = sums[(r * K + u) * K + v]
                        if BLOCK_C > 1:
                            total = tl.sum(total, axis=0, keep_dims=True)
                        # out of the output the sum may hold 0·∞, so not 0
                        y, x = (i + r) * S + (u - P), j * S + (v - P)
                        ok = (y >= 0) & (y < H_out) & (x >= 0) & (x < W_out)
                        tl.store(
                            GV
                            + (g * (K * K) + (u * K + v)) * GV_c
                            + (i + r) * GV_y
                            + j * GV_x,
                            tl.where(ok, total, 0),
                            mask=(i + r < H) & (j < W),
                        )

    @triton.jit
    def _plane(pointer, stride_n, stride_c, n, c):
        """Where map c of sample n begins; both are int64."""
        return pointer + n * stride_n + c * stride_c

    @triton.jit
    def _inside(i, size):
        return (i >= 0) & (i < size)

    @triton.jit
    def _own(y, s, centre, size):
        """The own source. C's division is floor's where y ≥ centre; where it
        is not, both are clamped to 0."""
        return tl.minimum(tl.maximum((y - centre) // s, 0), size - 1)

    @triton.jit
    def _reaching(
        M,
        V,
        M_n,
        M_c,
        M_y,
        M_x,
        V_n,
        V_c,
        V_y,
        V_x,
        n,
        c,
        g,
        y,
        x,
        ok,
        k,
        s,
        p,
        H,
        W,
        FACTORED: tl.constexpr,
        ACC: tl.constexpr,
    ):
        """What reaches the output pixels (y, x): Σ votes times M of their
        pixels, or for `factored` Σ votes alone."""
        total = tl.zeros(y.shape, ACC)
        for t in range(tl.cdiv(k, s)):
            u = (y + p) % s + t * s
            i = (y + p) // s - t
            ok_u = ok & (u < k) & _inside(i, H)
            for r in range(tl.cdiv(k, s)):
                v = (x + p) % s + r * s
                j = (x + p) // s - r
                hit = ok_u & (v < k) & _inside(j, W)
                vote = tl.load(
                    _plane(V, V_n, V_c, n, (g * k + u) * k + v) + i * V_y + j * V_x,
                    mask=hit,
                    other=0,
                ).to(ACC)
                if not FACTORED:
                    vote *= tl.load(
                        _plane(M, M_n, M_c, n, c) + i * M_y + j * M_x,
                        mask=hit,
                        other=0,
                    ).to(ACC)
                total += vote
        return total

    @triton.jit
    def _pixels(height, width, BLOCK: tl.constexpr):
        """A program's place among planes of (height, width): the plane, and
        the coordinates of BLOCK pixels of it, all in int64."""
        pid = tl.program_id(0)
        blocks = tl.cdiv(height.to(tl.int64) * width, BLOCK)
        at = (pid % blocks) * BLOCK + tl.arange(0, BLOCK)
        return pid // blocks, at // width, at % width

    @triton.jit(do_not_specialize=_NUMBERS)
    def _plain_forward(
        M,
        V,
        D,
        M_n,
        M_c,
        M_y,
        M_x,
        V_n,
        V_c,
        V_y,
        V_x,
        D_n,
        D_c,
        D_y,
        D_x,
        C,
        G,
        H,
        W,
        H_out,
        W_out,
        k,
        s,
        p,
        FACTORED: tl.constexpr,
        ACC: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """A program: BLOCK output pixels of one channel of one sample."""
        plane, y, x = _pixels(H_out, W_out, BLOCK)
        n, c = plane // (G * C), plane % (G * C)
        ok = y < H_out
        total = _reaching(
            M,
            V,
            M_n,
            M_c,
            M_y,
            M_x,
            V_n,
            V_c,
            V_y,
            V_x,
            n,
            c,
            c // C,
            y,
            x,
            ok,
            k,
            s,
            p,
            H,
            W,
            FACTORED,
            ACC,
        )
        if FACTORED:
            centre = (k - 1) // 2 - p
            total *= tl.load(
                _plane(M, M_n, M_c, n, c)
                + _own(y, s, centre, H) * M_y
                + _own(x, s, centre, W) * M_x
            ).to(ACC)
        tl.store(
            _plane(D, D_n, D_c, n, c) + y * D_y + x * D_x,
            total,
            mask=ok,
        )

    @triton.jit(do_not_specialize=_NUMBERS)
    def _plain_input_grad(
        D,
        V,
        GM,
        D_n,
        D_c,
        D_y,
        D_x,
        V_n,
        V_c,
        V_y,
        V_x,
        GM_n,
        GM_c,
        GM_y,
        GM_x,
        C,
        G,
        H,
        W,
        H_out,
        W_out,
        k,
        s,
        p,
        rows,
        cols,
        FACTORED: tl.constexpr,
        ACC: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """A program: BLOCK input pixels of one channel of one sample; each
        adds up at most rows × cols pixels of the output."""
        plane, i, j = _pixels(H, W, BLOCK)
        n, c = plane // (G * C), plane % (G * C)
        g = c // C
        # the output that a pixel adds up: [top, bottom) × [left, right)
        if FACTORED:  # what it owns; border pixels also what is beyond them
            centre = (k - 1) // 2 - p
            top = tl.where(i == 0, 0, i * s + centre)
            left = tl.where(j == 0, 0, j * s + centre)
            bottom = tl.where(i == H - 1, H_out, (i + 1) * s + centre)
            right = tl.where(j == W - 1, W_out, (j + 1) * s + centre)
        else:
            top, left = i * s - p, j * s - p
            bottom, right = top + k, left + k
        bottom = tl.where(i < H, tl.minimum(bottom, H_out), 0)
        right = tl.minimum(right, W_out)
        total = tl.zeros([BLOCK], ACC)
        for a in range(rows):
            for b in range(cols):
                y, x = top + a, left + b
                ok = (y >= 0) & (y < bottom) & (x >= 0) & (x < right)
                if FACTORED:
                    weight = _reaching(
                        V,
                        V,
                        V_n,
                        V_c,
                        V_y,
                        V_x,
                        V_n,
                        V_c,
                        V_y,
                        V_x,
                        n,
                        c,
                        g,
                        y,
                        x,
                        ok,
                        k,
                        s,
                        p,
                        H,
                        W,
                        True,
                        ACC,
                    )
                else:
                    weight = tl.load(
                        _plane(V, V_n, V_c, n, (g * k + a) * k + b) + i * V_y + j * V_x,
                        mask=ok,
                        other=0,
                    ).to(ACC)
                total += weight * tl.load(
                    _plane(D, D_n, D_c, n, c) + y * D_y + x * D_x,
                    mask=ok,
                    other=0,
                ).to(ACC)
        tl.store(
            _plane(GM, GM_n, GM_c, n, c) + i * GM_y + j * GM_x,
            total,
            mask=i < H,
        )

    @triton.jit(do_not_specialize=_NUMBERS)
    def _plain_votes_grad(
        D,
        M,
        GV,
        D_n,
        D_c,
        D_y,
        D_x,
        M_n,
        M_c,
        M_y,
        M_x,
        GV_n,
        GV_c,
        GV_y,
        GV_x,
        C,
        G,
        H,
        W,
        H_out,
        W_out,
        k,
        s,
        p,
        FACTORED: tl.constexpr,
        ACC: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """A program: BLOCK input pixels and one of their k² positions, of one
        group of one sample."""
        plane, i, j = _pixels(H, W, BLOCK)
        n, position = plane // (G * k * k), plane % (G * k * k)
        g = position // (k * k)
        y = i * s - p + position // k % k
        x = j * s - p + position % k
        ok = (i < H) & _inside(y, H_out) & _inside(x, W_out)
        own_i, own_j = i, j
        if FACTORED:
            centre = (k - 1) // 2 - p
            own_i, own_j = _own(y, s, centre, H), _own(x, s, centre, W)
        total = tl.zeros([BLOCK], ACC)
        for c in range(C):
            at_c = g * C + c
            d = tl.load(
                _plane(D, D_n, D_c, n, at_c) + y * D_y + x * D_x,
                mask=ok,
                other=0,
            )
            m = tl.load(
                _plane(M, M_n, M_c, n, at_c) + own_i * M_y + own_j * M_x,
                mask=ok,
                other=0,
            )
            total += d.to(ACC) * m.to(ACC)
        tl.store(
            _plane(GV, GV_n, GV_c, n, position) + i * GV_y + j * GV_x,
            total,
            mask=i < H,
        )

    # with TRITON_INTERPRET=1 in the environment, as it was at the import
    _INTERPRETED = not isinstance(_forward, triton.runtime.JITFunction)
