# Copyright (c) PVD-MM contributors. Apache-2.0.
"""All tables by name, and the pages and metafiles that hold them."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks import backends, exported, models, op_report
from pvd_mm.utils.markdown import fill_blocks

from .model_zoo import (
    complexity_table,
    detectors_table,
    segmentors_table,
    update_metafile,
)
from .op_tables import table3, table4
from .tables import ACCURACIES, Table, accuracy_table, other_tables

_BENCHMARKS = dict(op=op_report, model=models, backends=backends, exported=exported)
NAMES = (*ACCURACIES, 'table3', 'table4', 'complexity')


def make_tables(name: str, records: Sequence[dict]) -> dict[str, list[Table]]:
    """Build one of ``NAMES``, or 'all'.

    Args:
        name (str): Which.
        records (Sequence[dict]): See :mod:`pvd_mm.engine.records`.

    Returns:
        dict[str, list[Table]]: Name to its tables: first the paper's, then of
        accuracies those of tests on other data. Tables 3 and 4 are one
        for each record.
    """
    makers = dict(
        {table: partial(_accuracies, table, records) for table in ACCURACIES},
        table3=partial(table3, records),
        table4=partial(table4, records),
        complexity=lambda: [complexity_table(records)],
    )
    return {table: makers[table]() for table in (NAMES if name == 'all' else [name])}


def _accuracies(name: str, records: Sequence[dict]) -> list[Table]:
    return [accuracy_table(name, records), *other_tables(name, records)]


def update_page(path: Path, records: Sequence[dict]) -> str:
    """What a Markdown page or a metafile says with its tables made anew.

    A page's blocks (see :func:`~pvd_mm.utils.markdown.fill_blocks`) have
    one of ``NAMES``, or 'segmentors' or 'detectors', the shipped models,
    or the name of a benchmark's record without its ``.json``, whose own table
    it then is.

    Args:
        path (Path): The page, ``.md``, or a metafile, ``.yml``.
        records (Sequence[dict]): See :mod:`pvd_mm.engine.records`.

    Raises:
        ValueError: If a page has none of these blocks.
    """
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.yml':
        return update_metafile(text, records)
    makers = {name: partial(_block, name, records) for name in NAMES}
    makers.update(
        {
            Path(record['path']).stem: partial(_benchmark_block, record)
            for record in records
            if record['kind'] in _BENCHMARKS
        },
        segmentors=partial(segmentors_table, records),
        detectors=partial(detectors_table, records),
    )
    return fill_blocks(text, makers)


def _block(name: str, records: Sequence[dict]) -> str:
    first, *others = make_tables(name, records)[name]
    return '\n\n'.join(
        [first.markdown(''), *(table.markdown('**{}.**') for table in others)]
    )


def _benchmark_block(record: dict) -> str:
    result = record['result']
    if record['kind'] == 'op':
        return op_report.markdown(result).rstrip()
    table = _BENCHMARKS[record['kind']].markdown(result)
    source = f'{record["machine"]}, {record["date"][:10]}; `{record["command"]}`.'
    return f'{table}\n\n{source}'
