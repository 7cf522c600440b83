# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What annotation files of COCO's format leave open, filled in as it is meant.

Everything here is on the content of a file, a dict, before it is checked: what is
not of its format is left as it is.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

_WHOLE = {
    'images': ('id', 'height', 'width'),
    'categories': ('id',),
    'annotations': ('id', 'image_id', 'category_id', 'iscrowd'),
}


def is_polygon(values: Any) -> bool:
    """Whether mmdet takes a polygon: of three points or more, all of them whole."""
    return len(values) >= 6 and len(values) % 2 == 0


def box_of(mask: np.ndarray) -> list[int]:
    """COCO's ``bbox`` of a bool mask (H, W) with a pixel in it at least: left, top,
    width, height."""
    rows, columns = (np.flatnonzero(mask.any(axis)).tolist() for axis in (1, 0))
    left, top = columns[0], rows[0]
    return [left, top, columns[-1] - left + 1, rows[-1] - top + 1]


def fill_in(data: Any) -> None:
    """Make integers of the whole numbers that are written as 192.0, and ``iscrowd`` 0
    where there is none. In place.

    Args:
        data (Any): What is in a file.
    """
    for key, names in _WHOLE.items():
        for entry in _entries(data, key):
            for name in names:
                value = entry.get(name)
                if isinstance(value, float) and value.is_integer():
                    entry[name] = int(value)
    for ann in _entries(data, 'annotations'):
        crowd = ann.get('iscrowd')
        if crowd is None or isinstance(crowd, bool):
            ann['iscrowd'] = int(bool(crowd))
        mask = ann.get('segmentation')
        if isinstance(mask, dict):
            for name in {'size', 'counts'} & set(mask):
                mask[name] = _as_whole(mask[name])


def prepare_for_evaluation(data: dict, masks: bool) -> bool:
    """Make of annotations that mmdet trains with what pycocotools can evaluate. In
    place.

    Besides :func:`fill_in`: annotations are counted from 1, unless their ids are whole
    numbers above 0, for pycocotools puts the ids into an array of numbers and takes 0
    for none. With ``masks``, polygons that mmdet leaves out are left out. An object
    of no other is ignored, as in training: it is made a crowd, as large as its box.

    Args:
        data (dict): What is in a file.
        masks (bool): Whether masks are evaluated.

    Returns:
        bool: Whether ids were changed.
    """
    fill_in(data)
    annotations = list(_entries(data, 'annotations'))
    if masks:
        for ann in annotations:
            polygons = ann.get('segmentation')
            if not isinstance(polygons, list) or all(map(is_polygon, polygons)):
                continue
            ann['segmentation'] = list(filter(is_polygon, polygons))
            if not ann['segmentation']:
                x, y, w, h = ann['bbox']
                ann['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
                ann['iscrowd'] = 1
    if all(isinstance(ann['id'], int) and ann['id'] > 0 for ann in annotations):
        return False
    for number, ann in enumerate(annotations, 1):
        ann['id'] = number
    return True


def _entries(data: Any, key: str) -> Iterator[dict]:
    entries = data.get(key) if isinstance(data, dict) else None
    if isinstance(entries, list):
        yield from (entry for entry in entries if isinstance(entry, dict))


def _as_whole(values: Any) -> Any:
    """Integers, if all of a list are whole numbers; else the value itself."""
    if isinstance(values, list) and any(isinstance(v, float) for v in values):
        if all(isinstance(v, (int, float)) and v == v // 1 for v in values):
            return [int(v) for v in values]
    return values
