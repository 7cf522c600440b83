# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Folders and files that a program writes: whole ones, where the way is free."""

import glob
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import UserError, some


class BlockedPathError(UserError, NotADirectoryError):
    """A folder that is to be written into cannot be one."""


def check_folder(folder: str | os.PathLike) -> None:
    """Can a folder be written into, or made?

    Args:
        folder (str | os.PathLike): The folder; it and those above it may be missing.

    Raises:
        BlockedPathError: A part of its path is a file, a link that leads nowhere,
            or a folder that may not be written into; names that part.
    """
    path = Path(os.path.abspath(folder))
    part = next(part for part in (path, *path.parents) if os.path.lexists(part))
    if part.is_dir():
        if os.access(part, os.W_OK | os.X_OK):
            return
        what = 'may not be written into'
    elif part.is_symlink() and not part.exists():
        what = f'is a link to {os.readlink(part)}, which does not exist'
    else:
        what = 'is a file'
    raise BlockedPathError(f'cannot write into the folder {folder}: {part} {what}.')


def make_folder(folder: str | os.PathLike) -> Path:
    """Make a folder and those above it, where they are missing.

    Returns:
        Path: The folder.

    Raises:
        BlockedPathError: As :func:`check_folder` says.
    """
    check_folder(folder)
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    return path


def _is_running(number: str) -> bool:
    """Whether there is a process of that number, as far as this machine can tell."""
    if os.name != 'posix' or not number.isdigit():
        return True
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except OSError:  # another user's
        pass
    return True


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A file beside ``path``, which becomes it if all goes well: what an
    interruption leaves is never taken for a finished file.

    Raises:
        BlockedPathError: Its folder cannot be made.
    """
    make_folder(path.parent)
    for old in path.parent.glob(f'.{glob.escape(path.name)}.*'):
        if not _is_running(old.suffix[1:]):  # killed while it wrote
            old.unlink(missing_ok=True)
    partial = path.with_name(f'.{path.name}.{os.getpid()}')
    try:
        yield partial
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """Write a file, whole and to the disk, or not at all.

    Raises:
        BlockedPathError: Its folder cannot be made.
        OSError: It cannot be written; with its name, which Python's own lacks.
    """
    try:
        with whole(Path(path)) as partial, open(partial, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if os.name == 'posix':  # its name is to be on the disk, too
            folder = os.open(Path(path).parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
    except OSError as error:
        if isinstance(error, UserError) or error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file, whole and to the disk, or not at all; see
    :func:`write_bytes`."""
    write_bytes(path, text.encode())


def check_out_dir(out_dir: str, force: bool) -> Path:
    """Refuse a folder for results that holds something.

    Args:
        out_dir (str): The folder; it may be missing.
        force (bool): Whether files of the same name may be replaced.

    Returns:
        Path: The folder, absolute.

    Raises:
        UserError: It cannot be a folder, or it holds something and not ``force``.
    """
    out = Path(os.path.abspath(out_dir))
    check_folder(out_dir)
    if out.is_dir() and any(out.iterdir()) and not force:
        raise UserError(
            f"the output folder '{out_dir}' is not empty; choose another one, or "
            'allow with --force that results of the same name are replaced.'
        )
    return out


def check_out_file(path: str, force: bool, suffix: str = '.png') -> Path:
    """Refuse a file for a picture that is there already.

    Args:
        path (str): The file.
        force (bool): Whether it may be replaced.
        suffix (str): What it has to end in. Defaults to '.png'.

    Returns:
        Path: The file; its folder exists.

    Raises:
        UserError: It has another suffix, or it exists and not ``force``.
    """
    out = Path(path)
    if out.suffix.lower() != suffix:
        raise UserError(f"the picture is '{path}'; its name has to end in {suffix}.")
    if out.is_dir() or (out.exists() and not force):
        raise UserError(
            f"'{path}' exists already; choose another name, or replace it with --force."
        )
    make_folder(out.parent)
    return out


def check_new(paths: Iterable[str | Path], force: bool) -> None:
    """Refuse to replace files.

    Args:
        paths (Iterable[str | Path]): The files that are to be written.
        force (bool): Whether they may be replaced.

    Raises:
        UserError: Some exist and not ``force``, or their folder cannot be made.
    """
    paths = list(paths)
    for folder in {Path(path).parent for path in paths}:
        check_folder(folder)
    there = [path for path in paths if Path(path).exists()]
    if there and not force:
        raise UserError(
            f'{some(there)} would be replaced; choose another output folder, or '
            'allow it with --force.'
        )
