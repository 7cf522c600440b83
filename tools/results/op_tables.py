# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Tables 3 and 4 of the paper, and beside the paper's what records of
``tools/benchmark_op.py`` show: a table for each record."""

from collections.abc import Sequence

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
        for one in self.result[key]:
            if wanted.items() <= one.items():
                return one
        self.lacks = True
        return None

    def time(self, name: str, size: int, stride: int) -> str:
        """Milliseconds as a cell."""
        one = self._find('times', name, size, stride)
        return in_ms(one['median_s'], one['scale'] != 1) if one else NOT_RUN

    def memory(self, name: str, size: int, stride: int) -> str:
        """MiB as a cell."""
        one = self._find('memory', name, size, stride)
        if one is None:
            return NOT_RUN
        return ('≈ ' if one['scale'] != 1 else '') + f'{one["peak_mib"]:,.1f}'

    def own(self) -> list[tuple[str, str]]:
        """Backends that the paper does not have."""
        names = {one['name'] for one in self.result['times']}
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


def _of_records(records: Sequence[dict]) -> list[_Measured]:
    return [_Measured(one) for one in records_of(records, 'op')] or [_Measured(None)]


def table3(records: Sequence[dict]) -> list[Table]:
    """Table 3: times by size."""
    about = load_published()['table3']
    tables = []
    for found in _of_records(records):
        ours = [_SLOW, _FAST, *found.own()]
        head = ['input']
        for who, many in (('paper', [_SLOW, _FAST]), ('reproduced', ours)):
            head += [
                f'{title}, s = {stride} ({who})'
                for title, _ in many
                for stride in (1, 2)
            ]
        rows = []
        for size, paper in about['paper'].items():
            cells = [
                number(value, ',.0f' if (value or 0) > 1e3 else '.4g')
                for value in paper
            ]
            cells += [
                found.time(name, size, stride) for _, name in ours for stride in (1, 2)
            ]
            rows.append([f'{size}²', *cells])
        tables.append(
            Table(found.title(about['title']), head, rows, found.notes(about))
        )
    return tables


def table4(records: Sequence[dict]) -> list[Table]:
    """Table 4: time and memory at 1024²."""
    about = load_published()['table4']
    tables = []
    for found in _of_records(records):
        head = ['']
        for who, unit in (('paper', 'MB'), ('reproduced', 'MiB')):
            head += [
                f'{what}, s = {stride} ({who})'
                for what in ('ms', unit)
                for stride in (1, 2)
            ]
        rows = []
        for title, name, paper in [
            *about['rows'],
            *((one, one, [None] * 4) for one, _ in found.own()),
        ]:
            cells = [number(value, ',.5g') for value in paper]
            for measure in (found.time, found.memory):
                cells += [measure(name, 1024, stride) for stride in (1, 2)]
            rows.append([title or NONE, *cells])
        tables.append(
            Table(found.title(about['title']), head, rows, found.notes(about))
        )
    return tables
