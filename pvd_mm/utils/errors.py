# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Mistakes of the user's, which the tools tell without a traceback."""

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


class UserError(Exception):
    """A mistake in what the user gave, told in one message."""

    def __str__(self) -> str:
        """The message alone: a data loader's worker wraps it in its own
        traceback."""
        text = super().__str__()
        return text.rsplit(f'{type(self).__name__}: ', 1)[-1].strip()


_collected: ContextVar[list[str] | None] = ContextVar('collected', default=None)


@contextmanager
def collect_errors() -> Iterator[list[str]]:
    """Within it, :func:`raise_or_collect` puts messages on a list and raises nothing.

    Yields:
        list[str]: The messages.
    """
    messages = []
    token = _collected.set(messages)
    try:
        yield messages
    finally:
        _collected.reset(token)


def raise_or_collect(error: UserError, prefix: str = '') -> None:
    """Raise an error that one can go on after by leaving out what is wrong, or put it
    on the list of :func:`collect_errors`.

    Args:
        error (UserError): The error.
        prefix (str): What the message on the list begins with, where whoever catches
            the error adds it. Defaults to ''.
    """
    messages = _collected.get()
    if messages is None:
        raise error
    messages.append(f'{prefix}{error}')


class UsageError(UserError, RuntimeError):
    """What was asked of a tool cannot be done: a config or checkpoint that is not
    there or does not fit, or an option that the config does not support."""


class MissingDataError(UserError, FileNotFoundError):
    """A folder, image or label map of a dataset is not there."""


class LabelError(UserError, ValueError):
    """A label map does not fit its dataset."""


class ClassesError(UserError, ValueError):
    """The classes of a dataset are no list of names, or a head has too few."""


class AnnotationError(UserError, ValueError):
    """An annotation file, or one annotation in it, is broken."""
