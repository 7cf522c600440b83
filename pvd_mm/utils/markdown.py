# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Tables in Markdown, and pages that hold them."""

import re
from collections.abc import Callable, Mapping, Sequence

_BLOCK = re.compile(r'^(<!-- table: ([^\n]+?) -->\n).*?^(<!-- end -->)', re.M | re.S)


def markdown_table(
    head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1
) -> str:
    """A table whose first ``left`` columns are words and the others figures.

    A bar inside a cell is escaped, so that it ends no column.
    """
    rule = ['---'] * left + ['---:'] * (len(head) - left)
    lines = [[str(cell).replace('|', '\\|') for cell in line] for line in (head, *rows)]
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

    def block(found: re.Match) -> str:
        if found[2] not in makers:
            return found[0]
        return f'{found[1]}\n{makers[found[2]]()}\n\n{found[3]}'

    return _BLOCK.sub(block, text)


def block_names(text: str) -> list[str]:
    """The names of a page's blocks."""
    return [found[2] for found in _BLOCK.finditer(text)]
