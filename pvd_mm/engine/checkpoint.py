# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Checkpoints: reading one, the one to resume from, and how one fits a model."""

import functools
import logging
import os
import pickle
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import torch
from mmengine.logging import print_log
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader, find_latest_checkpoint
from mmengine.runner.checkpoint import load_from_local

from pvd_mm.utils.errors import MissingDataError, UsageError

#: What torch raises of a file that is cut off, damaged, or of another kind.
_UNREADABLE = (
    RuntimeError,
    EOFError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    ValueError,
    LookupError,
    AttributeError,
    ImportError,
)


class BrokenCheckpointError(UsageError, pickle.UnpicklingError):
    """A file cannot be read as a checkpoint."""


def _is_cut_off(path: str) -> bool:
    """Whether a file is empty, or begins as a zip archive does and is none."""
    if not os.path.isfile(path) or zipfile.is_zipfile(path):
        return False
    with open(path, 'rb') as file:
        return file.read(2) in (b'', b'PK')


@contextmanager
def name_broken_file(path: str) -> Iterator[None]:
    """Say which checkpoint it is that torch cannot read.

    Raises:
        BrokenCheckpointError: In place of torch's errors.
    """
    try:
        yield
    except BrokenCheckpointError:
        raise
    except _UNREADABLE as error:
        text = str(error) or type(error).__name__
        unpickler = re.search(r'WeightsUnpickler error: *\S.*', text)
        first = re.split(r'\.\s', text.splitlines()[0])[0]
        reason = (unpickler[0] if unpickler else first).rstrip('.')
        hint = ' It was cut off while it was written.' if _is_cut_off(path) else ''
        raise BrokenCheckpointError(
            f'{path} is no checkpoint that can be read: {reason}.{hint}'
        ) from error


@functools.wraps(load_from_local)
def _load_from_local(filename, map_location):
    with name_broken_file(filename):
        return load_from_local(filename, map_location)


def name_broken_files() -> None:
    """Let mmengine name a broken file wherever it loads one: checkpoints, and the
    ``Pretrained`` weights of a model's parts."""
    CheckpointLoader.register_scheme('', _load_from_local, force=True)


def read_checkpoint(path: str) -> dict:
    """Read a checkpoint, onto the CPU.

    Args:
        path (str): The file, or an address that mmengine knows.

    Returns:
        dict: What it holds.

    Raises:
        MissingDataError: There is no such file.
        BrokenCheckpointError: It cannot be read, or is something else.
    """
    try:
        with name_broken_file(path):
            checkpoint = CheckpointLoader.load_checkpoint(path, map_location='cpu')
    except FileNotFoundError as error:
        raise MissingDataError(f'checkpoint not found: {path}.') from error
    if not isinstance(checkpoint, dict):
        raise BrokenCheckpointError(
            f'{path} holds a {type(checkpoint).__name__}, not a checkpoint.'
        )
    return checkpoint


def is_readable(path: str | os.PathLike) -> bool:
    """Whether there is a checkpoint, and a whole one: what a killed process leaves
    may be a part of it."""
    try:
        read_checkpoint(str(path))
    except (BrokenCheckpointError, MissingDataError):
        return False
    return True


def _number(path: Path) -> int:
    """The step in a checkpoint's name, -1 where there is none: neither a best one's
    nor a published one's, which lack what resuming needs."""
    match = re.fullmatch(r'(?!best_)[^-]*?(\d+)\.pth', path.name)
    return int(match[1]) if match else -1


def _candidates(work_dir: Path) -> list[str]:
    """Checkpoints of a work dir that may be resumed from, newest first.

    Beside the one that ``last_checkpoint`` names, those of a lower number; and of a
    higher one what was written later, by a process that was killed before it could
    say so. The rest are an earlier run's.
    """
    pointer = work_dir / 'last_checkpoint'
    named = pointer.is_file() and find_latest_checkpoint(str(work_dir))
    if named and re.match(r'\w[\w+.-]*://', named):
        return [named]
    # a run that was moved has it beside the pointer
    places = [work_dir / Path(named).name, Path(named)] if named else []
    last = next((path for path in places if path.is_file()), None)
    folders = {work_dir, last.parent if last else work_dir}
    files = [path for folder in folders for path in folder.glob('*.pth')]
    newest_first = sorted(
        (path for path in files if _number(path) >= 0), key=_number, reverse=True
    )
    if last is None:
        return list(map(str, newest_first))
    limit, said = _number(last), pointer.stat().st_mtime
    later = [
        path
        for path in newest_first
        if _number(path) > limit and path.stat().st_mtime > said
    ]
    earlier = [path for path in newest_first if _number(path) < limit]
    return list(map(str, [*later, last, *earlier]))


