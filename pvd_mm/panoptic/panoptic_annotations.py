# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What is wrong with the content of an annotation file of COCO's panoptic format."""

from collections.abc import Iterator
from math import isfinite
from typing import Any

from pvd_mm.instance.coco_annotations import check_entries, repeated_items
from pvd_mm.utils.errors import AnnotationError, some


def check_panoptic_entries(data: Any) -> None:
    """Check that a file has its lists of images and categories and every id once, and
    that each category says whether it is a thing.

    Args:
        data (Any): What is in the file.

    Raises:
        AnnotationError: They are not; names the entry.
    """
    # an annotation, which is all segments of an image, has no id
    rest = data
    if isinstance(data, dict):
        rest = {key: data[key] for key in data if key != 'annotations'}
    check_entries(rest)
    annotations = data.get('annotations', [])
    if not isinstance(annotations, list) or not all(
        isinstance(entry, dict) and isinstance(entry.get('segments_info'), list)
        for entry in annotations
    ):
        raise AnnotationError(
            "it is not COCO's panoptic format: 'annotations' has to be a list with "
            'the segments_info of each image; boxes and masks of objects are for '
            'CheckedCocoDataset.'
        )
    for category in data['categories']:
        if category.get('isthing') not in (0, 1):
            raise AnnotationError(
                f'category {category["id"]} ({category["name"]}) has the isthing '
                f'{category.get("isthing")!r}; expected 0 or 1.'
            )


def panoptic_problems(data: dict) -> Iterator[tuple[Any, str]]:
    """Look at the segments of every image of a file that
    :func:`check_panoptic_entries` has passed.

    Args:
        data (dict): What is in the file.

    Yields:
        tuple: Id of an image whose annotation is broken or missing, and what is wrong
        with it.
    """
    images = {image['id']: image for image in data['images']}
    things = {c['id']: c['isthing'] for c in data['categories']}
    annotations = data.get('annotations', [])
    ids = [entry.get('image_id') for entry in annotations]
    repeated = set(repeated_items(ids))
    for entry in annotations:
        image_id = entry.get('image_id')
        try:
            if image_id not in images:
                raise ValueError('is not listed in the file')
            if image_id in repeated:
                raise ValueError('has more than one annotation')
            if not isinstance(entry.get('file_name'), str):
                raise ValueError('has an annotation without file_name')
            _check_segments(entry['segments_info'], things)
        except (TypeError, ValueError) as error:
            yield image_id, f'image {image_id} {error}.'
    if annotations:  # lists of test images have none
        missing = [image_id for image_id in images if image_id not in set(ids)]
        for image_id in missing:
            yield image_id, f'image {image_id} has no annotation.'


def _check_segments(segments: list, things: dict) -> None:
    for segment in segments:
        if not isinstance(segment, dict) or not isinstance(segment.get('id'), int):
            raise ValueError(f'has a segment without id: {segment!r}')
        name = f'has the segment {segment["id"]}'
        if not 0 < segment['id'] < 1 << 24:
            raise ValueError(f'{name}, but ids are from 1 to 16777215; 0 is void')
        category = segment.get('category_id')
        if category not in things:
            raise ValueError(
                f'{name} of the category {category}, which the file does not list; '
                f'there are {some(list(things))}'
            )
        crowd = segment.setdefault('iscrowd', 0)
        if crowd not in (0, 1) or (crowd and not things[category]):
            raise ValueError(
                f'{name} with the iscrowd {crowd!r}; expected 0 or, of a thing, 1'
            )
        box = segment.get('bbox')
        if (
            not isinstance(box, list)
            or len(box) != 4
            or not isfinite(sum(box))
            or min(box[2:]) < 1
        ):
            raise ValueError(
                f'{name} with the bbox {box!r}; expected four finite numbers, [left, '
                'top, width, height], of at least a pixel'
            )
    repeated = repeated_items(segment['id'] for segment in segments)
    if repeated:
        raise ValueError(
            f'has more than one segment of the id {some(repeated)}; segments of one '
            'id overlap'
        )
