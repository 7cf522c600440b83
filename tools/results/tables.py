# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The paper's tables, with own figures beside the paper's.

What the paper says, what OpenMMLab publishes and what records show stand in
columns of their own. A row of Cityscapes or COCO is filled by records of that
validation set alone, whole, of the shipped config as it is, trained to its
end. All other records of tests have tables of their own.
"""

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import yaml

from pvd_mm.engine.records import records_of
from pvd_mm.utils.errors import some
from pvd_mm.utils.markdown import markdown_table
from pvd_mm.utils.shipped_configs import find_shipped, mim_root, shipped_configs

NOT_RUN = 'not run'
NONE = '–'


@dataclass
class Table:
    """A table, as it is written in Markdown and CSV.

    Args:
        title (str): Its title.
        head (list[str]): Titles of the columns.
        rows (list[list[str]]): Cells.
        notes (list[str]): Paragraphs below it.
        left (int): How many columns are words.
    """

    title: str
    head: list
    rows: list
    notes: list = field(default_factory=list)
    left: int = 1

    def markdown(self, title: str = '## {}') -> str:
        """The table under its title, if it has rows, with its notes.

        Args:
            title (str): What is written above; '' leaves it out.
        """
        parts = [title.format(self.title)] if title else []
        if self.rows:
            parts.append(markdown_table(self.head, self.rows, self.left))
        return '\n\n'.join([*parts, *self.notes])

    def csv(self) -> str:
        """Head and rows."""
        text = io.StringIO()
        csv.writer(text, lineterminator='\n').writerows([self.head, *self.rows])
        return text.getvalue()


def load_published() -> dict:
    """The figures of others, ``configs/published.yml``."""
    path = mim_root() / 'configs/published.yml'
    return yaml.safe_load(path.read_text(encoding='utf-8'))


def number(value: float | None, form: str = '.1f') -> str:
    """A figure as a cell."""
    return NONE if value is None else f'{value:{form}}'


def how_to_run(command: str) -> str:
    """The note on what was not run."""
    return f'What was not run:\n\n```bash\n{command}\n```'


def _training(configs: Iterable[str]) -> str:
    """How configs are trained and tested."""
    root = mim_root() / 'configs'
    paths = [find_shipped(config).relative_to(root) for config in configs]
    listed = ''.join(f' \\\n    {path.with_suffix("").as_posix()}' for path in paths)
    return f"""for config in{listed}
do
    mim train pvd_mm configs/$config.py --work-dir work_dirs/$config
    mim test pvd_mm configs/$config.py --work-dir work_dirs/$config/test \\
        --checkpoint "$(cat work_dirs/$config/last_checkpoint)"
