# Copyright (c) PVD-MM contributors. Apache-2.0.
"""COCO datasets that say what is wrong with the annotations or the images.

mmdetection believes an annotation file. An annotation of an unknown image or
of a class that is not asked for disappears without a word, a missing key is a
``KeyError`` without a place, and a run-length code that is too short decodes
to whatever is in memory. The classes below look at every annotation once,
when the file is read, and name it.
"""

import json
import logging
import os
import os.path as osp
from collections import Counter
from collections.abc import Iterable
from math import isfinite
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from pvd_mm.utils.errors import (
    AnnotationError,
    MissingDataError,
    existing_part,
    report,
    some,
)


def run_lengths(counts: str) -> np.ndarray:
    """Unpack the string of a compressed RLE, as pycocotools does.

    Every number is a group of characters of five bits, the lowest first; from
    the fourth number on it is the difference from the last but one.

    Args:
        counts (str): ``counts`` of a compressed RLE.

    Returns:
        np.ndarray: int64, the lengths of the runs.

    Raises:
        ValueError: The string has other characters or ends within a number.
    """
    code = np.frombuffer(counts.encode(), np.uint8).astype(np.int64) - 48
    if len(code) == 0:
        raise ValueError('its counts are empty')
    if code.min() < 0 or code.max() > 63:
        raise ValueError('its counts hold foreign characters')
    ends = np.flatnonzero(code < 32)
    if len(ends) == 0 or ends[-1] != len(code) - 1:
        raise ValueError('its counts end within a number')
    starts = np.append(0, ends[:-1] + 1)
    sizes = ends - starts + 1
    if sizes.max() > 7:
        raise ValueError('its counts hold a number of more than 32 bits')
    places = np.arange(len(code)) - np.repeat(starts, sizes)
    runs = np.add.reduceat((code & 31) << 5 * places, starts)
    runs -= ((code[ends] & 16) > 0) * (1 << 5 * sizes)
    runs[1::2] = np.cumsum(runs[1::2])
    runs[2::2] = np.cumsum(runs[2::2])
    return runs


def check_runs(runs: Any, height: int, width: int) -> None:
    """Check that run lengths fill the image.

    Args:
        runs (list | np.ndarray): Lengths of the runs.
        height (int): Height of the image.
        width (int): Width of the image.

    Raises:
        ValueError: They do not.
    """
    runs = np.asarray(runs)
    if runs.ndim != 1 or runs.dtype.kind not in 'iu':
        raise ValueError('its counts are not whole numbers')
    if runs.min() < 0:
        raise ValueError(f'its counts hold the negative run {runs.min()}')
    if runs.sum() != height * width:
        raise ValueError(
            f'its runs add up to {runs.sum()} pixels, but its size is '
            f'{height}x{width} = {height * width} pixels'
        )


