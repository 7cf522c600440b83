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

from pvd_mm.utils.errors import MissingDataError, UserError, some

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
    images = []
    for path in map(str, paths):
        if os.path.exists(path):
            matches = [path]
        else:
            matches = sorted(glob.glob(path, recursive=True))
            if not matches:
                problem = (
                    'matches nothing' if glob.has_magic(path) else 'does not exist'
                )
                raise MissingDataError(f"'{path}' {problem}.")
        for match in matches:
            if not os.path.isdir(match):
                images.append(match)
                continue
            inside = list(_search(match, out))
            # a pattern may match a folder beside the images it is meant for
            if not inside and len(matches) == 1:
                raise MissingDataError(
                    f"the folder '{match}' holds no image, that is, no file that "
                    f'ends in {", ".join(SUFFIXES)}.'
                )
            images += inside
    if not images:
        raise MissingDataError(f'there is no image in {some(list(paths))}.')
    return list(dict.fromkeys(Path(os.path.abspath(path)) for path in images))


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
        UnreadableImage: It is no image, the file ends too early, or OpenCV makes no
            colours of its values.
    """
    try:
        content = Path(path).read_bytes()
        image = mmcv.imfrombytes(content, channel_order='rgb')
        with Image.open(path) as file:
            file.load()  # OpenCV fills missing pixels with grey
    except cv2.error as error:
        values = None
        if content:
            data = np.frombuffer(content, np.uint8)
            values = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        raise UnreadableImage(
            f'{path} is no image, or a broken one.'
            if values is None
            else f'{path} holds {values.dtype}, of which OpenCV makes no colours; '
            'save it with 8 bits per channel.'
        ) from error
    except (UnidentifiedImageError, Image.DecompressionBombError):
        pass  # a format, or a size, that OpenCV alone can read
    except Exception as error:  # of many kinds, by format
        raise UnreadableImage(f'{path} cannot be read: {error}') from error
    return image
