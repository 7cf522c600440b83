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
from collections.abc import Callable
from typing import Any

from mmcv.transforms import LoadImageFromFile
from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO
from mmdet.datasets.transforms import LoadMultiChannelImageFromFiles
from mmdet.registry import DATASETS
from mmengine.logging import print_log

from pvd_mm.utils.coco import fill_in
from pvd_mm.utils.dataset_files import DatasetFilesMixin
from pvd_mm.utils.dataset_pipeline import ImageSizeCheck, PipelineCheckMixin
from pvd_mm.utils.errors import (
    AnnotationError,
    ClassesError,
    raise_or_collect,
    some,
)

from .coco_annotations import (
    annotation_problems,
    check_entries,
    check_rle,
    has_left_out_polygons,
    repeated_items,
)


class CheckedCOCO(COCO):
    """mmdet's ``COCO`` that checks the file before it is indexed.

    Raises:
        AnnotationError: The file is not JSON or not COCO, or an entry is
            broken; names the entry by its id.
    """

    def __init__(self, annotation_file: str | None = None) -> None:
        self._prefix = f'the annotation file {annotation_file}: '
        try:
            super().__init__(annotation_file)
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise AnnotationError(f'it is not JSON: {error}') from error
        except AssertionError as error:  # pycocotools: not a dict
            raise AnnotationError(f'it is not COCO: {error}') from error

    def createIndex(self) -> None:  # noqa: N802
        """Fill in what the file leaves open, check the entries, then index them."""
        fill_in(self.dataset)
        check_entries(self.dataset)
        broken = set()
        for ann_id, problem in annotation_problems(self.dataset):
            broken.add(ann_id)
            raise_or_collect(AnnotationError(problem), self._prefix)
        annotations = self.dataset.get('annotations', [])
        if broken:
            annotations = [ann for ann in annotations if ann['id'] not in broken]
            self.dataset['annotations'] = annotations
        polygons = [ann['id'] for ann in annotations if has_left_out_polygons(ann)]
        if polygons:
            _warn(
                f'{len(polygons)} annotations have polygons of fewer than three '
                'points or of an odd number of coordinates, which mmdet leaves '
                'out (an object of no other polygon is ignored); '
                f'their ids: {some(polygons)}.'
            )
        super().createIndex()

    def get_cat_ids(self, cat_names=(), sup_names=(), cat_ids=()) -> list:
        """Look categories up, see ``COCO.get_cat_ids``.

        Raises:
            AnnotationError: A name is not in the file, or is there twice.
        """
        ids = super().get_cat_ids(cat_names, sup_names, cat_ids)
        if not cat_names or sup_names or cat_ids:
            return ids
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
        repeated = [*repeated_items(known), *repeated_items(names)]
        repeated = [name for name in repeated if name in names]
        if repeated:
            raise AnnotationError(
                f'the categories {some(repeated)} are named twice, in the file '
                "or in the classes of the dataset's metainfo."
            )
        order = [self.cats[i]['name'] for i in ids]
        if order != names:
            _warn(
                'mmdet numbers the classes in the order of the annotation '
                f"file ({some(order)}), not in that of the dataset's metainfo "
                f'({some(names)}): labels are shown under wrong names. Give '
                'the classes in the order of the file.'
            )
        return ids


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)


class CheckedCocoMixin(DatasetFilesMixin, PipelineCheckMixin):
    """Boundary checks for mmdet's ``CocoDataset`` and its subclasses.

    Put it before the dataset in the bases. It serves subclasses that read
    their file by ``COCOAPI`` and ``CocoDataset.load_data_list``. It refuses
    ``classes`` that are a string, and when the file is read it checks that

    - the image folder and the annotation file exist,
    - the file is JSON, with lists of images, categories and annotations, and
      every id is there once,
    - every class of the metainfo is a category of the file (mmdet drops the
      annotations of the others without a word, and shifts the labels),
    - every annotation has an image and a category of the file, a box of four
      finite numbers, an area, an ``iscrowd`` of 0 (or none) or 1, and polygons of
      finite numbers or an RLE of the size of its image, whose runs, if listed,
      fill it,
    - every image is in its folder (one listing for each folder; not on remote
      file backends),
    - ``filter_cfg`` leaves an image over.

    The strings of compressed RLE are checked when their image is loaded, and
    so is the lack of any mask where the pipeline asks for masks. Behind each
    step that loads an image :class:`.ImageSizeCheck` compares its size with the
    annotations'. Whole numbers may be written as floats, 192.0.

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

    def _check_behind(self, step: Callable) -> Callable | None:
        if isinstance(step, (LoadImageFromFile, LoadMultiChannelImageFromFiles)):
            return ImageSizeCheck(type(self).__name__)
        return None

    def load_data_list(self) -> list[dict]:
        """List the samples, see ``CocoDataset.load_data_list``.

        Raises:
            MissingDataError: The annotation file, the image folder or an
                image does not exist.
            AnnotationError: The annotation file is broken.
        """
        name = type(self).__name__
        if 'img' not in self.data_prefix:
            raise ValueError(
                f"{name}: data_prefix needs the key 'img', the folder of the "
                f'images; data_prefix={self.data_prefix}.'
            )
        if not self.ann_file:
            raise ValueError(f'{name}: ann_file has to be given.')
        if not self.metainfo.get('classes'):
            raise ClassesError(f'{name}: metainfo=dict(classes=(...)) has to be given.')
        self._check_ann_file()
        self._check_folder('img', self.data_prefix['img'] or os.curdir)
        try:
            samples = super().load_data_list()
        except AnnotationError as error:
            raise AnnotationError(
                f'{name}: the annotation file {self.ann_file}: {error}'
            ) from error
        return self._leave_out_missing(
            samples,
            'img_path',
            lambda missing: (
                f'images listed in {self.ann_file} do not exist: '
                + some([f'{s["img_path"]} (id {s["img_id"]})' for s in missing])
                + f'.{self._source()}'
            ),
        )

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
                    check_rle(mask)
                except ValueError as error:
                    raise AnnotationError(
                        f'{self._place(instance, info)} has a broken RLE: {error}.'
                    ) from error
        try:
            return super().prepare_data(idx)
        except KeyError as error:
            without_mask = [i for i in info['instances'] if 'mask' not in i]
            if error.args != ('mask',) or not without_mask:
                raise
            raise AnnotationError(
                f'{self._place(without_mask[0], info)} has no segmentation, which the '
                'pipeline asks for (LoadAnnotations, with_mask=True).'
            ) from error

    def _place(self, instance: dict, info: dict) -> str:
        return (
            f'{type(self).__name__}: annotation {instance.get("ann_id")} of '
            f'{self.ann_file}, of the image {info["img_path"]},'
        )


@DATASETS.register_module()
class CheckedCocoDataset(CheckedCocoMixin, CocoDataset):
    """mmdet's ``CocoDataset`` with the checks of the mixin.

    Arguments, classes and palette are those of the original.
    """

    how_to_get = (
        'COCO comes from https://cocodataset.org/#download; the usual layout is '
        'annotations/, train2017/ and val2017/ below data_root.'
    )
