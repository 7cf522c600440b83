# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What is wrong with the content of an annotation file of COCO's format."""

import re
from collections import Counter
from collections.abc import Iterator
from math import isfinite
from typing import Any

import numpy as np
from pycocotools import mask as rle_ops

from pvd_mm.utils.coco import is_polygon
from pvd_mm.utils.errors import AnnotationError, some


def check_rle(rle: dict) -> None:
    """Check that the runs of a mask fill it.

    pycocotools does not: it reads beyond a string that ends too early, and of runs that
    are too short the rest of the mask is whatever is in memory.

    Args:
        rle (dict): ``size`` [H, W], and ``counts``, a list or a string.

    Raises:
        ValueError: They do not; says what is wrong.
    """
    (height, width), counts = rle['size'], rle['counts']
    pixels = f'its size is {height}x{width} = {height * width} pixels'
    if isinstance(counts, str):
        # a number is up to 7 characters of five bits; in all but the last, bit 6 is set
        if re.search('[^0-o]', counts):
            raise ValueError('its counts hold foreign characters')
        if re.search('[P-o]{7}', counts):
            raise ValueError('its counts hold a number of more than 32 bits')
        if not re.search('[0-O]$', counts):
            raise ValueError('its counts end within a number')
        if not _fits(counts, height * width):
            raise ValueError(f'its runs add up to more pixels, but {pixels}')
        if _fits(counts, height * width - 1):
            raise ValueError(f'its runs add up to fewer pixels, but {pixels}')
        return
    runs = np.asarray(counts)
    if runs.ndim != 1 or runs.dtype.kind not in 'iu':
        raise ValueError('its counts are not whole numbers')
    if runs.min() < 0:
        raise ValueError(f'its counts hold the negative run {runs.min()}')
    if runs.sum() != height * width:
        raise ValueError(f'its runs add up to {runs.sum()} pixels, but {pixels}')


def _fits(counts: str, pixels: int) -> bool:
    try:
        rle_ops.decode(dict(size=[pixels, 1], counts=counts))
    except ValueError:
        return False
    return True


def check_entries(data: Any) -> None:
    """Check that a file has its lists and every id once, that categories have names,
    and that images have names and sizes.

    Args:
        data (Any): What is in the file.

    Raises:
        AnnotationError: They are not; names the entry.
    """
    if not isinstance(data, dict):
        raise AnnotationError(f'it is not COCO: a {type(data).__name__}')
    for key in ('images', 'categories', 'annotations'):
        if key == 'annotations' and key not in data:
            continue  # the lists of test images have none
        if not isinstance(data.get(key), list):
            raise AnnotationError(
                f"it is not COCO: '{key}' has to be a list, but "
                + (
                    f'is {_short(data[key])}.'
                    if key in data
                    else f'is missing; there are {some(list(data))}.'
                )
            )
        for place, entry in enumerate(data[key]):
            if not isinstance(entry, dict) or not _is_id(entry.get('id')):
                raise AnnotationError(
                    f"entry {place} of '{key}' has no id: {_short(entry)}."
                )
        repeated = repeated_items(entry['id'] for entry in data[key])
        if repeated:
            raise AnnotationError(
                f"{len(repeated)} ids of '{key}' are there more than once: "
                f'{some(repeated)}.'
            )
        if key != 'annotations' and len({type(entry['id']) for entry in data[key]}) > 1:
            raise AnnotationError(  # pycocotools sorts them
                f"some ids of '{key}' are numbers and some are strings."
            )
    if not data['images']:
        raise AnnotationError('it lists no image.')
    for category in data['categories']:
        if not isinstance(category.get('name'), str):
            raise AnnotationError(f'category {category["id"]} has no name.')
    for image in data['images']:
        name, size = image.get('file_name'), (image.get('height'), image.get('width'))
        if not isinstance(name, str) or not name:
            raise AnnotationError(f'image {image["id"]} has no file_name.')
        if not all(isinstance(n, int) and n > 0 for n in size):
            raise AnnotationError(
                f'image {image["id"]} ({name}) has the height and width '
                f'{size}; expected whole numbers above 0.'
            )


