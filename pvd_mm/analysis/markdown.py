# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Tables in Markdown."""

from collections.abc import Sequence


def markdown_table(head: Sequence[str],
                   rows: Sequence[Sequence[str]],
                   left: int = 1) -> str:
    """A table whose first ``left`` columns are words and the others figures.

    A bar inside a cell is escaped, so that it ends no column.
    """
    rule = ['---'] * left + ['---:'] * (len(head) - left)
    lines = [[str(cell).replace('|', '\\|') for cell in line]
             for line in (head, *rows)]
    lines.insert(1, rule)
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)