done"""


# ------------------------------------------------- what a record is a test of

# Overrides that tell where data and results are, or how they are read.
_HARMLESS = (
    'data_root',
    'num_workers',
    'persistent_workers',
    'pin_memory',
    'work_dir',
    'log_level',
)


#: Tables of accuracies
ACCURACIES = ('table1', 'table2', 'panoptic')


def _names() -> list[str]:
    return [Path(path).stem for path in shipped_configs()]


def _shipped(record: dict) -> str | None:
    if 'shipped' in record:
        return record['shipped']
    path = find_shipped(record['config'])  # of a record that doesn't say
    return path.stem if path else None


def _changes_figures(record: dict) -> bool:
    """Whether an override may have changed more than where things are."""
    ann_file = f'instances_{record["data"].get("split")}.json'
    return any(
        key.split('.')[-1] not in _HARMLESS
        and not (key.endswith('ann_file') and Path(str(value)).name == ann_file)
        for key, value in record['overrides'].items()
    )


def is_plain(record: dict) -> bool:
    """Is a test one of a shipped config as it is, trained to its end?"""
    return (
        _shipped(record) in _names()
        and not _changes_figures(record)
        and record.get('finished') is not False
    )


def is_of(record: dict, data: dict) -> bool:
    """Is a test's data the validation set that ``data`` describes: its class,
    and its number of images in each folder?"""
    own = record['data']
    return own['type'] == data['type'] and own['folders'] == data['folders']


def _table_of(record: dict) -> str:
    """The table of accuracies that a test is for; a panoptic one has the metrics of
    detectors as well."""
    for start, table in (('coco_panoptic/', 'panoptic'), ('coco/', 'table2')):
        if any(key.startswith(start) for key in record['result']):
            return table
    return 'table1'


def tests_of(config: str, records: Sequence[dict], data: dict) -> list[dict]:
    """The plain tests of a shipped config on a validation set."""
    return [
        record
        for record in records_of(records, 'test')
        if _shipped(record) == config and is_plain(record) and is_of(record, data)
    ]


def configs_of(about: dict) -> list[str]:
    """Names of the shipped configs whose data a table is of."""
    return [name for name in _names() if fnmatch(name, about['configs'])]


def _described(records: Sequence[dict]) -> str:
    """Records in words, where the figures alone would not do."""
    words = []
    for record in records:
        digest = record['checkpoint'].get('sha256')
        words.append(
            f'{record["date"][:10]}, seed {record.get("seed")}, '
            f'{record.get("steps")} steps'
            + (f', checkpoint {digest[:8]}' if digest else '')
        )
    return '; '.join(words)


# ------------------------------------------------------------ Tables 1 and 2


def accuracy_table(name: str, records: Sequence[dict]) -> Table:
    """Table 1 or 2, or that of panoptic models.

    Args:
        name (str): 'table1', 'table2' or 'panoptic'.
        records (Sequence[dict]): See :mod:`pvd_mm.engine.records`.
    """
    published = load_published()
    about = published[name]
    metrics, factor = about['metrics'], about['factor']
    head = ['method', 'config']
    for who in ('paper', 'OpenMMLab', 'reproduced'):
        head += [f'{title} ({who})' for title in metrics]
    rows, notes, missing = [], [], []
    blank = [NONE] * len(metrics)
    for row in about['rows']:
        method = row['method'] + (' (coarse)' if row.get('coarse') else '')
        paper = [number(value) for value in row['paper']]
        configs, theirs = row.get('configs', {}), row.get('upstream', {})
        if not (configs or theirs):
            what = (
                f'see {row["same_as"]}' if 'same_as' in row else 'none: not ours to run'
            )
            rows.append([method, what, *paper, *blank, *blank])
        for place, (config, more) in enumerate({**configs, **theirs}.items()):
            ours = config in configs
            tests = tests_of(config, records, about['data']) if ours else []
            published_figures = [
                number(value, '.2f' if factor == 1 else '.1f')
                for value in more.get('openmmlab', [None] * len(blank))
            ]
            rows.append(
                [
                    '' if place else method,
                    config if ours else f'{config} ({more["of"]})',
                    *(blank if place else paper),
                    *published_figures,
                    *(_metric_cells(tests, metrics, factor) if ours else blank),
                ]
            )
            if more.get('note'):
                source = published['sources'].get(more.get('source'), '')
                notes.append(
                    f'`{config}`: {more["note"]}'
                    + (f' ({source})' if source else '')
                    + '.'
                )
            if tests:
                notes.append(f'`{config}`, reproduced: {_described(tests)}.')
            elif ours:
                missing.append(config)
    notes.insert(
        0,
        f'Paper: {published["sources"]["paper"]}. "{NONE}": the '
        'source has no such figure.',
    )
    if missing:
        notes.append(how_to_run(_training(missing)))
    return Table(about['title'], head, rows, notes, left=2)


def _metric_cells(tests: Sequence[dict], metrics: dict, factor: float) -> list[str]:
    """A cell for each metric; records that disagree are all shown. Tests of before
    there was the metric have none."""
    cells = []
    for key in metrics.values():
        values = [test['result'][key] for test in tests if key in test['result']]
        values = [number(value and factor * value, '.2f') for value in values]
        cells.append(' / '.join(dict.fromkeys(values)) or (NONE if tests else NOT_RUN))
    return cells


# ----------------------------------------------------------- tests on all else


def other_tables(name: str, records: Sequence[dict]) -> list[Table]:
    """Tests whose figures are not for a cell of Table 1 or 2.

    Args:
        name (str): 'table1' for tests of segmentors, 'table2' of detectors,
            'panoptic' of panoptic models.
        records (Sequence[dict]): See :mod:`pvd_mm.engine.records`.

    Returns:
        list[Table]: One for each other validation set that shipped configs
        are for, with what was not run; then one for each further data that
        records are of.
    """
    about = load_published()[name]
    left = [test for test in records_of(records, 'test') if _table_of(test) == name]
    cells = [
        id(test)
        for row in about['rows']
        for config in row.get('configs', ())
        for test in tests_of(config, left, about['data'])
    ]
    left = [test for test in left if id(test) not in cells]
    tables = []
    for other in about['others']:
        tests = [test for test in left if is_of(test, other['data'])]
        left = [test for test in left if not is_of(test, other['data'])]
        tables.append(_test_table(other['title'], tests, about, configs_of(other)))
    groups = {}
    for test in left:
        data = test['data']
        key = data['type'], data.get('split'), json.dumps(data['folders'])
        groups.setdefault(key, []).append(test)
    for _, tests in sorted(groups.items(), key=lambda item: str(item[0])):
        tables.append(_test_table(_title(tests[0], about), tests, about))
    return tables


def _title(record: dict, about: dict) -> str:
    data = record['data']
    folders = [f'{name}: {count}' for name, count in data['folders'].items()]
    title = (
        f'Tests on {data["type"]}, {data.get("split") or "no split"}, '
        f'{data["images"]} images ({some(folders)})'
    )
    if is_of(record, about['data']):
        title += ', of other configs, overridden or not trained to the end'
    return title


def _test_table(
    title: str, tests: Sequence[dict], about: dict, configs: Sequence[str] = ()
) -> Table:
    """Tests on one data set, each in a row; and which of ``configs`` were not
    run as they are."""
    metrics = {**about['metrics'], **about['also']}
    head = ['config', 'overrides', 'steps', 'seed', *metrics]
    rows, missing = [], []
    rest = list(tests)
    for config in configs:
        own = [test for test in tests if _shipped(test) == config]
        if not any(map(is_plain, own)):
            rows.append([config, NONE, NONE, NONE, *[NOT_RUN] * len(metrics)])
            missing.append(config)
        rows += [_test_row(test, metrics, about['factor']) for test in own]
        rest = [test for test in rest if _shipped(test) != config]
    rows += [_test_row(test, metrics, about['factor']) for test in rest]
    return Table(
        title, head, rows, [how_to_run(_training(missing))] if missing else [], left=2
    )


def _test_row(record: dict, metrics: dict, factor: float) -> list[str]:
    shipped = _shipped(record)
    config = shipped or record['config']
    if shipped and shipped not in _names():
        config += ' (no longer shipped)'
    elif not shipped:
        config += ' (not shipped)' if Path(config).is_file() else ' (no longer there)'
    steps = number(record.get('steps'), 'd')
    if record.get('finished') is False:
        steps += ' (not the whole schedule)'
    overrides = ', '.join(f'{k}={v}' for k, v in record['overrides'].items())
    return [
        config,
        overrides or NONE,
        steps,
        number(record.get('seed'), 'd'),
        *_metric_cells([record], metrics, factor),
    ]
