# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The paper's tables, with one's own figures beside the paper's.

What the paper says, what OpenMMLab publishes and what records show stand in
columns of their own. A row of Cityscapes or COCO is filled by records of that
validation set alone, whole; records of other data have tables of their own.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import yaml

from pvd_mm.shipped import find_shipped, mim_root, shipped_configs

from .markdown import fill_blocks, markdown_table
from .records import records_of

NAMES = ('table1', 'table2', 'table3', 'table4', 'complexity', 'other')
NOT_RUN = 'not run'
_NONE = '–'


@dataclass
class Table:
    """A table, as it is written in Markdown and CSV.

    Args:
        title (str): Its title.
        head (list[str]): Titles of the columns.
        rows (list[list[str]]): Cells.
        notes (list[str]): Paragraphs below it.
    """

    title: str
    head: list
    rows: list
    notes: list = field(default_factory=list)
    left: int = 1

    def markdown(self) -> str:
        """The table under its title, with its notes."""
        parts = [f'## {self.title}']
        if self.rows:
            parts.append(markdown_table(self.head, self.rows, self.left))
        return '\n\n'.join([*parts, *self.notes]) + '\n'

    def csv(self) -> str:
        """Head and rows."""
        text = io.StringIO()
        csv.writer(text, lineterminator='\n').writerows([self.head, *self.rows])
        return text.getvalue()


def load_published() -> dict:
    """The figures of others, ``configs/published.yml``."""
    path = mim_root() / 'configs/published.yml'
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def _number(value, form: str = '.1f') -> str:
    return _NONE if value is None else f'{value:{form}}'


def is_official(record: dict, data: dict) -> bool:
    """Is a test's data the validation set that ``data`` describes: its class,
    and its number of images in each folder?"""
    found = record['data']
    return found.get('type') == data['type'] and \
        found.get('folders') == data['folders']


def _name(record: dict) -> str:
    return Path(record['config']).stem


def _metric_cells(found: Sequence[dict], metrics: dict, factor: float,
                  form: str) -> list[str]:
    """A cell for each metric; records that disagree are all shown."""
    cells = []
    for key in metrics.values():
        values = [f'{factor * one["result"][key]:{form}}' for one in found
                  if key in one['result']]
        cells.append(' / '.join(dict.fromkeys(values)) or NOT_RUN)
    return cells


def commands(config: str) -> str:
    """How a row is run."""
    work = f'work_dirs/{config}'
    path = find_shipped(config)
    path = path.relative_to(mim_root()).as_posix() if path else config
    return (f'mim train pvd_mm {path} --work-dir {work} --gpus 1\n'
            f'mim test pvd_mm {path} --checkpoint {work}/LAST.pth '
            f'--work-dir {work}/test --gpus 1')


def accuracy_table(name: str, records: Sequence[dict],
                   published: dict | None = None) -> Table:
    """Table 1 or 2.

    Args:
        name (str): 'table1' or 'table2'.
        records (Sequence[dict]): See :mod:`pvd_mm.analysis.records`.
        published (dict, optional): See :func:`load_published`.
    """
    published = published or load_published()
    about = published[name]
    metrics, factor = about['metrics'], about.get('factor', 1)
    official = [one for one in records_of(records, 'test')
                if is_official(one, about['data']) and not one['overrides']]
    head = ['method', 'config']
    for who in ('paper', 'OpenMMLab', 'reproduced'):
        head += [f'{title} ({who})' for title in metrics]
    rows, notes, missing = [], [], []
    blank = [_NONE] * len(metrics)
    for row in about['rows']:
        method = row['method'] + (' (coarse)' if row.get('coarse') else '')
        paper = [_number(value) for value in row['paper']]
        configs = row.get('configs', {})
        if not configs:
            what = f'see {row["same_as"]}' if 'same_as' in row else \
                'none: not ours to run'
            rows.append([method, what, *paper, *blank, *blank])
        for number, (config, more) in enumerate(configs.items()):
            found = [one for one in official if _name(one) == config]
            theirs = [_number(value, '.2f' if factor == 1 else '.1f')
                      for value in more.get('openmmlab', [None] * len(blank))]
            rows.append([
                '' if number else method, config,
                *(blank if number else paper), *theirs,
                *_metric_cells(found, metrics, factor, '.2f')
            ])
            if more.get('note'):
                source = published['sources'].get(more.get('source'), '')
                notes.append(f'`{config}`: {more["note"]}'
                             + (f' ({source})' if source else '') + '.')
            if not found:
                missing.append(config)
            elif len(found) > 1:
                notes.append(f'`{config}` has {len(found)} records: '
                             + _places(found) + '.')
    notes.insert(0, f'Paper: {published["sources"]["paper"]}. "{_NONE}": the '
                 'source has no such figure.')
    if missing:
        lines = '\n'.join(commands(config) for config in missing)
        notes.append(f'What was not run:\n\n```bash\n{lines}\n```')
    return Table(about['title'], head, rows, notes, left=2)


