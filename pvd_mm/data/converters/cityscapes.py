# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Cityscapes: the train ids that models are trained on, from the label ids
that the download has; and panoptic segments from its instance ids."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from pvd_mm.utils.errors import LabelError, MissingDataError, UserError, some
from pvd_mm.utils.files import write_text

from .files import load_pixels, save_png

_IGNORED = 255
_LABEL_IDS, _TRAIN_IDS = '_gtFine_labelIds.png', '_gtFine_labelTrainIds.png'
_INSTANCE_IDS = '_gtFine_instanceIds.png'


def train_ids() -> np.ndarray:
    """Label id to train id, by cityscapesscripts.

    Returns:
        np.ndarray: (256,) int16: 0 to 18, 255 for what is ignored, -1 for
        values that are no label id.

    Raises:
        UserError: cityscapesscripts is not installed.
    """
    try:
        from cityscapesscripts.helpers.labels import labels
    except ImportError as error:
        raise UserError(
            'cityscapesscripts, which has the train id of every label, is not '
            'installed: pip install --no-deps cityscapesscripts (what it requires '
            'is for other things than this).'
        ) from error
    table = np.full(256, -1, np.int16)
    for label in labels:
        if label.id >= 0:  # a licence plate's is -1, and is in no map
            table[label.id] = label.trainId if label.trainId >= 0 else _IGNORED
    return table


