# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Tables in Markdown, and pages that hold them."""

import re
from collections.abc import Callable, Mapping, Sequence

_BLOCK = re.compile(r'(<!-- table: (.+?) -->\n).*?(<!-- end -->)', re.S)


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


def fill_blocks(text: str, makers: Mapping[str, Callable[[], str]]) -> str:
    """Make the tables of a page anew: what stands in it between ``<!-- table:
    NAME -->`` and ``<!-- end -->``.

    Args:
        text (str): The page.
        makers (Mapping): Name to what makes the text between.

    Raises:
        ValueError: If a block has another name.
    """

    def block(found: re.Match) -> str:
        if found[2] not in makers:
            raise ValueError(f'there is no table {found[2]}; there are '
                             f'{", ".join(makers)}')
        return f'{found[1]}\n{makers[found[2]]()}\n\n{found[3]}'

    return _BLOCK.sub(block, text)
