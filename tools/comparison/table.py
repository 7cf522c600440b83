# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The table of a comparison."""

import math
from collections.abc import Sequence
from typing import NamedTuple


class Column(NamedTuple):
    """One column of figures.

    Args:
        title (str): Its title in the table.
        key (str): Its name in the report.
        figure (str): The metric's name for it. Defaults to '': it is none
            of a metric.
        form (str): Format of a value. Defaults to two decimals.
        factor (float): From the metric's value to that of the table.
            Defaults to 1.
    """

    title: str
    key: str
    figure: str = ''
    form: str = '{:.2f}'
    factor: float = 1.0

    def value(self, figures: dict) -> float | None:
        """Its value among a metric's figures, None where there is none
        (COCO's metrics give a negative one then)."""
        value = figures.get(self.figure)
        absent = value is None or math.isnan(value) or value < 0
        return None if absent else round(self.factor * float(value), 2)


#: What is reported of every model.
COSTS = (
    Column('Params (M)', 'params_m'),
    Column('GMACs', 'gmacs'),
    Column('s / image', 'seconds', form='{:.3f}'),
)


def markdown(rows: Sequence[dict], columns: Sequence[Column]) -> str:
    """Format rows as a Markdown table.

    Args:
        rows (Sequence[dict]): Per method: ``method`` and the columns' keys;
            None where there is no value.
        columns (Sequence[Column]): The columns after the method's name.

    Returns:
        str: The table, without a line break at its end.
    """
    cells = [['Method', *(column.title for column in columns)]]
    for row in rows:
        cells.append(
            [row['method']]
            + [
                '-' if row[c.key] is None else c.form.format(row[c.key])
                for c in columns
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for i, line in enumerate(cells):
        padded = [
            cell.ljust(w) if j == 0 else cell.rjust(w)
            for j, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append('| ' + ' | '.join(padded) + ' |')
        if i == 0:
            rule = ['-' * widths[0]] + ['-' * (w - 1) + ':' for w in widths[1:]]
            lines.append('| ' + ' | '.join(rule) + ' |')
    return '\n'.join(lines)