def _places(found: Sequence[dict]) -> str:
    return '; '.join(f'{one["date"][:10]}, seed {one.get("seed")}, '
                     f'{one.get("steps")} steps' for one in found)


def other_tables(records: Sequence[dict]) -> list[Table]:
    """A table for every other data set that records are of, and for records
    with overrides; last one of records whose config is gone."""
    published = load_published()
    groups, gone = {}, []
    for one in records_of(records, 'test'):
        if any(is_official(one, published[name]['data'])
               for name in ('table1', 'table2')) and not one['overrides']:
            continue
        if find_shipped(one['config']) is None and not Path(
                one['config']).is_file():
            gone.append(one)
            continue
        data = one['data']
        key = (f'{data.get("type")}, {data.get("split") or "no split"}, '
               f'{data["images"]} images')
        groups.setdefault(key, []).append(one)
    tables = []
    for key, found in sorted(groups.items()):
        kinds = dict.fromkeys(k for one in found for k in one['result']
                              if k not in ('data_time', 'time'))
        wanted = [k for k in ('mIoU', 'mBoundaryIoU', 'coco/bbox_mAP',
                              'coco/segm_mAP', 'coco/segm_mAP_50',
                              'coco/segm_mAP_75') if k in kinds]
        wanted = wanted or list(kinds)[:6]
        rows = [[_name(one),
                 ', '.join(f'{k}={v}' for k, v in one['overrides'].items())
                 or _NONE, str(one.get('steps')), str(one.get('seed')),
                 *(_number(one['result'].get(k), '.4g') for k in wanted)]
                for one in found]
        tables.append(Table(f'Tests on {key}',
                            ['config', 'overrides', 'steps', 'seed', *wanted],
                            rows, left=2))
    if gone:
        tables.append(Table(
            'Tests of configs that are no longer there',
            ['config', 'record', 'date'],
            [[one['config'], one.get('path', _NONE), one['date'][:10]] for one in gone],
            left=3))
    return tables


def complexity_table(records: Sequence[dict],
                     configs: Sequence[str] | None = None) -> Table:
    """Parameters and MACs, time and memory of the shipped configs, from
    records of ``tools/benchmark_model.py``.

    A config that several records measure has a row for each.
    """
    configs = configs or [Path(p).stem for p in shipped_configs()]
    measured = {}
    for record in records_of(records, 'model'):
        for one in record['result']:
            measured.setdefault(one['name'], []).append((record, one))
    head = ['config', 'size', 'params (M)', 'GMACs', 'forward (s)',
            'forward (MiB)', 'training step (s)', 'training step (MiB)',
            'machine']
    rows, missing = [], []
    for config in configs:
        for record, one in measured.get(config, ()):
            size = one.get('size')
            rows.append([
                config, '×'.join(map(str, size)) if size else _NONE,
                _number(one['params'] / 1e6, '.2f'),
                _number(one['forward_macs'] / 1e9, '.2f')
                if 'forward_macs' in one else NOT_RUN,
                *(_number(one[key], form) if key in one else NOT_RUN
                  for key, form in (('forward_s', '.3f'),
                                    ('forward_mib', '.0f'),
                                    ('train_s', '.3f'),
                                    ('train_mib', '.0f'))), record['machine']
            ])
        if config not in measured:
            rows.append([config, *[NOT_RUN] * (len(head) - 1)])
            missing.append(config)
    notes = ['Times of rows that were not measured in one run do not compare.']
    if missing:
        lines = '\n'.join(
            f'python tools/benchmark_model.py {config} '
            f'--out work_dirs/benchmark/{config}' for config in missing)
        notes.append(f'What was not run:\n\n```bash\n{lines}\n```')
    return Table('Parameters, multiply-accumulates, time and memory', head,
                 rows, notes)


_OP_COMMAND = ('What was not run:\n\n```bash\npython tools/benchmark_op.py '
               '--out work_dirs/op_speed\n```')


