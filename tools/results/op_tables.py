# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Tables 3 and 4 of the paper, and beside the paper's what records of
``tools/benchmark_op.py`` show: a table for each record."""

from collections.abc import Callable, Sequence

from benchmarks.op_report import in_ms
from pvd_mm.engine.records import records_of

from .tables import NONE, NOT_RUN, Table, how_to_run, load_published, number

_COMMAND = 'python tools/benchmark_op.py --out work_dirs/op_speed'
# What the paper's tables are of, as the records have it.
_SETTINGS = dict(channels=19, dtype='float32', formulation='exact')
_SLOW, _FAST = ('step update', 'reference'), ('matrix', 'matrix')
_BACKENDS = ('cpp', 'triton')


class _Measured:
    """The forward passes of a record; of none where there is no record."""

    def __init__(self, record: dict | None) -> None:
        self.record = record
        self.result = record['result'] if record else dict(times=[], memory=[])
        self.lacks = False

    def _find(self, key: str, name: str, size: int, stride: int) -> dict | None:
        wanted = dict(name=name, size=size, stride=stride, kind='forward')
        for entry in self.result[key]:
            if wanted.items() <= entry.items():
                return entry
        self.lacks = True
        return None

    def time(self, name: str, size: int, stride: int) -> str:
        """Milliseconds as a cell."""
        entry = self._find('times', name, size, stride)
        return in_ms(entry['median_s'], entry['scale'] != 1) if entry else NOT_RUN

    def memory(self, name: str, size: int, stride: int) -> str:
        """MiB as a cell."""
        entry = self._find('memory', name, size, stride)
        if entry is None:
            return NOT_RUN
        return ('≈ ' if entry['scale'] != 1 else '') + f'{entry["peak_mib"]:,.1f}'

    def own(self) -> list[tuple[str, str]]:
        """Backends that the paper does not have."""
        names = {entry['name'] for entry in self.result['times']}
        return [(name, name) for name in _BACKENDS if name in names]

    def title(self, title: str) -> str:
        """That of the table, with where the figures are from."""
        if self.record is None:
            return title
        settings = self.result['settings']
        other = [
            f'{key} {settings[key]}'
            for key, usual in _SETTINGS.items()
            if settings[key] != usual
        ]
        return ', '.join([f'{title}: {self.result["machine"]}', *other])

    def notes(self, about: dict) -> list[str]:
        """What is to be said below the table."""
        notes = [about['note'].strip()] if 'note' in about else []
        if self.record is not None:
            settings = self.result['settings']
            count = self.result['threads']
            threads = (
                ''
                if settings['device'].startswith('cuda')
                else f'{count} thread{"s" if count > 1 else ""}, '
            )
            notes.append(
                f'Reproduced: {self.result["machine"]}, {threads}'
                f'{settings["channels"]} channels, {settings["dtype"]}, '
                f'formulation `{settings["formulation"]}`, '
                f'{self.record["date"][:10]}, by `{self.record["command"]}`. '
                '"≈": measured on a part of the map. Paper: one GTX 2080 Ti.'
            )
        return notes + ([how_to_run(_COMMAND)] if self.lacks else [])


def _tables(
    name: str,
    records: Sequence[dict],
    content: Callable[[dict, _Measured], tuple[list[str], list[list[str]]]],
) -> list[Table]:
    """A table for each record, or of the paper's figures alone; ``content`` makes head
    and rows."""
    about = load_published()[name]
    return [
        Table(
            measured.title(about['title']),
            *content(about, measured),
            measured.notes(about),
        )
        for measured in map(_Measured, records_of(records, 'op') or [None])
    ]


def table3(records: Sequence[dict]) -> list[Table]:
    """Table 3: times by size."""
    return _tables('table3', records, _times)


def _times(about: dict, measured: _Measured) -> tuple[list[str], list[list[str]]]:
    ours = [_SLOW, _FAST, *measured.own()]
    head = ['input']
    for who, candidates in (('paper', [_SLOW, _FAST]), ('reproduced', ours)):
        head += [
            f'{title}, s = {stride} ({who})'
            for title, _ in candidates
            for stride in (1, 2)
        ]
    rows = []
    for size, paper in about['paper'].items():
        cells = [
            number(value, ',.0f' if (value or 0) > 1e3 else '.4g') for value in paper
        ]
        cells += [
            measured.time(name, size, stride) for _, name in ours for stride in (1, 2)
        ]
        rows.append([f'{size}²', *cells])
    return head, rows


def table4(records: Sequence[dict]) -> list[Table]:
    """Table 4: time and memory at 1024²."""
    return _tables('table4', records, _times_and_memory)


def _times_and_memory(
    about: dict, measured: _Measured
) -> tuple[list[str], list[list[str]]]:
    head = ['']
    for who, unit in (('paper', 'MB'), ('reproduced', 'MiB')):
        head += [
            f'{quantity}, s = {stride} ({who})'
            for quantity in ('ms', unit)
            for stride in (1, 2)
        ]
    own = ((*names, [None] * 4) for names in measured.own())
    rows = []
    for title, name, paper in (*about['rows'], *own):
        cells = [number(value, ',.5g') for value in paper]
        for measure in (measured.time, measured.memory):
            cells += [measure(name, 1024, stride) for stride in (1, 2)]
        rows.append([title or NONE, *cells])
    return head, rows
