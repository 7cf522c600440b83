# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The results of :mod:`benchmarks.op` as tables, in few numbers and
as a picture."""

import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

import torch

from pvd_mm.ops.backends import BACKENDS, FASTEST
from pvd_mm.utils.files import check_folder, write_text
from pvd_mm.utils.markdown import markdown_table

from .memory import MIB
from .op_candidates import KERNEL_SIZE, KINDS, PEERS, traffic

FILES = ('op_speed.json', 'op_speed.md', 'fig8.png')

LABELS = {
    'reference': 'step update',
    'fold': 'F.fold',
    'compiled': 'torch.compile',
    'carafe': 'CARAFE',
    'copy_reused': 'copy, no allocation',
}
TURNS = (
    '- every turn of a candidate begins with an untimed call of its own, so that its '
    'times do not depend on who had the turn before'
)
NOTES = {
    'reference': 'the step update of the paper, a loop over the pixels; ≈: timed on '
    'a part of {crop}×{crop} pixels of the map and multiplied up to all of them',
    'fold': 'the products as k²·C columns, summed by `F.fold`',
    'compiled': 'the sum of `matrix` in operators that are not in place '
    '(`pvd_mm.ops.standard_operators`), compiled by inductor for each size; '
    'inductor makes slower code of the in-place form',
    'conv_transpose2d': '{channels}→{channels} channels, k = 3, the same stride',
    'conv2d': '{channels}→{channels} channels, k = 3, the same stride',
    'carafe': "mmcv's, k = 3, at scale 2; its masks have the size of the output",
    'copy': 'into fresh memory, as many bytes read and written together as the op '
    'must at least: input, votes and output once each; backward the gradients and '
    'the same tensors once each',
    'copy_reused': 'the same into memory that is there already',
}


def results_folder(out: str, force: bool = False) -> Path:
    """The folder for the results, which need not exist.

    Raises:
        BlockedPathError: If it cannot be a folder.
        ValueError: If it holds results and ``force`` is False.
    """
    folder = Path(out)
    check_folder(folder)
    there = [name for name in FILES if (folder / name).exists()]
    if there and not force:
        raise ValueError(
            f'{out} already holds {", ".join(there)}; take another folder, or '
            '--force to replace them'
        )
    return folder


def label(name: str) -> str:
    """What the tables call a candidate."""
    return LABELS.get(name, name)


def _times(result: dict) -> dict:
    keys = ('name', 'size', 'stride', 'kind')
    return {
        tuple(entry[key] for key in keys): entry['median_s']
        for entry in result['times']
    }


def best_backend(result: dict) -> str:
    """The backend that all are compared with: what 'auto' takes."""
    device = torch.device(result['settings']['device']).type
    names = {entry['name'] for entry in result['times']}
    for name in (FASTEST.get(device), 'matrix', *BACKENDS):
        if name in names:
            return name
    return ''


def _mean(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(map(math.log, values)))


def summary(result: dict) -> list[dict]:
    """Ratios in few numbers, as far as what they need was measured.

    Returns:
        list[dict]: Dicts of ``what`` and ``value``.
    """
    times, settings, best = _times(result), result['settings'], result['best']
    sizes, strides = settings['sizes'], settings['strides']
    lines = []

    def add(what: str, value: float) -> None:
        lines.append(dict(what=what, value=value))

    def ratios(
        over: str, under: str, kind: str, sizes: Sequence[int], strides: Sequence[int]
    ) -> list[float]:
        wanted = [(size, stride) for size in sizes for stride in strides]
        keys = [((over, *at, kind), (under, *at, kind)) for at in wanted]
        return [times[a] / times[b] for a, b in keys if a in times and b in times]

    middle = [size for size in sizes if 128 <= size <= 512]
    small = [size for size in sizes if 8 <= size <= 64]
    every = [(f'stride {stride}', [stride]) for stride in strides]
    every += [('all strides', strides)] if len(strides) > 1 else []
    for kind in KINDS:
        for other in ('matrix', 'conv_transpose2d', 'compiled'):
            if other == best:
                continue
            for words, chosen in every:
                values = ratios(other, best, kind, middle, chosen)
                if values:
                    add(
                        f'{label(other)} / {best}, {kind}, {middle[0]}² to '
                        f'{middle[-1]}², {words}, geometric mean',
                        _mean(values),
                    )
    for kind in KINDS:
        for copy in ('copy', 'copy_reused'):
            for stride in strides:
                for ratio in ratios(best, copy, kind, [512], [stride]):
                    add(f'{best} / {label(copy)}, {kind}, 512², stride {stride}', ratio)
    for kind in KINDS:
        for stride in strides:
            for size in small:
                for ratio in ratios(best, 'conv_transpose2d', kind, [size], [stride]):
                    add(
                        f'{best} / conv_transpose2d, {kind}, {size}², stride {stride}',
                        ratio,
                    )
        values = ratios(
            'conv_transpose2d', best, kind, [s for s in sizes if s >= 64], strides
        )
        if values:
            add(f'conv_transpose2d / {best}, {kind}, from 64² up, least', min(values))
    itemsize = getattr(torch, settings['dtype']).itemsize
    forward, both = KINDS
    for stride in strides:
        place = f'{sizes[-1]}², stride {stride}'
        seconds = {
            (name, kind): times.get((name, sizes[-1], stride, kind))
            for name in (best, 'copy_reused')
            for kind in KINDS
        }
        if None in seconds.values():
            continue
        copy = seconds['copy_reused', forward]
        moved = traffic(settings['channels'], sizes[-1], stride, itemsize)[0]
        add(f'copy bandwidth at {place}, GB/s', moved / copy / 1e9)
        add(f'{best}, share of that, forward, {place}', copy / seconds[best, forward])
        backward = [
            seconds[name, both] - seconds[name, forward]
            for name in ('copy_reused', best)
        ]
        if min(backward) > 0:
            add(
                f'{best}, share of that, backward (forward+backward less forward), '
                f'{place}',
                backward[0] / backward[1],
            )
    return lines


def in_ms(seconds: float | None, scaled: bool = False) -> str:
    """A time as the tables show it."""
    if seconds is None:
        return '–'
    ms = seconds * 1e3
    text = f'{ms:,.0f}' if ms >= 100 else f'{ms:.3g}'
    return '≈ ' + text if scaled else text


def _ratio(over: float | None, under: float | None) -> str:
    if over is None or not under:
        return '–'
    value = over / under
    return f'{value:,.0f}' if value >= 100 else f'{value:.2f}'


class _Tables:
    """The tables of a result."""

    def __init__(self, result: dict) -> None:
        self.result = result
        self.times = _times(result)
        self.scaled = {
            (entry['name'], entry['size'], entry['stride'])
            for entry in result['times']
            if entry['scale'] != 1
        }
        self.best = result['best']
        self.sizes = result['settings']['sizes']
        self.strides = result['settings']['strides']
        self.names = list(dict.fromkeys(entry['name'] for entry in result['times']))
        self.backends = [name for name in self.names if name in BACKENDS]

    def cell(self, name: str, size: int, stride: int, kind: str) -> 'tuple[str, str]':
        """A time, and its ratio to the best backend's."""
        seconds = self.times.get((name, size, stride, kind))
        base = self.times.get((self.best, size, stride, kind))
        scaled = (name, size, stride) in self.scaled
        return in_ms(seconds, scaled), _ratio(seconds, base)

    def by_size(self, names: Sequence[str], strides: Sequence[int], kind: str) -> str:
        """Rows of sizes, columns of candidates and their ratios."""
        head, columns = ['input'], []
        for stride in strides:
            for name in names:
                mark = f', s = {stride}' if len(strides) > 1 else ''
                head.append(label(name) + mark)
                columns.append((name, stride, 0))
                if name != self.best:
                    head.append('ratio')
                    columns.append((name, stride, 1))
        rows = [
            [f'{size}²']
            + [self.cell(name, size, stride, kind)[i] for name, stride, i in columns]
            for size in reversed(self.sizes)
        ]
        return markdown_table(head, rows)

    def table_4(self, kind: str) -> str:
        """Rows of candidates at the largest size; time and memory."""
        size = self.sizes[-1]
        memory = {
            (entry['name'], entry['stride']): entry['peak_mib']
            for entry in self.result['memory']
            if entry['kind'] == kind
        }
        head = ['']
        for what in ('ms', 'peak MiB'):
            for stride in self.strides:
                head += [f'{what}, s = {stride}', 'ratio']
        first = ('conv2d', 'conv_transpose2d')
        names = [name for name in first if name in self.names]
        names += [name for name in self.names if name not in first]
        rows = []
        for name in names:
            row = [label(name)]
            for stride in self.strides:
                row += self.cell(name, size, stride, kind)
            for stride in self.strides:
                mib = memory.get((name, stride))
                scaled = (name, size, stride) in self.scaled
                row += [
                    '–' if mib is None else ('≈ ' if scaled else '') + f'{mib:,.1f}',
                    _ratio(mib, memory.get((self.best, stride))),
                ]
            rows.append(row)
        results = ['what a pass of the op returns'] + ['–'] * 2 * len(self.strides)
        for stride in self.strides:
            mib = _results_mib(self.result['settings'], stride, kind)
            base = memory.get((self.best, stride))
            results += [f'{mib:,.1f}', _ratio(mib, base)]
        return markdown_table(head, [*rows, results])