def annotation_problems(data: dict) -> Iterator[tuple[Any, str]]:
    """Look at every annotation of a file that :func:`~pvd_mm.utils.coco.fill_in` has
    filled in and :func:`check_entries` has passed.

    Args:
        data (dict): What is in the file.

    Yields:
        tuple: Id of a broken annotation, and what is wrong with it.
    """
    sizes = {image['id']: (image['height'], image['width']) for image in data['images']}
    categories = {category['id'] for category in data['categories']}
    for ann in data.get('annotations', ()):
        try:
            if ann['image_id'] not in sizes:
                raise ValueError(
                    f'belongs to the image {ann["image_id"]}, which the file does not '
                    'list'
                )
            if ann['category_id'] not in categories:
                raise ValueError(
                    f'has the category {ann["category_id"]}, which the file does not '
                    f'list; there are {some(list(categories))}'
                )
            if not _are_finite(ann['bbox']) or len(ann['bbox']) != 4:
                raise ValueError(
                    f'has the bbox {_short(ann["bbox"])}; expected four finite '
                    'numbers, [left, top, width, height]'
                )
            if not isinstance(ann['area'], (int, float)) or not isfinite(ann['area']):
                raise ValueError(
                    f'has the area {_short(ann["area"])}; expected a finite number'
                )
            if ann['iscrowd'] not in (0, 1):
                raise ValueError(
                    f'has the iscrowd {_short(ann["iscrowd"])}; expected 0 or 1'
                )
            if ann.get('segmentation'):  # without any it is a box alone
                _check_segmentation(ann['segmentation'], sizes[ann['image_id']])
        except KeyError as error:
            yield ann['id'], f'annotation {ann["id"]} has no {error}.'
        except (TypeError, ValueError) as error:
            yield (
                ann['id'],
                f'annotation {ann["id"]}, of the image {ann["image_id"]}, {error}.',
            )


def _check_segmentation(segmentation: Any, size: tuple[int, int]) -> None:
    if isinstance(segmentation, list):
        for polygon in segmentation:
            if not _are_finite(polygon):
                raise ValueError(
                    f'has the polygon {_short(polygon)}; expected finite '
                    'numbers, [x, y, x, y ...]'
                )
        return
    if not isinstance(segmentation, dict):
        raise ValueError(
            f'has the segmentation {_short(segmentation)}; expected a list of '
            'polygons, or RLE'
        )
    counts = segmentation.get('counts')
    if 'size' not in segmentation or not isinstance(counts, (list, str)) or not counts:
        raise ValueError(
            f'has the broken RLE {_short(segmentation)}; expected a size, and '
            'counts as a list or a string'
        )
    if segmentation['size'] != list(size):
        raise ValueError(
            f'has an RLE of the size {_short(segmentation["size"])}, but its image '
            f'has {list(size)} (height, width)'
        )
    if isinstance(counts, list):  # a string costs more: when its image is loaded
        try:
            check_rle(segmentation)
        except ValueError as error:
            raise ValueError(f'has a broken RLE: {error}') from error


def has_left_out_polygons(ann: dict) -> bool:
    """Whether mmdet leaves out polygons of an annotation, which are none: of fewer than
    three points, or of an odd number of coordinates."""
    polygons = ann.get('segmentation')
    return isinstance(polygons, list) and not all(map(is_polygon, polygons))


def repeated_items(items: Any) -> list:
    """Those that are there more than once."""
    return [item for item, count in Counter(items).items() if count > 1]


def _are_finite(values: Any) -> bool:
    try:  # a sum is the cheapest way to find what is not a finite number
        return isinstance(values, list) and isfinite(sum(values))
    except TypeError:
        return False


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'
