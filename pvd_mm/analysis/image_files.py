# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Which images a user means, whether they can be read, where results go."""

import glob
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import mmcv
import numpy as np
from PIL import Image, UnidentifiedImageError

from pvd_mm.errors import MissingDataError, UserError, some
from pvd_mm.files import check_folder, make_folder

#: What a file in a folder ends with to be taken for an image; mmdet's list.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.ppm', '.bmp', '.pgm', '.tif', '.tiff', '.webp')


class UnreadableImage(UserError, OSError):
    """A file is no image, or only a part of one."""


def find_images(paths: Sequence[str], without: str | None = None) -> list[Path]:
    """List images.

    Args:
        paths (Sequence[str]): Files, folders, which are searched with all
            their subfolders for images by their suffix, and glob patterns.
            Hidden files and folders are passed over.
        without (str, optional): A folder that is left out of the search, the
            one that results go to. Defaults to None.

    Returns:
        list[Path]: Absolute paths, each once: in the order of ``paths``,
        those of a folder or pattern sorted.

    Raises:
        MissingDataError: A path does not exist, a pattern matches nothing, or
            a folder holds no image.
    """
    out = None if without is None else Path(os.path.abspath(without))
    found = []
    for path in map(str, paths):
        if os.path.exists(path):
            matches = [path]
        else:
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                what = 'matches nothing' if glob.has_magic(path) else 'does not exist'
                raise MissingDataError(f"'{path}' {what}.")
        for match in matches:
            if not os.path.isdir(match):
                found.append(match)
                continue
            inside = list(_search(match, out))
            # a pattern may match a folder beside the images it is meant for
            if not inside and len(matches) == 1:
                raise MissingDataError(
                    f"the folder '{match}' holds no image, that is, no file that "
                    f'ends in {", ".join(SUFFIXES)}.'
                )
            found += inside
    if not found:
        raise MissingDataError(f'there is no image in {some(list(paths))}.')
    return list(dict.fromkeys(Path(os.path.abspath(path)) for path in found))


def _search(folder: str, out: Path | None) -> Iterable[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith('.')
            and Path(os.path.abspath(os.path.join(root, name))) != out
        )
        for name in sorted(files):
            if name.lower().endswith(SUFFIXES) and not name.startswith('.'):
                yield os.path.join(root, name)


def result_names(images: Sequence[Path]) -> list[Path]:
    """Name the results of images, no two alike.

    Args:
        images (Sequence[Path]): Absolute paths, all different.

    Returns:
        list[Path]: Of each image its path below the folder that all of them
        are in, without its suffix; with it, for all, where two images differ
        in nothing else.
    """
    common = os.path.commonpath([path.parent for path in images])
    names = [path.relative_to(common) for path in images]
    bare = [name.with_suffix('') for name in names]
    return bare if len(set(bare)) == len(bare) else names


def read_image(path: str | Path) -> np.ndarray:
    """Read an image as mmcv does by default, but none that is cut off.

    Args:
        path (str | Path): The file.

    Returns:
        np.ndarray: (H, W, 3) uint8, RGB.

    Raises:
        UnreadableImage: It is no image, or the file ends too early.
    """
    try:
        image = mmcv.imfrombytes(Path(path).read_bytes(), channel_order='rgb')
        with Image.open(path) as again:
            again.load()  # OpenCV fills up with grey what is missing
    except cv2.error as error:
        raise UnreadableImage(f'{path} is no image, or a broken one.') from error
    except (UnidentifiedImageError, Image.DecompressionBombError):
        pass  # a format, or a size, that OpenCV alone can read
    except Exception as error:  # of many kinds, by format
        raise UnreadableImage(f'{path} cannot be read: {error}') from error
    return image


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
