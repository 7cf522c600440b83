# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Mistakes of the user's, which the tools tell without a traceback."""

import os.path as osp
from collections.abc import Sequence
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


class MissingDataError(UserError, FileNotFoundError):
    """A folder, image or label map of a dataset is not there."""


class LabelError(UserError, ValueError):
    """A label map does not fit its dataset."""


class AnnotationError(UserError, ValueError):
    """An annotation file, or one annotation in it, is broken."""
