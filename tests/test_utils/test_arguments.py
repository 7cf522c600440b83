# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What the command lines of programs have in common."""

import argparse

import pytest

from pvd_mm.utils.arguments import AtLeastOne, exit_on_user_error
from pvd_mm.utils.errors import MissingDataError


def parse(*words):
    parser = argparse.ArgumentParser()
    parser.add_argument('--steps', type=int, action=AtLeastOne)
    parser.add_argument('--size', nargs=2, type=int, action=AtLeastOne)
    return parser.parse_args(words)


def test_numbers_of_at_least_one():
    args = parse('--steps', '1', '--size', '2', '3')
    assert (args.steps, args.size) == (1, [2, 3])
    assert (parse().steps, parse().size) == (None, None)


@pytest.mark.parametrize(
    'words, option', [('--steps 0', '--steps'), ('--size 3 -1', '--size')]
)
def test_smaller_numbers_are_refused(words, option, capsys):
    with pytest.raises(SystemExit) as end:
        parse(*words.split())
    assert end.value.code == 2
    assert f'error: {option} must be at least 1' in capsys.readouterr().err


@pytest.mark.parametrize(
    'error', [MissingDataError('no folder'), KeyError('no folder')]
)
def test_mistakes_end_in_one_line(error):
    with pytest.raises(SystemExit) as end, exit_on_user_error('program', KeyError):
        raise error
    assert end.value.code == f'program: {error}'


def test_other_errors_are_raised():
    with pytest.raises(KeyError), exit_on_user_error('program'):
        raise KeyError
