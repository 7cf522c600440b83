# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Reading and writing the files of a data set."""

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import whole


def load_pixels(path: Path, mode: str | None = None) -> np.ndarray:
    """The pixels of an image file.

    Args:
        path (Path): The file.
        mode (str, optional): Pillow's, such as 'RGB'. Defaults to None: the
            file's own.

    Raises:
        UserError: It is no image, or only a part of one.
    """
    try:
        with Image.open(path) as image:
            return np.array(image.convert(mode) if mode else image)
    except UnidentifiedImageError as error:
        raise UserError(f'{path} is no image.') from error
    except (OSError, SyntaxError, ValueError) as error:  # by format
        raise UserError(f'{path} cannot be read: {error}') from error


def save_png(pixels: np.ndarray, path: Path) -> None:
    """Write pixels as PNG."""
    with whole(path) as partial:
        Image.fromarray(pixels).save(partial, 'PNG')
