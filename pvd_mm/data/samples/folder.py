# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The folder of a sample: whose it is, whether it is complete.

A sample's folder holds ``<sample>.json`` with the parameters it was drawn
with, which is written first and, with ``complete``, last. So a sample is
reused, completed or refused, and nothing else is ever overwritten.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from pvd_mm.utils.files import check_folder, write_text

_SMALLEST, _LARGEST = 64, 4096
_MOST = 999_999  # scenes of a split; their numbers have six digits


def check_size(size: tuple[int, int]) -> None:
    """Refuse a size that no scene can have.

    Raises:
        ValueError: It is not a height and a width, or out of range.
    """
    if len(size) != 2 or not all(_SMALLEST <= side <= _LARGEST for side in size):
        raise ValueError(
            f'size is {tuple(size)}; expected (height, width), each from '
            f'{_SMALLEST} to {_LARGEST} pixels.'
        )


def check_scene(split: str, index: int, seed: int, size: tuple[int, int]) -> None:
    """Check the arguments that name one scene.

    Raises:
        ValueError: One of them is out of range.
    """
    if split not in ('train', 'val'):
        raise ValueError(f"split is {split!r}; expected 'train' or 'val'.")
    if index < 0 or seed < 0:
        raise ValueError(
            f'index is {index} and seed is {seed}; neither may be negative.'
        )
    check_size(size)


def sample_parameters(
    sample: str, version: int, train: int, val: int, size: tuple[int, int], seed: int
) -> dict:
    """Check what a whole sample is drawn with, and put it in a dict.

    Raises:
        ValueError: One of the arguments is out of range.
    """
    for name, value, least in (('train', train, 1), ('val', val, 1), ('seed', seed, 0)):
        if value < least:
            raise ValueError(f'{name} is {value}; expected at least {least}.')
        if name != 'seed' and value > _MOST:
            raise ValueError(f'{name} is {value}; expected at most {_MOST}.')
    check_size(size)
    return dict(
        sample=sample, version=version, train=train, val=val, size=list(size), seed=seed
    )


def is_there(
    out: Path,
    parameters: dict,
    files: Callable[[], Iterable[Path]],
    clear: Callable[[], None],
    force: bool,
) -> bool:
    """Look what the folder holds; clear the way if it may be replaced.

    Args:
        out (Path): The folder.
        parameters (dict): As :func:`sample_parameters` has made them.
        files (Callable): Lists the files that the complete sample has.
        clear (Callable): Deletes the files that a sample of this kind has
            written, and nothing else.
        force (bool): Whether a sample with other parameters is replaced.

    Returns:
        bool: Whether the complete sample is there already.

    Raises:
        FileExistsError: The folder is not empty and holds something else, or
            a sample with other parameters and ``force`` is not given.
        BlockedPathError: ``out`` cannot be a folder.
    """
    check_folder(out)
    if not out.exists() or not any(out.iterdir()):
        return False
    sample = parameters['sample']
    marker = out / f'{sample}.json'
    there = None
    if marker.is_file():
        try:
            there = json.loads(marker.read_text())
        except ValueError:
            there = None
    if not isinstance(there, dict) or there.get('sample') != sample:
        raise FileExistsError(
            f'{out} is not empty and is no {sample} sample (it has no valid '
            f'{marker.name}); nothing was written. Choose another folder.'
        )
    complete = there.pop('complete', False)
    if there != parameters:
        if not force:
            differing = [
                f'{key}: {there.get(key)} there, {value} asked'
                for key, value in parameters.items()
                if there.get(key) != value
            ]
            raise FileExistsError(
                f'{out} holds a {sample} sample with other parameters '
                f'({"; ".join(differing)}). Use --force to replace it, or '
                'another folder.'
            )
        clear()
        return False
    return complete and all(path.is_file() for path in files())


def mark(out: Path, parameters: dict, complete: bool) -> None:
    """Write the marker, and the folder if it is missing."""
    content = dict(parameters, complete=complete)
    path = out / f'{parameters["sample"]}.json'
    write_text(path, json.dumps(content, indent=2) + '\n')