def _results_mib(settings: dict, stride: int, kind: str) -> float:
    size, channels = settings['sizes'][-1], settings['channels']
    numbers = channels * (size * stride) ** 2
    if kind != 'forward':
        numbers += (channels + KERNEL_SIZE**2) * size**2
    return numbers * getattr(torch, settings['dtype']).itemsize / MIB


def markdown(result: dict) -> str:
    """The results of :func:`.op.measure` as Markdown."""
    tables, settings = _Tables(result), result['settings']
    best, size = result['best'], settings['sizes'][-1]
    threads = (
        ''
        if settings['device'].startswith('cuda')
        else (f', {result["threads"]} threads')
    )
    parts = [
        f'{result["machine"]}{threads}; torch {result["torch"]}, pvd_mm '
        f'{result["pvd_mm"]}, {result["date"][:10]}. {settings["dtype"]}, '
        f'{settings["channels"]} channels, k = {KERNEL_SIZE}, formulation '
        f'`{settings["formulation"]}`; medians in ms, everything in turn in one '
        f'process; ratio: to `{best}`, so that more than 1 is slower than it.'
    ]
    if result['command']:
        parts.append(f'```shell\n{result["command"]}\n```')
    for kind in KINDS:
        parts += [
            f'**Table 3, {kind}.** Step update and backends, by size and stride s '
            'of the input map.',
            tables.by_size(tables.backends, tables.strides, kind),
        ]
    for kind in KINDS:
        parts += [
            f'**Table 4, {kind}.** At {size}²: time, and the memory that is '
            'allocated at most, beyond the arguments.',
            tables.table_4(kind),
        ]
    peers = [best] + [
        name for name in tables.names if name in PEERS and name != 'conv2d'
    ]
    for stride in tables.strides:
        there = {name for name, _, at, _ in tables.times if at == stride}
        for kind in KINDS:
            parts += [
                f'**Peers, stride {stride}, {kind}.**',
                tables.by_size(
                    [name for name in peers if name in there], [stride], kind
                ),
            ]
    parts += ['**In short.**', markdown_table(['', ''], _summary_rows(result))]
    crop = math.isqrt(settings['step_pixels'])
    notes = [TURNS] + [
        f'- {label(name)}: '
        + NOTES[name].format(crop=crop, channels=settings['channels'])
        for name in tables.names
        if name in NOTES
    ]
    notes += [
        f'- {label(name)} is left out: {reason}'
        for name, reason in result['left_out'].items()
    ]
    notes += [f'- {label(name)} is left out: asked to' for name in settings['without']]
    parts.append('\n'.join(notes))
    return '\n\n'.join(parts) + '\n'


