# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Mistakes of the user's, which the tools tell without a traceback."""


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
