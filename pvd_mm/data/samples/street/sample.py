# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The built-in street sample: drawn scenes in the layout of Cityscapes.

::

    <out>
    ├── street.json                                   (parameters, last written)
    ├── leftImg8bit/{train,val}/<city>/<name>_leftImg8bit.png      RGB
    └── gtFine/{train,val}/<city>/<name>_gtFine_labelTrainIds.png  0-18, 255

with ``<name>`` = ``<city>_<number>_000019``. mmseg's ``CityscapesDataset``
reads it as it is.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from ..folder import SampleFolder, check_scene, write_png
from .classes import CLASSES, LABEL_IDS, PERSON
from .scene import StreetScene

VERSION = 1  # raise when the drawing changes, so that old samples are seen
LEAST_PIXELS = 12  # of an object that is told from others of its class

# Cities differ in the camera's hood; val has cities of its own.
_CITIES = {
    'train': ('arenbeck', 'brunnfeld', 'corvaden'),
    'val': ('dornhalm', 'eschwick'),
}
# What a scene must have, in turn, so that few images show every class.
_WANTED = (
    ('train', 'person', 'light'),
    ('bus', 'bicycle', 'terrain'),
    ('truck', 'rider', 'wall'),
    ('motorcycle', 'fence', 'light'),
    ('rider', 'bus', 'terrain'),
    ('train', 'bicycle', 'fence'),
    ('truck', 'motorcycle', 'wall'),
)


def street_scene(
    split: str, index: int, seed: int = 0, size: tuple[int, int] = (256, 512)
) -> tuple[np.ndarray, np.ndarray]:
    """Draw one scene of the sample.

    The result depends on the arguments alone: not on how many other scenes
    are drawn, nor on their order.

    Args:
        split (str): 'train' or 'val'.
        index (int): Number of the scene in its split, from 0.
        seed (int): Seed of the whole sample, not negative. Defaults to 0.
        size (tuple[int, int]): Height and width H, W in pixels. Defaults to
            (256, 512).

    Returns:
        tuple[np.ndarray, np.ndarray]: RGB image, (H, W, 3) uint8, and label
        map, (H, W) uint8: the 19 train ids of Cityscapes, 255 unlabelled.

    Raises:
        ValueError: An argument is out of range.
    """
    return _render(split, index, seed, size)[:2]


def street_panoptic_scene(
    split: str, index: int, seed: int = 0, size: tuple[int, int] = (256, 512)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw the scene of :func:`.street_scene` with its instances.

    Args:
        split (str): See there, as the others.
        index (int): Number of the scene.
        seed (int): Defaults to 0.
        size (tuple[int, int]): Defaults to (256, 512).

    Returns:
        tuple[np.ndarray, np.ndarray, np.ndarray]: Image and label map, and
        Cityscapes' instance ids, (H, W) uint16: label id · 1000 + number for
        things, the label id alone for stuff, and for things that show fewer than
        ``LEAST_PIXELS`` pixels, which are a group; 0 unlabelled.

    Raises:
        ValueError: An argument is out of range.
    """
    image, label, objects = _render(split, index, seed, size)
    return image, label, _instance_ids(label, objects)


def _instance_ids(label: np.ndarray, objects: np.ndarray) -> np.ndarray:
    table = np.zeros(256, np.uint16)
    table[: len(LABEL_IDS)] = LABEL_IDS
    ids = table[label]
    for train_id in range(PERSON, len(CLASSES)):
        numbers, pixels = np.unique(objects[label == train_id], return_counts=True)
        for place, number in enumerate(numbers[pixels >= LEAST_PIXELS]):
            where = (label == train_id) & (objects == number)
            ids[where] = LABEL_IDS[train_id] * 1000 + place
    return ids


def _render(
    split: str, index: int, seed: int, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    check_scene(split, index, seed, size)
    rng = np.random.default_rng([seed, list(_CITIES).index(split), index])
    return StreetScene(
        rng,
        *size,
        wanted=_WANTED[index % len(_WANTED)],
        hood=_city(split, index) not in ('brunnfeld', 'eschwick'),
    ).render()


def make_street_sample(
    out: str | os.PathLike,
    train: int = 200,
    val: int = 40,
    size: tuple[int, int] = (256, 512),
    seed: int = 0,
    force: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> bool:
    """Write the street sample.

    A folder that already holds the sample with the same parameters is left
    as it is; an interrupted one is completed.

    Args:
        out (str | os.PathLike): The folder, made if missing.
        train (int): Number of training scenes, at least 1. Defaults to 200.
        val (int): Number of validation scenes, at least 1. Seven or more
            show (nearly surely) all classes. Defaults to 40.
        size (tuple[int, int]): Height and width in pixels. Defaults to
            (256, 512).
        seed (int): Not negative. Defaults to 0.
        force (bool): Replace a street sample that has other parameters.
            Anything else is never replaced. Defaults to False.
        progress (Callable): Wraps the list of scenes, e.g.
            ``mmengine.track_iter_progress``. Defaults to none.

    Returns:
        bool: Whether anything was written.

    Raises:
        ValueError: A count, the size or the seed is out of range.
        FileExistsError: The folder is not empty and holds something else, or
            a sample with other parameters and ``force`` is not given.
        BlockedPathError: ``out`` cannot be a folder.
    """
    sample = SampleFolder(out, 'street', VERSION, train, val, size, seed)
    files = (path for scene in sample.scenes for path in scene_files(out, *scene))
    if sample.is_complete(files, file_patterns(), force):
        return False
    for split, index in progress(sample.scenes):
        image, label = street_scene(split, index, seed, tuple(size))
        paths = scene_files(out, split, index)
        for path, pixels in zip(paths, (image, label), strict=True):
            write_png(path, pixels)
    sample.mark(complete=True)
    return True


def file_patterns() -> list[str]:
    """Of the images and label maps of all street samples, relative to the folder."""
    return [
        str(path)
        for split, cities in _CITIES.items()
        for city in cities
        for path in _files('', split, city, '??????')
    ]


def scene_files(out: str | os.PathLike, split: str, index: int) -> tuple[Path, Path]:
    """Where the image and the label map of a scene are."""
    return _files(out, split, _city(split, index), f'{index:06d}')


def _city(split: str, index: int) -> str:
    cities = _CITIES[split]
    return cities[index % len(cities)]


def _files(out, split: str, city: str, number: str) -> tuple[Path, Path]:
    name = f'{city}_{number}_000019'
    return (
        Path(out, 'leftImg8bit', split, city, f'{name}_leftImg8bit.png'),
        Path(out, 'gtFine', split, city, f'{name}_gtFine_labelTrainIds.png'),
    )
