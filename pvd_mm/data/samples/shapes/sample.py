# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The built-in shapes sample: drawn figures in the layout of COCO.

::

    <out>
    ├── shapes.json                                  (parameters, last written)
    ├── annotations/instances_{train,val}2017.json
    ├── train2017/000000000001.png ...               RGB
    └── val2017/000001000001.png ...

Masks follow the edges of the pixels: an object in one piece without a hole is
a polygon along them, any other one, and every crowd, is uncompressed RLE.
Either decodes to the drawn mask, pixel by pixel.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pvd_mm.utils.coco import box_of
from pvd_mm.utils.files import write_text

from ..folder import SampleFolder, check_scene, write_png
from .figures import FIGURES
from .masks import mask_outline, mask_runs
from .scene import SceneObject, ShapesScene

VERSION = 1  # raise when the drawing changes, so that old samples are seen

CLASSES = tuple(FIGURES)

_SPLITS = ('train', 'val')
# Ids depend on the scene alone. Those of val lie behind all of train.
_FIRST_ID = {'train': 1, 'val': 1_000_001}
_IDS_PER_IMAGE = 100
_KINDS = {
    'disc': 'solid', 'ring': 'holed', 'frame': 'holed', 'star': 'solid',
    'cross': 'solid', 'lamp': 'thin', 'comb': 'thin', 'leaf': 'solid',
}  # fmt: skip


def shapes_scene(
    split: str, index: int, seed: int = 0, size: tuple[int, int] = (192, 256)
) -> tuple[np.ndarray, list[SceneObject]]:
    """Draw one scene of the sample.

    The result depends on the arguments alone: not on how many other scenes
    are drawn, nor on their order. Every eleventh scene has no object, every
    tenth one a crowd, unless both fall together, and every class is the
    uppermost object of every eighth.

    Args:
        split (str): 'train' or 'val'.
        index (int): Number of the scene in its split, from 0.
        seed (int): Seed of the whole sample, not negative. Defaults to 0.
        size (tuple[int, int]): Height and width H, W in pixels. Defaults to
            (192, 256).

    Returns:
        tuple[np.ndarray, list[SceneObject]]: RGB image, (H, W, 3) uint8, and
        its objects, the lowest first.

    Raises:
        ValueError: An argument is out of range.
    """
    check_scene(split, index, seed, size)
    return ShapesScene(
        np.random.default_rng([seed, _SPLITS.index(split), index]),
        *size,
        wanted=CLASSES[index % len(CLASSES)],
        empty=index % 11 == 8,
        crowd=index % 10 == 3,
    ).render()


def make_shapes_sample(
    out: str | os.PathLike,
    train: int = 300,
    val: int = 60,
    size: tuple[int, int] = (192, 256),
    seed: int = 0,
    force: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> bool:
    """Write the shapes sample.

    A folder that already holds the sample with the same parameters is left
    as it is; an interrupted one is completed.

    Args:
        out (str | os.PathLike): The folder, made if missing.
        train (int): Number of training scenes, at least 1. Defaults to 300.
        val (int): Number of validation scenes, at least 1. Eight or more
            show all classes. Defaults to 60.
        size (tuple[int, int]): Height and width in pixels. Defaults to
            (192, 256), at which objects of COCO's three sizes appear.
        seed (int): Not negative. Defaults to 0.
        force (bool): Replace a shapes sample that has other parameters.
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
    sample = SampleFolder(out, 'shapes', VERSION, train, val, size, seed)
    files = [_ann_file(out, split) for split in _SPLITS]
    files += [_image_file(out, *scene) for scene in sample.scenes]
    patterns = [f'annotations/instances_{split}2017.json' for split in _SPLITS]
    patterns += [f'{split}2017/00000[01]??????.png' for split in _SPLITS]
    if sample.is_complete(files, patterns, force):
        return False
    entries = {split: ([], []) for split in _SPLITS}
    for split, index in progress(sample.scenes):
        image, objects = shapes_scene(split, index, seed, tuple(size))
        path = _image_file(out, split, index)
        write_png(path, image)
        images, annotations = entries[split]
        image_id = _FIRST_ID[split] + index
        images.append(
            dict(
                id=image_id,
                license=1,
                file_name=path.name,
                height=size[0],
                width=size[1],
            )
        )
        for place, drawn in enumerate(objects):
            annotations.append(_annotation(drawn, image_id, place))
    for split, (images, annotations) in entries.items():
        for listed in (images, annotations):  # whatever the order of the scenes
            listed.sort(key=lambda entry: entry['id'])
        content = dict(
            info=dict(
                description=f'Drawn figures, {split} split',
                version=str(VERSION),
                contributor='PVD-MM contributors',
            ),
            licenses=[
                dict(id=1, name='Apache-2.0',
                     url='https://www.apache.org/licenses/LICENSE-2.0'),
            ],
            images=images,
            annotations=annotations,
            categories=[
                dict(id=i, name=name, supercategory=_KINDS[name])
                for i, name in enumerate(CLASSES, 1)
            ],
        )  # fmt: skip
        write_text(_ann_file(out, split), json.dumps(content, separators=(',', ':')))
    sample.mark(complete=True)
    return True


def _annotation(drawn: SceneObject, image_id: int, place: int) -> dict:
    outline = None if drawn.crowd else mask_outline(drawn.visible)
    return dict(
        id=image_id * _IDS_PER_IMAGE + place,
        image_id=image_id,
        category_id=CLASSES.index(drawn.category) + 1,
        segmentation=mask_runs(drawn.visible) if outline is None else [outline],
        area=int(drawn.visible.sum()),
        bbox=box_of(drawn.visible),
        iscrowd=int(drawn.crowd),
    )


def _ann_file(out: str | os.PathLike, split: str) -> Path:
    return Path(out, 'annotations', f'instances_{split}2017.json')


def _image_file(out: str | os.PathLike, split: str, index: int) -> Path:
    return Path(out, f'{split}2017', f'{_FIRST_ID[split] + index:012d}.png')