def convert_cityscapes(
    root: str,
    force: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Write a ``*_gtFine_labelTrainIds.png`` beside every
    ``*_gtFine_labelIds.png``.

    Args:
        root (str): The folder that holds ``gtFine``.
        force (bool): Make those anew that are there. Defaults to False: they
            are kept, so that an interrupted run goes on.
        progress (Callable): Wraps the list of maps, e.g.
            ``mmengine.track_iter_progress``. Defaults to none.

    Returns:
        dict: ``written`` and ``kept``, numbers of maps, and ``broken``, file
        to what is wrong with it; the others are converted.

    Raises:
        MissingDataError: There are no label ids.
        UserError: cityscapesscripts is not installed.
    """
    table = train_ids()
    sources = _sources(root, _LABEL_IDS)
    written, kept, broken = 0, 0, {}
    for path in progress(sources):
        result = path.with_name(path.name.replace(_LABEL_IDS, _TRAIN_IDS))
        if result.exists() and not force:
            kept += 1
            continue
        try:
            save_png(_convert(path, table), result)
        except UserError as error:
            broken[str(path)] = str(error)
            continue
        written += 1
    return dict(written=written, kept=kept, broken=broken)


def convert_cityscapes_panoptic(
    root: str, force: bool = False, splits: Sequence[str] = ('train', 'val')
) -> dict:
    """Make COCO's panoptic format of the instance ids, by cityscapesscripts' own
    conversion, ``createPanopticImgs``.

    It writes ``gtFine/cityscapes_panoptic_<split>.json`` and the PNGs in the folder
    beside it. Of these ``annotations/panoptic_<split>.json`` is made, whose images are
    named with their city and whose categories are the things, then the stuff, and
    ``annotations/instances_<split>.json``, the things with their masks.

    Args:
        root (str): The folder that holds ``gtFine``.
        force (bool): Make anew what is there. Defaults to False.
        splits (Sequence[str]): Folders of ``gtFine``. Defaults to 'train' and 'val'.

    Returns:
        dict: By split the number of images, None of those that are kept.

    Raises:
        MissingDataError: A split has no instance ids.
        LabelError: They hold values that are no label ids.
        UserError: cityscapesscripts or pycocotools is not installed, or an image is
            broken.
    """
    try:
        from cityscapesscripts.preparation.createPanopticImgs import convert2panoptic
    except ImportError as error:
        raise UserError(
            f'the conversion of cityscapesscripts cannot be imported: {error}. It '
            'needs pip install --no-deps cityscapesscripts pyquaternion.'
        ) from error
    gtfine, counts = Path(root) / 'gtFine', {}
    for split in splits:
        result = Path(root) / 'annotations' / f'panoptic_{split}.json'
        if result.is_file() and not force:
            counts[split] = None
            continue
        _sources(root, _INSTANCE_IDS, split)
        try:
            convert2panoptic(str(gtfine), setNames=[split])
        except KeyError as error:
            raise LabelError(
                f'instance ids of {gtfine / split} hold {error.args[0]}, which is no '
                'label id.'
            ) from error
        except (OSError, SyntaxError) as error:  # by Pillow
            raise UserError(
                f'instance ids of {gtfine / split} cannot be read: {error}'
            ) from error
        data = json.loads((gtfine / f'cityscapes_panoptic_{split}.json').read_text())
        data['categories'].sort(key=lambda category: not category['isthing'])
        for image in data['images']:
            name = image['id'] + '_leftImg8bit.png'
            image['file_name'] = f'{image["id"].split("_")[0]}/{name}'
        objects = _objects(data, gtfine / split)
        write_text(result.with_name(f'instances_{split}.json'), json.dumps(objects))
        write_text(result, json.dumps(data))  # last: it says that all is there
        counts[split] = len(data['images'])
    return counts


def _objects(data: dict, folder: Path) -> dict:
    """The things of a panoptic file as COCO's instances."""
    try:
        from pycocotools import mask as rle_ops
    except ImportError as error:
        raise UserError(
            'pycocotools, which encodes masks, is not installed: pip install '
            'pycocotools.'
        ) from error
    things = [category for category in data['categories'] if category['isthing']]
    ids = {category['id'] for category in things}
    annotations = []
    for entry in data['annotations']:
        name = entry['image_id']
        pixels = load_pixels(folder / name.split('_')[0] / f'{name}{_INSTANCE_IDS}')
        for segment in entry['segments_info']:
            if segment['category_id'] not in ids:
                continue
            mask = np.asfortranarray(pixels == segment['id'], np.uint8)
            rle = rle_ops.encode(mask)
            annotations.append(
                dict(
                    segment,
                    id=len(annotations) + 1,
                    image_id=name,
                    segmentation=dict(rle, counts=rle['counts'].decode()),
                )
            )
    return dict(images=data['images'], annotations=annotations, categories=things)


def _sources(root: str, suffix: str, split: str = '*') -> list[Path]:
    """The maps of the download with this ending.

    Raises:
        MissingDataError: There are none.
    """
    gtfine = Path(root) / 'gtFine'
    sources = sorted(gtfine.glob(f'{split}/*/*{suffix}'))
    if sources:
        return sources
    hint = 'has none'
    if not gtfine.is_dir():
        zipped = Path(root) / 'gtFine_trainvaltest.zip'
        hint = 'does not exist'
        if zipped.is_file():
            hint += f'; unzip {zipped} first'
    kind = 'label' if suffix == _LABEL_IDS else 'instance'
    split = '<split>' if split == '*' else split
    raise MissingDataError(
        f'{kind} ids are expected as gtFine/{split}/<city>/<name>{suffix} in '
        f"'{root}', but {gtfine} {hint}. They are in gtFine_trainvaltest.zip of "
        'https://www.cityscapes-dataset.com.'
    )


def _convert(path: Path, table: np.ndarray) -> np.ndarray:
    ids = load_pixels(path)
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise LabelError(
            f'{path} has the shape {ids.shape} and the type {ids.dtype}; expected '
            'one uint8 per pixel.'
        )
    mapped = table[ids]
    if mapped.min() < 0:
        values = np.unique(ids[mapped < 0]).tolist()
        raise LabelError(
            f'{path} holds the values {some(values)}, which are no label ids; allowed '
            f'are 0 to {np.flatnonzero(table >= 0).max()}.'
        )
    return mapped.astype(np.uint8)
