# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The street sample with instances, in the layouts of Cityscapes and of COCO.

::

    <out>
    ├── street-panoptic.json                          (parameters, last written)
    ├── leftImg8bit/{train,val}/<city>/<name>_leftImg8bit.png      RGB
    ├── gtFine/{train,val}/<city>/<name>_gtFine_labelTrainIds.png  0-18, 255
    ├── gtFine/{train,val}/<city>/<name>_gtFine_instanceIds.png    uint16
    └── annotations
        ├── panoptic_{train,val}2017.json
        ├── panoptic_{train,val}2017/<name>_gtFine_panoptic.png    RGB of the ids
        └── instances_{train,val}2017.json                         the things

Images and label maps are those of the street sample, byte by byte. Ids of
segments, images and categories are those that cityscapesscripts makes of the
instance ids; beside that the images' ``file_name`` has the city, and the things are
the first categories.
"""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pvd_mm.utils.coco import box_of
from pvd_mm.utils.files import write_text

from ..folder import SampleFolder, write_png
from ..shapes.masks import mask_runs
from .classes import CLASSES, LABEL_IDS, THINGS
from .sample import VERSION, file_patterns, scene_files, street_panoptic_scene

_SPLITS = ('train', 'val')
_CATEGORIES = sorted(
    (
        dict(id=i, name=name, isthing=int(name in THINGS))
        for i, name in zip(LABEL_IDS, CLASSES)
    ),
    key=lambda category: not category['isthing'],
)


def make_street_panoptic_sample(
    out: str | os.PathLike,
    train: int = 200,
    val: int = 40,
    size: tuple[int, int] = (256, 512),
    seed: int = 0,
    force: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> bool:
    """Write the street sample with instances.

    A folder that already holds the sample with the same parameters is left
    as it is; an interrupted one is completed.

    Args:
        out (str | os.PathLike): The folder, made if missing.
        train (int): Number of training scenes, at least 1. Defaults to 200.
        val (int): Number of validation scenes, at least 1. Defaults to 40.
        size (tuple[int, int]): Height and width in pixels. Defaults to
            (256, 512).
        seed (int): Not negative. Defaults to 0.
        force (bool): Replace a sample of this kind that has other parameters.
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
    sample = SampleFolder(out, 'street-panoptic', VERSION, train, val, size, seed)
    files = [_ann_file(out, *ids) for ids in _ANN_FILES]
    files += [path for scene in sample.scenes for path in _scene_files(out, *scene)]
    labels = [pattern for pattern in file_patterns() if 'gtFine' in pattern]
    patterns = [
        *file_patterns(),
        *(pattern.replace('labelTrainIds', 'instanceIds') for pattern in labels),
        *(str(_ann_file('', *ids)) for ids in _ANN_FILES),
        *(f'{_ann_file("", "panoptic", s).with_suffix("")}/*.png' for s in _SPLITS),
    ]
    if sample.is_complete(files, patterns, force):
        return False
    images = {split: [] for split in _SPLITS}
    segments = {split: [] for split in _SPLITS}
    objects = {split: [] for split in _SPLITS}
    for split, index in progress(sample.scenes):
        image, label, ids = street_panoptic_scene(split, index, seed, tuple(size))
        rgb = np.stack([ids & 255, ids >> 8, 0 * ids], -1).astype(np.uint8)
        paths = _scene_files(out, split, index)
        for path, pixels in zip(paths, (image, label, ids, rgb), strict=True):
            write_png(path, pixels)
        name = paths[0].name.removesuffix('_leftImg8bit.png')
        images[split].append(
            dict(
                id=name,
                width=size[1],
                height=size[0],
                file_name=f'{paths[0].parent.name}/{paths[0].name}',
            )
        )
        found = _segments(ids)
        segments[split].append(
            dict(image_id=name, file_name=paths[3].name, segments_info=found)
        )
        objects[split] += [
            dict(segment, image_id=name, segmentation=mask_runs(ids == segment['id']))
            for segment in found
            if segment['category_id'] in _THING_IDS
        ]
    for split in _SPLITS:
        for entries, key in ((images, 'id'), (segments, 'image_id')):
            entries[split].sort(key=lambda entry: entry[key])
        objects[split].sort(key=lambda entry: (entry['image_id'], entry['id']))
        for number, entry in enumerate(objects[split], 1):
            entry['id'] = number
        things = [category for category in _CATEGORIES if category['isthing']]
        for kind, annotations, categories in (
            ('panoptic', segments, _CATEGORIES),
            ('instances', objects, things),
        ):
            content = dict(
                images=images[split],
                annotations=annotations[split],
                categories=categories,
            )
            write_text(
                _ann_file(out, kind, split), json.dumps(content, separators=(',', ':'))
            )
    sample.mark(complete=True)
    return True


_ANN_FILES = [(kind, split) for kind in ('panoptic', 'instances') for split in _SPLITS]
_THING_IDS = {category['id'] for category in _CATEGORIES if category['isthing']}


def _segments(ids: np.ndarray) -> list[dict]:
    """The ``segments_info`` of instance ids, as cityscapesscripts makes it."""
    segments = []
    for i in np.unique(ids[ids > 0]).tolist():
        mask = ids == i
        segments.append(
            dict(
                id=i,
                category_id=i if i < 1000 else i // 1000,
                area=int(mask.sum()),
                bbox=box_of(mask),
                iscrowd=int(i in _THING_IDS),
            )
        )
    return segments


def _ann_file(out: str | os.PathLike, kind: str, split: str) -> Path:
    return Path(out, 'annotations', f'{kind}_{split}2017.json')


def _scene_files(out: str | os.PathLike, split: str, index: int) -> tuple[Path, ...]:
    """Image, label map, instance ids and panoptic map of a scene."""
    image, label = scene_files(out, split, index)
    name = label.name.replace('labelTrainIds', 'instanceIds')
    panoptic = label.name.replace('labelTrainIds', 'panoptic')
    folder = _ann_file(out, 'panoptic', split).with_suffix('')
    return image, label, label.with_name(name), folder / panoptic
