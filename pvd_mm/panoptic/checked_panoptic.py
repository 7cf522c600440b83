# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Panoptic datasets that say what is wrong with the annotations or the images.

mmdetection believes both files of an image, the list of its segments and the
PNG of their ids. A segment that the PNG lacks becomes an object with an empty
mask, one that the list lacks is void, and a list of categories in another order
than the classes swaps things for stuff. The classes below name it.
"""

import os
import os.path as osp
from collections import defaultdict

from mmdet.datasets import CocoPanopticDataset
from mmdet.datasets.api_wrappers import COCOPanoptic
from mmdet.registry import DATASETS

from pvd_mm.instance.checked_coco import CheckedCOCO, CheckedCocoMixin
from pvd_mm.utils.coco import fill_in
from pvd_mm.utils.errors import (
    AnnotationError,
    ClassesError,
    raise_or_collect,
    some,
)

from .panoptic_annotations import check_panoptic_entries, panoptic_problems


class CheckedCOCOPanoptic(CheckedCOCO, COCOPanoptic):
    """mmdet's ``COCOPanoptic`` that checks the file before it is indexed.

    The id of an annotation is the pair of its image and its segment, for ids of
    segments are often those of other images as well.

    Raises:
        AnnotationError: The file is not JSON or not COCO's panoptic format, or an
            entry is broken; names the image by its id.
    """

    def createIndex(self) -> None:  # noqa: N802
        """Check the entries, then index them by image."""
        fill_in(self.dataset)
        check_panoptic_entries(self.dataset)
        broken = set()
        for image_id, problem in panoptic_problems(self.dataset):
            broken.add(image_id)
            raise_or_collect(AnnotationError(problem), self._prefix)
        images = [i for i in self.dataset['images'] if i['id'] not in broken]
        self.imgs = {image['id']: image for image in images}
        self.cats = {c['id']: c for c in self.dataset['categories']}
        self.anns, self.imgToAnns = {}, defaultdict(list)
        self.catToImgs = defaultdict(list)
        for entry in self.dataset.get('annotations', []):
            image = self.imgs.get(entry['image_id'])
            if image is None:
                continue
            image['segm_file'] = entry['file_name']
            for segment in entry['segments_info']:
                segment['image_id'] = image['id']
                self.anns[image['id'], segment['id']] = segment
                self.imgToAnns[image['id']].append(segment)
                self.catToImgs[segment['category_id']].append(image['id'])

    def get_ann_ids(self, img_ids=(), cat_ids=(), area_rng=(), iscrowd=None) -> list:
        """The pairs of image and segment of some images."""
        segments = (s for image in img_ids for s in self.imgToAnns[image])
        return [(segment['image_id'], segment['id']) for segment in segments]

    def load_anns(self, ids=()) -> list[dict]:
        """The segments of such pairs."""
        return [self.anns[pair] for pair in ids]

    def get_cat_ids(self, cat_names=(), sup_names=(), cat_ids=()) -> list:
        """Look categories up, in the order of the names: labels are those of the
        classes, things first, whatever the order of the file.

        Raises:
            AnnotationError: A name is not in the file, or is there twice.
        """
        in_file = [category['name'] for category in self.cats.values()]
        names = [name for name in in_file if name in cat_names]
        names += [name for name in cat_names if name not in in_file]
        ids = super().get_cat_ids(names, sup_names, cat_ids)
        places = {name: place for place, name in enumerate(cat_names)}
        return sorted(ids, key=lambda i: places.get(self.cats[i]['name'], 0))


@DATASETS.register_module()
class CheckedCocoPanopticDataset(CheckedCocoMixin, CocoPanopticDataset):
    """mmdet's ``CocoPanopticDataset`` with checks.

    Arguments, classes and palette are those of the original. The PNG of an image
    is the one that its annotation names, as COCO's format has it. When the file is
    read it checks, besides folders, images and PNGs that are missing,

    - that the classes of the metainfo are its ``thing_classes``, then its
      ``stuff_classes``, every one a category of the file, and of the same kind,
    - that every image has one annotation, whose segments have an id of their own,
      a category that is a class, a box and an ``iscrowd`` of 0 or, of a thing, 1.

    :class:`.LoadCheckedPanopticAnnotations` compares each PNG with it. Images
    without things, without stuff or without any segment are allowed; a training
    leaves out those without things by ``filter_cfg=dict(filter_empty_gt=True)``,
    and learns their void or stuff otherwise. Crowds are neither objects nor
    missed; their pixels are labelled.

    Raises:
        MissingDataError, AnnotationError, ClassesError: See there.
    """

    COCOAPI = CheckedCOCOPanoptic

    how_to_get = (
        'COCO comes from https://cocodataset.org/#download; '
        'annotations/panoptic_{train,val}2017.json and the PNGs, '
        'annotations/panoptic_{train,val}2017/, are in '
        'panoptic_annotations_trainval2017.zip, the PNGs in zips of their own.'
    )

    def load_data_list(self) -> list[dict]:
        """List the samples, see ``CocoDataset.load_data_list``.

        Raises:
            MissingDataError: The annotation file, a folder, an image or a PNG does
                not exist.
            AnnotationError: The annotation file is broken.
            ClassesError: The classes are not the things, then the stuff.
        """
        name = type(self).__name__
        things, stuff = (
            tuple(self.metainfo.get(kind) or ())
            for kind in ('thing_classes', 'stuff_classes')
        )
        if things + stuff != tuple(self.metainfo.get('classes') or ()):
            raise ClassesError(
                f'{name}: classes has to be thing_classes, then stuff_classes, but '
                f'the metainfo has classes={self.metainfo.get("classes")}, '
                f'thing_classes={things} and stuff_classes={stuff}.'
            )
        annotated = self.data_prefix.get('seg') is not None
        if annotated:
            self._check_folder('seg', self.data_prefix['seg'] or os.curdir)
        samples = super().load_data_list()
        if not annotated:
            return samples
        return self._leave_out_missing(
            samples,
            'seg_map_path',
            lambda missing: (
                f'panoptic maps named in {self.ann_file} do not exist: '
                + some([f'{s["seg_map_path"]} (image {s["img_id"]})' for s in missing])
                + f'.{self._source()}'
            ),
        )

    def parse_data_info(self, raw_data_info: dict) -> dict:
        """Parse one image, see ``CocoPanopticDataset.parse_data_info``.

        Raises:
            AnnotationError: A category of a segment is no class, or of the other
                kind.
        """
        image = raw_data_info['raw_img_info']
        things = len(self.metainfo['thing_classes'])
        instances, segments = [], []
        for ann in raw_data_info['raw_ann_info']:
            label = self.cat2label.get(ann['category_id'])
            category = self.coco.cats[ann['category_id']]
            if label is None or bool(category['isthing']) is not (label < things):
                kind = 'thing' if category['isthing'] else 'stuff'
                raise AnnotationError(
                    f'image {image["img_id"]} has the segment {ann["id"]} of the '
                    f'category {category["name"]} (id {category["id"]}), in the file '
                    f'a {kind}, which is not in {kind}_classes of the metainfo.'
                )
            is_thing = label < things and not ann['iscrowd']
            if is_thing:
                x, y, w, h = ann['bbox']
                instances.append(
                    dict(
                        bbox=[x, y, x + w, y + h],
                        bbox_label=label,
                        ignore_flag=0,
                        ann_id=ann['id'],
                    )
                )
            segments.append(dict(id=ann['id'], category=label, is_thing=is_thing))
        folder, file = self.data_prefix.get('seg'), image.get('segm_file')
        return dict(
            img_path=osp.join(self.data_prefix['img'], image['file_name']),
            img_id=image['img_id'],
            seg_map_path=None if None in (folder, file) else osp.join(folder, file),
            height=image['height'],
            width=image['width'],
            instances=instances,
            segments_info=segments,
        )


@DATASETS.register_module()
class CityscapesPanopticDataset(CheckedCocoPanopticDataset):
    """Cityscapes, or the built-in street sample, in COCO's panoptic format.

    Files are those of ``tools/dataset_converters/cityscapes.py --panoptic``, or of
    ``tools/make_sample.py --kind street-panoptic``. The eight things come first,
    with labels other than their train ids. Arguments are those of mmdet's
    ``CocoPanopticDataset``.

    Raises:
        MissingDataError, AnnotationError: See :class:`.CheckedCocoPanopticDataset`.
    """

    METAINFO = dict(
        thing_classes=(
            'person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle',
            'bicycle',
        ),
        stuff_classes=(
            'road', 'sidewalk', 'building', 'wall', 'fence', 'pole',
            'traffic light', 'traffic sign', 'vegetation', 'terrain', 'sky',
        ),
        palette=[
            (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
            (0, 80, 100), (0, 0, 230), (119, 11, 32), (128, 64, 128),
            (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
            (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35),
            (152, 251, 152), (70, 130, 180),
        ],
    )  # fmt: skip
    METAINFO['classes'] = METAINFO['thing_classes'] + METAINFO['stuff_classes']

    how_to_get = (
        'Cityscapes comes from https://www.cityscapes-dataset.com and is converted by '
        '`python tools/dataset_converters/cityscapes.py ROOT --panoptic`; the street '
        'sample is drawn by `python tools/make_sample.py --kind street-panoptic`.'
    )