def _summary_rows(result: dict) -> list[list[str]]:
    return [[entry['what'], f'{entry["value"]:.3g}'] for entry in result['summary']]


def summary_text(result: dict) -> str:
    """The summary, a line each."""
    return '\n'.join(f'{value:>8}  {what}' for what, value in _summary_rows(result))


def draw(result: dict, path: str) -> None:
    """Fig. 8: Table 3 in log scale. Needs matplotlib.

    Args:
        result (dict): What :func:`.op.measure` returned.
        path (str): Where to write the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    tables = _Tables(result)
    figure = Figure(figsize=(11, 4.5), dpi=120, layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(KINDS), sharey=True)
    for panel, kind in zip(panels, KINDS):
        for i, name in enumerate(tables.backends):
            for j, stride in enumerate(tables.strides):
                line = [
                    (size, tables.times[name, size, stride, kind] * 1e3)
                    for size in tables.sizes
                    if (name, size, stride, kind) in tables.times
                ]
                panel.plot(
                    *zip(*line),
                    color=f'C{i}',
                    linestyle=['-', '--', ':', '-.'][j % 4],
                    marker='o',
                    markersize=4,
                    label=f'{label(name)}, stride {stride}',
                )
        panel.set_xscale('log', base=2)
        panel.set_yscale('log')
        panel.set_xticks(tables.sizes, [f'{size}²' for size in tables.sizes])
        panel.set_xlabel('input map')
        panel.set_title(kind)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel('ms')
    panels[0].legend(fontsize='small')
    figure.savefig(path)


def write(result: dict, folder: Path) -> list[Path]:
    """Write ``op_speed.json``, ``op_speed.md`` and, where matplotlib is
    installed, ``fig8.png``.

    Returns:
        list[Path]: What was written.
    """
    data, text, picture = (folder / name for name in FILES)
    write_text(data, json.dumps(result, indent=1) + '\n')
    write_text(text, markdown(result))
    try:
        draw(result, str(picture))
    except ImportError:
        return [data, text]
    return [data, text, picture]
