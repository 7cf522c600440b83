# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The folder of a sample: whose it is, whether it is complete.

A sample's folder holds ``<sample>.json`` with the parameters it was drawn
with, which is written first and, with ``complete``, last. So a sample is
reused, completed or refused, and nothing else is ever overwritten.
"""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np

from pvd_mm.utils.files import check_folder, make_folder, write_text

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


class SampleFolder:
    """The folder of one sample.

    Args:
        out (str | os.PathLike): The folder.
        sample (str): Name of the sample, and of its marker.
        version (int): Of its drawing.
        train (int): Number of training scenes.
        val (int): Number of validation scenes.
        size (tuple[int, int]): Height and width in pixels.
        seed (int): Of the whole sample.

    Attributes:
        scenes (list[tuple[str, int]]): Split and number of every scene.

    Raises:
        ValueError: A count, the size or the seed is out of range.
    """

    def __init__(
        self,
        out: str | os.PathLike,
        sample: str,
        version: int,
        train: int,
        val: int,
        size: tuple[int, int],
        seed: int,
    ) -> None:
        for name, value, least in (
            ('train', train, 1), ('val', val, 1), ('seed', seed, 0)
        ):  # fmt: skip
            if value < least:
                raise ValueError(f'{name} is {value}; expected at least {least}.')
            if name != 'seed' and value > _MOST:
                raise ValueError(f'{name} is {value}; expected at most {_MOST}.')
        check_size(size)
        self.out = Path(out)
        self.sample = sample
        self.marker = self.out / f'{sample}.json'
        self.parameters = dict(
            sample=sample,
            version=version,
            train=train,
            val=val,
            size=list(size),
            seed=seed,
        )
        self.scenes = [('train', i) for i in range(train)]
        self.scenes += [('val', i) for i in range(val)]

    def is_complete(
        self, files: Iterable[Path], patterns: Iterable[str], force: bool
    ) -> bool:
        """Look what the folder holds; mark it as begun if the sample is not there.

        Args:
            files (Iterable[Path]): What the complete sample has.
            patterns (Iterable[str]): Of all files that a sample of this kind writes,
                relative to the folder, for ``Path.glob``: what is deleted if another
                one is replaced.
            force (bool): Whether a sample with other parameters is replaced.

        Returns:
            bool: Whether the complete sample is there already.

        Raises:
            FileExistsError: The folder is not empty and holds something else, or a
                sample with other parameters and ``force`` is not given.
            BlockedPathError: ``out`` cannot be a folder.
        """
        check_folder(self.out)
        if self.out.exists() and any(self.out.iterdir()):
            there = self._read_marker()
            complete = there.pop('complete', False)
            if there == self.parameters:
                if complete and all(path.is_file() for path in files):
                    return True
            elif force:
                for pattern in patterns:
                    for path in self.out.glob(pattern):
                        path.unlink()
            else:
                differing = [
                    f'{key}: {there.get(key)} there, {value} asked'
                    for key, value in self.parameters.items()
                    if there.get(key) != value
                ]
                raise FileExistsError(
                    f'{self.out} holds a {self.sample} sample with other parameters '
                    f'({"; ".join(differing)}). Use --force to replace it, or '
                    'another folder.'
                )
        self.mark(complete=False)
        return False

    def _read_marker(self) -> dict:
        content = None
        if self.marker.is_file():
            try:
                content = json.loads(self.marker.read_text())
            except ValueError:
                pass
        if not isinstance(content, dict) or content.get('sample') != self.sample:
            raise FileExistsError(
                f'{self.out} is not empty and is no {self.sample} sample (it has no '
                f'valid {self.marker.name}); nothing was written. Choose another '
                'folder.'
            )
        return content

    def mark(self, complete: bool) -> None:
        """Write the marker, and the folder if it is missing."""
        content = dict(self.parameters, complete=complete)
        write_text(self.marker, json.dumps(content, indent=2) + '\n')


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write RGB or labels as PNG, and the folder if it is missing.

    Raises:
        OSError: It cannot be written.
    """
    make_folder(path.parent)
    if not cv2.imwrite(str(path), pixels[..., ::-1] if pixels.ndim == 3 else pixels):
        raise OSError(f'could not write {path}')