def _op_cells(result: dict, key: str) -> dict:
    """(name, size, stride) to milliseconds or MiB of the forward pass."""
    field_, factor = ('median_s', 1e3) if key == 'times' else ('peak_mib', 1)
    return {(one['name'], one['size'], one['stride']): factor * one[field_]
            for one in result[key] if one['kind'] == 'forward'}


def _last_op(records: Sequence[dict]) -> dict | None:
    found = records_of(records, 'op')
    return found[-1] if found else None


def table3(records: Sequence[dict]) -> Table:
    """Table 3: times by size; the paper's, and the last record's."""
    about, record = load_published()['table3'], _last_op(records)
    times = _op_cells(record['result'], 'times') if record else {}
    ours = [('step update', 'reference'), ('matrix', 'matrix')]
    ours += [(name, name) for name in ('cpp', 'triton')
             if any(key[0] == name for key in times)]
    head = ['input']
    head += [f'{what}, s = {stride} (paper)' for what in ('step update', 'matrix')
             for stride in (1, 2)]
    head += [f'{what}, s = {stride} (reproduced)' for what, _ in ours
             for stride in (1, 2)]
    rows = []
    for size, paper in about['paper'].items():
        rows.append([f'{size}²', *(_number(value, ',.4g') if value is not None
                                   and value < 1e4 else _number(value, ',.0f')
                                   for value in paper)])
        for _, name in ours:
            for stride in (1, 2):
                value = times.get((name, size, stride))
                rows[-1].append(NOT_RUN if value is None else f'{value:,.4g}')
    return Table(about['title'], head, rows, _op_notes(about, record))


def table4(records: Sequence[dict]) -> Table:
    """Table 4: time and memory at 1024²."""
    about, record = load_published()['table4'], _last_op(records)
    times = _op_cells(record['result'], 'times') if record else {}
    memory = _op_cells(record['result'], 'memory') if record else {}
    head = ['']
    for who in ('paper', 'reproduced'):
        for what in ('ms', 'MB' if who == 'paper' else 'MiB'):
            head += [f'{what}, s = {stride} ({who})' for stride in (1, 2)]
    names = [('conv2d', 'Conv2d', 'conv2d'),
             ('conv_transpose2d', 'ConvTranspose2d', 'conv_transpose2d'),
             ('step', 'step update', 'reference'),
             ('matrix', 'matrix', 'matrix'), (None, 'cpp', 'cpp'),
             (None, 'triton', 'triton')]
    rows = []
    for row, title, own in names:
        values = about['paper'].get(row, [None] * 4)
        cells = [_number(value, ',.5g') for value in values]
        for found in (times, memory):
            for stride in (1, 2):
                value = found.get((own, 1024, stride))
                cells.append(NOT_RUN if value is None else f'{value:,.4g}')
        rows.append([title, *cells])
    return Table(about['title'], head, rows, _op_notes(about, record))


def _op_notes(about: dict, record: dict | None) -> list[str]:
    notes = [about['note'].strip()] if 'note' in about else []
    if record is None:
        return [*notes, _OP_COMMAND]
    result = record['result']
    return [*notes, f'Reproduced: {result["machine"]}, {result["threads"]} '
            f'threads, {result["settings"]["channels"]} channels, '
            f'{result["settings"]["dtype"]}; `{record["command"]}`. The '
            'paper: one GTX 2080 Ti.']


def update_blocks(text: str, records: Sequence[dict]) -> str:
    """Make a page's tables anew, without their titles.

    Raises:
        ValueError: If a block names no table; see
            :func:`~pvd_mm.analysis.markdown.fill_blocks`.
    """

    def inside(name: str) -> str:
        tables = make_tables(name, records)[name]
        return '\n'.join(one.markdown().split('\n', 2)[2]
                         for one in tables).rstrip('\n')

    return fill_blocks(text, {name: partial(inside, name) for name in NAMES})


def make_tables(name: str, records: Sequence[dict]) -> dict[str, list[Table]]:
    """Build one of ``NAMES``, or 'all'.

    Returns:
        dict[str, list[Table]]: File name to its tables.
    """
    makers = dict(
        table1=lambda: [accuracy_table('table1', records)],
        table2=lambda: [accuracy_table('table2', records)],
        table3=lambda: [table3(records)],
        table4=lambda: [table4(records)],
        complexity=lambda: [complexity_table(records)],
        other=lambda: other_tables(records))
    wanted = NAMES if name == 'all' else [name]
    return {one: makers[one]() for one in wanted}