class CheckedCOCO(COCO):
    """mmdet's ``COCO`` that checks the file before it is indexed.

    Raises:
        AnnotationError: The file is not JSON or not COCO, or an entry is
            broken; names the entry by its id.
    """

    def __init__(self, annotation_file: str | None = None) -> None:
        self._place = f'the annotation file {annotation_file}: '
        try:
            super().__init__(annotation_file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise AnnotationError(f'it is not JSON: {error}') from error
        except AssertionError as error:  # pycocotools: not a dict
            raise AnnotationError(f'it is not COCO: {error}') from error

    def createIndex(self) -> None:  # noqa: N802
        """Check the entries, then index them."""
        self._check_file()
        super().createIndex()

    def get_cat_ids(self, cat_names=(), sup_names=(), cat_ids=()) -> list:
        """Look categories up, see ``COCO.get_cat_ids``.

        Raises:
            AnnotationError: A name is not in the file, or is there twice.
        """
        found = super().get_cat_ids(cat_names, sup_names, cat_ids)
        if not cat_names or sup_names or cat_ids:
            return found
        names = [cat_names] if isinstance(cat_names, str) else list(cat_names)
        known = [category['name'] for category in self.cats.values()]
        absent = [name for name in names if name not in known]
        if absent:
            raise AnnotationError(
                f'it has no category for {len(absent)} of the {len(names)} '
                f"classes in the dataset's metainfo: {some(absent)}. Its "
                f'categories are {known}; the classes are {names}. Set '
                'metainfo=dict(classes=(...)) and num_classes of the heads '
                'to what the file has.'
            )
        twice = [n for n, count in Counter(known).items() if count > 1]
        twice += [n for n, count in Counter(names).items() if count > 1]
        twice = [name for name in twice if name in names]
        if twice:
            raise AnnotationError(
                f'the categories {some(twice)} are named twice, in the file '
                "or in the classes of the dataset's metainfo."
            )
        order = [self.cats[i]['name'] for i in found]
        if order != names:
            print_log(
                'mmdet numbers the classes in the order of the annotation '
                f"file ({some(order)}), not in that of the dataset's metainfo "
                f'({some(names)}): labels are shown under wrong names. Give '
                'the classes in the order of the file.',
                'current',
                logging.WARNING,
            )
        return found

    # ----------------------------------------------------------- the checks
    def _check_file(self) -> None:
        data = self.dataset
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
            _refuse_repeated((entry['id'] for entry in data[key]), key)
        if not data['images']:
            raise AnnotationError('it lists no image.')
        for category in data['categories']:
            if not isinstance(category.get('name'), str):
                raise AnnotationError(f'category {category["id"]} has no name.')
        sizes = {i['id']: self._image_size(i) for i in data['images']}
        self._check_annotations(sizes)

    @staticmethod
    def _image_size(image: dict) -> tuple[int, int]:
        name = image.get('file_name')
        if not isinstance(name, str) or not name:
            raise AnnotationError(f'image {image["id"]} has no file_name.')
        size = image.get('height'), image.get('width')
        if not all(isinstance(n, int) and n > 0 for n in size):
            raise AnnotationError(
                f'image {image["id"]} ({name}) has the height and width '
                f'{size}; expected whole numbers above 0.'
            )
        return size

    def _check_annotations(self, sizes: dict) -> None:
        categories = {category['id'] for category in self.dataset['categories']}
        thin, broken = [], set()
        for ann in self.dataset.get('annotations', ()):
            try:
                if ann['image_id'] not in sizes:
                    raise ValueError(
                        f'belongs to the image {ann["image_id"]}, which the file '
                        'does not list'
                    )
                if ann['category_id'] not in categories:
                    raise ValueError(
                        f'has the category {ann["category_id"]}, which the file '
                        f'does not list; there are {some(list(categories))}'
                    )
                _check_box(ann['bbox'], ann['area'])
                outline = ann.get('segmentation')
                # nothing at all: a box without a mask
                if outline and _check_outline(outline, sizes[ann['image_id']]):
                    thin.append(ann['id'])
            except KeyError as error:
                broken.add(ann['id'])
                report(
                    AnnotationError(f'annotation {ann["id"]} has no {error}.'),
                    self._place,
                )
            except (TypeError, ValueError) as error:
                broken.add(ann['id'])
                report(
                    AnnotationError(
                        f'annotation {ann["id"]}, of the image {ann["image_id"]}, '
                        f'{error}.'
                    ),
                    self._place,
                )
            if ann['id'] == 0:
                print_log(
                    'Annotation 0: pycocotools takes an object with the id 0 '
                    'for not found, whatever is detected; count from 1.',
                    'current',
                    logging.WARNING,
                )
        if broken:
            self.dataset['annotations'] = [
                ann for ann in self.dataset['annotations'] if ann['id'] not in broken
            ]
        if thin:
            print_log(
                f'{len(thin)} annotations have polygons of fewer than three '
                'points or of an odd number of coordinates, which mmdet leaves '
                'out (an object of no other polygon is ignored in training); '
                f'their ids: {some(thin)}.',
                'current',
                logging.WARNING,
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + '...'


def _is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _refuse_repeated(ids: Iterable, key: str) -> None:
    repeated = [i for i, count in Counter(ids).items() if count > 1]
    if repeated:
        raise AnnotationError(
            f"{len(repeated)} ids of '{key}' are there more than once: "
            f'{some(repeated)}.'
        )


def _check_box(box: Any, area: Any) -> None:
    # A sum is the cheapest way to find what is not a finite number.
    try:
        good = isinstance(box, list) and len(box) == 4 and isfinite(sum(box))
    except TypeError:
        good = False
    if not good:
        raise ValueError(
            f'has the bbox {_short(box)}; expected four finite numbers, '
            '[left, top, width, height]'
        )
    if not isinstance(area, (int, float)) or not isfinite(area):
        raise ValueError(f'has the area {_short(area)}; expected a finite number')


def _check_outline(outline: Any, size: tuple[int, int]) -> bool:
    """Check a segmentation; tell whether mmdet will leave out part of it."""
    if isinstance(outline, list):
        thin = False
        for polygon in outline:
            try:
                good = isinstance(polygon, list) and isfinite(sum(polygon))
            except TypeError:
                good = False
            if not good:
                raise ValueError(
                    f'has the polygon {_short(polygon)}; expected finite '
                    'numbers, [x, y, x, y ...]'
                )
            thin |= len(polygon) < 6 or len(polygon) % 2 > 0
        return thin
    if not isinstance(outline, dict):
        raise ValueError(
            f'has the segmentation {_short(outline)}; expected a list of '
            'polygons, or RLE'
        )
    counts = outline.get('counts')
    if 'size' not in outline or not isinstance(counts, (list, str)) or not counts:
        raise ValueError(
            f'has the broken RLE {_short(outline)}; expected a size, and '
            'counts as a list or a string'
        )
    if outline['size'] != list(size):
        raise ValueError(
            f'has an RLE of the size {_short(outline["size"])}, but its image '
            f'has {list(size)} (height, width)'
        )
    if isinstance(counts, list):
        try:
            check_runs(counts, *size)
        except ValueError as error:
            raise ValueError(f'has a broken RLE: {error}') from error
    return False


class CheckedCocoMixin:
    """Boundary checks for mmdet's ``CocoDataset`` and its subclasses.

    Put it before the dataset in the bases. It serves subclasses that read
    their file by ``COCOAPI`` and ``CocoDataset.load_data_list``. When the file
    is read it checks that

    - the image folder and the annotation file exist,
    - the file is JSON, with lists of images, categories and annotations, and
      every id is there once,
    - every class of the metainfo is a category of the file (mmdet drops the
      annotations of the others without a word, and shifts the labels),
    - every annotation has an image and a category of the file, a box of four
      finite numbers, an area, and polygons of finite numbers or an RLE of the
      size of its image, whose runs, if listed, fill it,
    - every image is in its folder (one listing for each folder; not on remote
      file backends),
    - ``filter_cfg`` leaves an image over.

    The strings of compressed RLE are checked when their image is loaded, and
    so is the lack of any mask where the pipeline asks for masks.

    What mmdet does on purpose remains: annotations with ``ignore``, without
    area or outside the image are left out, small images and those without
    annotations are filtered, polygons of fewer than three points are left out
    by ``LoadAnnotations`` (here with a warning that names them).

    Every instance of a sample has a further key, ``ann_id``.

    Attributes:
        how_to_get (str): One sentence on where the data comes from, added to
            the errors about missing files.
    """

    COCOAPI = CheckedCOCO
    how_to_get: str = ''

    def load_data_list(self) -> list[dict]:
        """List the samples, see ``CocoDataset.load_data_list``.

        Raises:
            MissingDataError: The annotation file, the image folder or an
                image does not exist.
            AnnotationError: The annotation file is broken.
        """
        name = type(self).__name__
        self._check_places()
        try:
            samples = super().load_data_list()
        except AnnotationError as error:
            raise AnnotationError(
                f'{name}: the annotation file {self.ann_file}: {error}'
            ) from error
        return self._check_images(samples) if self._is_local() else samples

    def parse_data_info(self, raw_data_info: dict) -> Any:
        """Parse one image, see ``CocoDataset.parse_data_info``."""
        info = super().parse_data_info(raw_data_info)
        # the instances are what is left of the annotations, in their order
        left = iter(info['instances'])
        instance = next(left, None)
        for ann in raw_data_info['raw_ann_info']:
            if instance is None:
                break
            x, y, w, h = ann['bbox']
            outline = ann.get('segmentation') or None
            same = instance['bbox'] == [x, y, x + w, y + h]
            if same and instance.get('mask') is outline:
                instance['ann_id'] = ann['id']
                instance = next(left, None)
        return info

    def filter_data(self) -> list[dict]:
        """Filter the samples, see ``CocoDataset.filter_data``.

        Raises:
            AnnotationError: No image is left.
        """
        left = super().filter_data()
        if not left:
            raise AnnotationError(
                f'{type(self).__name__}: filter_cfg={self.filter_cfg} leaves '
                f'none of the {len(self.data_list)} images of {self.ann_file}: '
                'no annotation of the classes '
                f'{some(self.metainfo["classes"])}, or no image that is large '
                'enough.'
            )
        return left

    def prepare_data(self, idx: int) -> Any:
        """Load one sample, see ``BaseDataset.prepare_data``.

        Raises:
            AnnotationError: The mask of an annotation is broken, or missing.
        """
        info = self.get_data_info(idx)
        for instance in info['instances']:
            mask = instance.get('mask')
            if isinstance(mask, dict) and isinstance(mask['counts'], str):
                try:
                    check_runs(run_lengths(mask['counts']), *mask['size'])
                except ValueError as error:
                    raise AnnotationError(
                        f'{self._place(instance, info)} has a broken RLE: {error}.'
                    ) from error
        try:
            return super().prepare_data(idx)
        except KeyError as error:
            bare = [i for i in info['instances'] if 'mask' not in i]
            if error.args != ('mask',) or not bare:
                raise
            raise AnnotationError(
                f'{self._place(bare[0], info)} has no segmentation, which the '
                'pipeline asks for (LoadAnnotations, with_mask=True).'
            ) from error

    def _place(self, instance: dict, info: dict) -> str:
        return (
            f'{type(self).__name__}: annotation {instance.get("ann_id")} of '
            f'{self.ann_file}, of the image {info["img_path"]},'
        )

    def _source(self) -> str:
        return f' {self.how_to_get}' if self.how_to_get else ''

    def _is_local(self) -> bool:
        return (self.backend_args or {}).get('backend', 'local') == 'local'

    def _check_places(self) -> None:
        name = type(self).__name__
        if 'img' not in self.data_prefix:
            raise ValueError(
                f"{name}: data_prefix needs the key 'img', the folder of the "
                f'images; data_prefix={self.data_prefix}.'
            )
        if not self.ann_file:
            raise ValueError(f'{name}: ann_file has to be given.')
        if not self._is_local():
            return  # object stores have no folders to look for
        if not osp.isfile(self.ann_file):
            raise MissingDataError(
                f"{name}: ann_file names '{self.ann_file}', which does not "
                f'exist (of its path, {existing_part(self.ann_file)} exists; '
                f'data_root={self.data_root!r}).{self._source()}'
            )
        folder = self.data_prefix['img'] or os.curdir
        if not osp.isdir(folder):
            raise MissingDataError(
                f"{name}: data_prefix['img'] names the folder '{folder}', "
                f'which does not exist (of its path, {existing_part(folder)} '
                f'exists; data_root={self.data_root!r}).{self._source()}'
            )

    def _check_images(self, samples: list[dict]) -> list[dict]:
        """Compare the sample list with the folders, one listing for each;
        give those that are there."""
        there = {}
        missing, whole = [], []
        for sample in samples:
            folder, file = osp.split(sample['img_path'])
            if folder not in there:
                known = osp.isdir(folder or os.curdir)
                there[folder] = set(os.listdir(folder or os.curdir)) if known else ()
            (whole if file in there[folder] else missing).append(sample)
        if missing:
            report(
                MissingDataError(
                    f'{type(self).__name__}: {len(missing)} of {len(samples)} images '
                    f'listed in {self.ann_file} do not exist: '
                    + some([f'{s["img_path"]} (id {s["img_id"]})' for s in missing])
                    + f'.{self._source()}'
                )
            )
        return whole


@DATASETS.register_module()
class CheckedCocoDataset(CheckedCocoMixin, CocoDataset):
    """mmdet's ``CocoDataset`` with the checks of the mixin.

    Arguments, classes and palette are those of the original.
    """

    how_to_get = (
        'COCO comes from https://cocodataset.org/#download; the usual layout is '
        'annotations/, train2017/ and val2017/ below data_root.'
    )
