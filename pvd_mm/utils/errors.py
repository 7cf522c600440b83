# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Mistakes of the user's, which the tools tell without a traceback."""

import os.path as osp
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_LISTED = 5  # how many of the offending files or values an error shows


def some(items: Sequence[Any]) -> str:
    """Join the first few items and say how many more there are."""
    shown = ', '.join(str(item) for item in items[:_LISTED])
    more = len(items) - _LISTED
    return shown + (f' and {more} more' if more > 0 else '')


def existing_part(path: str) -> str:
    """Return the longest leading part of ``path`` that is a folder."""
    part = osp.abspath(path)
    while not osp.isdir(part):
        part = osp.dirname(part)
    return part


class UserError(Exception):
    """A mistake in what the user gave, told in one message."""

    def __str__(self) -> str:
        """The message alone: a data loader's worker wraps it in its own
        traceback."""
        text = super().__str__()
        return text.rsplit(f'{type(self).__name__}: ', 1)[-1].strip()


_collected: ContextVar[list | None] = ContextVar('collected', default=None)


@contextmanager
def collecting() -> Iterator[list]:
    """Within it, :func:`report` puts messages on a list and raises nothing.

    Yields:
        list[str]: The messages.
    """
    found: list[str] = []
    token = _collected.set(found)
    try:
        yield found
    finally:
        _collected.reset(token)


def report(error: UserError, place: str = '') -> None:
    """Raise an error that one can go on after by leaving out what is wrong, or
    put it on the list of :func:`collecting`.

    Args:
        error (UserError): The error.
        place (str): What the message on the list begins with, where whoever
            catches the error adds it. Defaults to ''.
    """
    found = _collected.get()
    if found is None:
        raise error
    found.append(f'{place}{error}')


class UsageError(UserError, RuntimeError):
    """What was asked of a tool cannot be done: a config or checkpoint that is not
    there or does not fit, or an option that the config does not support."""


class MissingDataError(UserError, FileNotFoundError):
    """A folder, image or label map of a dataset is not there."""


class LabelError(UserError, ValueError):
    """A label map does not fit its dataset."""


class AnnotationError(UserError, ValueError):
    """An annotation file, or one annotation in it, is broken."""
