# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Tables in Markdown, and pages that hold them."""

import re
from collections.abc import Callable, Mapping, Sequence

_BLOCK = re.compile(r'^(<!-- table: ([^\n]+?) -->\n).*?^(<!-- end -->)', re.M | re.S)


def markdown_table(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: int = 1,
    padded: bool = False,
) -> str:
    """Format a table.

    Args:
        head (Sequence[str]): Titles of the columns.
        rows (Sequence[Sequence[str]]): Cells. A bar inside one is escaped, so that it
            ends no column.
        left (int): How many columns, the first, are words; the others are figures.
            Defaults to 1.
        padded (bool): Whether columns are as wide as their widest cell, to be read in
            a terminal. Defaults to False.

    Returns:
        str: The table, without a line break at its end.
    """
    lines = [[str(cell).replace('|', '\\|') for cell in line] for line in (head, *rows)]
    columns = zip(*lines, strict=True)
    widths = [max(map(len, column)) if padded else 0 for column in columns]
    justify = [str.ljust] * left + [str.rjust] * (len(head) - left)
    rule = ['-' * (width or 3) for width in widths[:left]]
    rule += ['-' * ((width or 4) - 1) + ':' for width in widths[left:]]
    lines = [[f(*pair) for f, *pair in zip(justify, line, widths)] for line in lines]
    lines.insert(1, rule)
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def fill_blocks(text: str, makers: Mapping[str, Callable[[], str]]) -> str:
    """Make the tables of a page anew: what stands in it between ``<!-- table:
    NAME -->`` and ``<!-- end -->``. Blocks of other names are left as they are.

    Args:
        text (str): The page.
        makers (Mapping): Name to what makes the text between.

    Raises:
        ValueError: If no block has one of these names.
    """
    names = block_names(text)
    if not any(name in makers for name in names):
        raise ValueError(
            f'it has no block of a known table; its blocks are '
            f'{", ".join(names) or "none"}, the tables {", ".join(makers)}'
        )

    def block(match: re.Match) -> str:
        if match[2] not in makers:
            return match[0]
        return f'{match[1]}\n{makers[match[2]]()}\n\n{match[3]}'

    return _BLOCK.sub(block, text)


def block_names(text: str) -> list[str]:
    """The names of a page's blocks."""
    return [match[2] for match in _BLOCK.finditer(text)]
