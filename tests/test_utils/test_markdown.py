# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Tables in Markdown."""

import pytest

from pvd_mm.utils.markdown import markdown_table


def test_words_are_left_and_figures_right():
    table = markdown_table(['name', 'kind', 'value'], [['a', 'b', 1]], left=2)
    assert table.splitlines() == [
        '| name | kind | value |',
        '| --- | --- | ---: |',
        '| a | b | 1 |',
    ]


def test_padded_columns_are_as_wide_as_their_widest_cell():
    table = markdown_table(
        ['name', 'value'], [['longer', '1'], ['x', '22']], padded=True
    )
    assert table.splitlines() == [
        '| name   | value |',
        '| ------ | ----: |',
        '| longer |     1 |',
        '| x      |    22 |',
    ]


def test_a_bar_in_a_cell():
    assert markdown_table(['a'], [['x|y']]).endswith('| x\\|y |')
    assert markdown_table(['a'], [['x|y']], padded=True).endswith('| x\\|y |')


def test_rows_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match='argument 2 is shorter'):
        markdown_table(['a', 'b'], [['x']])