def latest_checkpoint(work_dir: str | os.PathLike) -> str | None:
    """The newest checkpoint of a work dir that is whole; a log message names the
    newer ones that are not.

    Args:
        work_dir (str | os.PathLike): Of a training.

    Returns:
        str | None: Its path; None where there is none.
    """
    for path in _candidates(Path(work_dir)):
        try:
            if 'message_hub' in read_checkpoint(path):  # else it is no training's
                return path
        except (BrokenCheckpointError, MissingDataError) as error:
            print_log(f'Passed over: {error}', logger='current', level=logging.WARNING)
    return None


class CheckpointFit(NamedTuple):
    """How a checkpoint fits a model; names of tensors.

    Counters of batches that a normalisation has seen are not asked for.
    """

    own: list[str]  # those of the model
    given: list[str]  # those of the file
    missing: list[str]  # the model has them, the file does not
    unexpected: list[str]  # the file has them, the model does not
    differing: dict[str, str]  # both have them; how their shapes differ


def unwrap(model: torch.nn.Module) -> torch.nn.Module:
    """The model inside wrappers for distributed training and augmented tests."""
    while is_model_wrapper(model) or isinstance(model, BaseTTAModel):
        model = model.module
    return model


def fit_checkpoint(model: torch.nn.Module, checkpoint: dict) -> CheckpointFit:
    """Compare a loaded checkpoint with a model; wrappers are looked through.

    Args:
        model (nn.Module): The model.
        checkpoint (dict): What the file holds, or its ``state_dict`` alone.
    """
    given = {
        re.sub(r'^module\.', '', key): value
        for key, value in checkpoint.get('state_dict', checkpoint).items()
        if isinstance(value, torch.Tensor)
    }
    own = unwrap(model).state_dict()
    return CheckpointFit(
        own=list(own),
        given=list(given),
        missing=[
            key
            for key in own
            if key not in given and not key.endswith('num_batches_tracked')
        ],
        unexpected=[key for key in given if key not in own],
        differing={
            key: f'{tuple(given[key].shape)} in the file, '
            f'{tuple(own[key].shape)} in the model'
            for key in own
            if key in given and given[key].shape != own[key].shape
        },
    )


def _some(keys: list[str], number: int = 3) -> str:
    text = ', '.join(keys[:number])
    return text + (', …' if len(keys) > number else '')


def check_fit(model: torch.nn.Module, checkpoint: dict, path: str) -> None:
    """Refuse a checkpoint that belongs to another model.

    mmengine only warns and goes on with what fits, so a test of the wrong
    file ends in a table of wrong numbers.

    Args:
        model (nn.Module): The built model; wrappers are looked through.
        checkpoint (dict): From :func:`read_checkpoint`.
        path (str): Its file, for the message.

    Raises:
        UsageError: If keys are missing, do not belong to the model (those
            of auxiliary heads excepted), or differ in shape; names a few and
            tells the counts.
    """
    fit = fit_checkpoint(model, checkpoint)
    misfits = [
        (fit.missing, 'missing from the file'),
        (
            [key for key in fit.unexpected if 'auxiliary_head' not in key],
            'unknown to the model',
        ),
        (
            [f'{key} ({shapes})' for key, shapes in fit.differing.items()],
            'of another shape',
        ),
    ]
    parts = [
        f'{len(keys)} keys are {fault}: {_some(keys)}'
        for keys, fault in misfits
        if keys
    ]
    if parts:
        raise UsageError(
            f'{path} is a checkpoint of another model than '
            f'{type(unwrap(model)).__name__} of this config ({len(fit.given)} keys in '
            f'the file, {len(fit.own)} in the model).\n  ' + '\n  '.join(parts)
        )
