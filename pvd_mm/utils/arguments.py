# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What the command lines of several programs have in common."""

import argparse
import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from .errors import UserError

_FULL_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class AtLeastOne(argparse.Action):
    """Stores a number, or several, that must be at least 1:
    ``add_argument('--steps', type=int, action=AtLeastOne)``."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        """Called by argparse; exits with its message on a smaller number."""
        if min(values if isinstance(values, list) else [values]) < 1:
            parser.error(f'{"/".join(self.option_strings)} must be at least 1')
        setattr(namespace, self.dest, values)


@contextmanager
def exit_on_user_error(program: str, *others: type[Exception]) -> Iterator[None]:
    """End the program with one line for a mistake of the user's, and for a disk that
    is full, as ``PROGRAM: message`` and with status 1.

    Args:
        program (str): Its name.
        *others (type[Exception]): Errors that are the user's mistakes in this program,
            beside :class:`.UserError`.

    Raises:
        SystemExit: In place of these errors.
    """
    try:
        yield
    except (UserError, *others) as error:
        sys.exit(f'{program}: {error}')
    except OSError as error:
        if error.errno not in _FULL_DISK:
            raise
        file = error.filename or 'a file'
        sys.exit(f'{program}: cannot write {file}: {error.strerror}')
