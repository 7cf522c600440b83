# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Cityscapes: the train ids that models are trained on, from the label ids
that the download has."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from pvd_mm.utils.errors import LabelError, MissingDataError, UserError, some

from .files import load_pixels, save_png

_IGNORED = 255
_LABEL_IDS, _TRAIN_IDS = '_gtFine_labelIds.png', '_gtFine_labelTrainIds.png'


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
    gtfine = Path(root) / 'gtFine'
    sources = sorted(gtfine.glob(f'*/*/*{_LABEL_IDS}'))
    if not sources:
        hint = 'has none'
        if not gtfine.is_dir():
            zipped = Path(root) / 'gtFine_trainvaltest.zip'
            hint = (
                f'does not exist; unzip {zipped} first'
                if zipped.is_file()
                else 'does not exist'
            )
        raise MissingDataError(
            f'label ids are expected as gtFine/<split>/<city>/<name>{_LABEL_IDS} in '
            f"'{root}', but {gtfine} {hint}. They are in gtFine_trainvaltest.zip of "
            'https://www.cityscapes-dataset.com.'
        )
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
