# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A pipeline step that refuses broken label maps."""

import io
from collections.abc import Callable, Sequence

import mmcv
import numpy as np
from mmengine import fileio
from mmseg.datasets.transforms import LoadAnnotations
from PIL import Image, UnidentifiedImageError

from pvd_mm.utils.dataset_pipeline import TURNED_HINT, orientation
from pvd_mm.utils.errors import LabelError, some

#: Pillow's modes of files whose values fit 8 bits.
_NARROW_MODES = ('1', 'L', 'P')


class LabelCheck:
    """Pipeline step that refuses label maps with values outside the classes.

    :class:`.CheckedDatasetMixin` puts one directly behind every
    ``LoadAnnotations`` of its pipeline, so the whole map is checked, before
    any crop. It compares bytes and costs about a millisecond for a
    1024x2048 map; the values are only listed when the check fails.

    mmseg casts what is in the file to uint8, which makes 0 of 256 and of 0.5. So the
    file's header is read as well, and where it has wider values the file itself.

    Args:
        classes (Sequence[str], optional): Class names; the labels ``0 ..
            len(classes) - 1`` are allowed. Defaults to None: not known, so that
            any are.
        ignore_index (int): The label that is allowed besides them.
            Defaults to 255.
        owner (str): Name of the dataset class, for the messages.
        hint (str): Sentence that is added when foreign values are found.
        loader (Callable, optional): The ``LoadAnnotations`` before the check.
            Defaults to None: the file is not looked at.
    """

    def __init__(
        self,
        classes: Sequence[str] | None = None,
        ignore_index: int = 255,
        owner: str = 'dataset',
        hint: str = '',
        loader: Callable | None = None,
    ) -> None:
        self.num_classes = None if classes is None else len(classes)
        self.ignore_index = ignore_index
        self.owner = owner
        self.hint = hint
        # a loader of another class may mean to change the file's values
        self.loader = loader if type(loader) is LoadAnnotations else None

    def __call__(self, results: dict) -> dict:
        """Check ``results['gt_seg_map']`` (H x W). It is not changed; only one of a
        single row or column, from which mmseg takes that axis, gets it back.

        Raises:
            LabelError: The map is not two-dimensional, its size is not that
                of the image, or it holds values that are neither a class
                nor the ignore index.
        """
        label = results['gt_seg_map']
        name = f'{self.owner}: the label map {results.get("seg_map_path", "<no path>")}'
        size = results.get('ori_shape')
        size = None if size is None else tuple(size[:2])
        if size and 1 in size and label.ndim < 2 and label.size == np.prod(size):
            label = results['gt_seg_map'] = label.reshape(size)
        if label.ndim != 2:
            raise LabelError(
                f'{name} has the shape {label.shape}; expected one value per pixel, '
                '(H, W).'
                + (
                    ' Colour-coded label images, and those with transparency, have '
                    'to be converted to class indices first.'
                    if label.ndim == 3
                    else ''
                )
            )
        if size and size != label.shape:
            raise LabelError(
                f'{name} has the size {label.shape}, but its image '
                f'{results.get("img_path")} has {size} (height, width).'
                + (f' {TURNED_HINT}' if size == label.shape[::-1] else '')
            )
        self._check_file(name, results)
        if self.num_classes is not None:
            foreign = _are_foreign(label, self.num_classes) & (
                label != self.ignore_index
            )
            if foreign.any():
                self._refuse(name, label, foreign, results)
        return results

    def _check_file(self, name: str, results: dict) -> None:
        """Look for what the cast to uint8 has changed, and for an orientation."""
        content = self._read(results)
        if content is None:
            return
        narrow, turned = False, 1
        try:
            with Image.open(io.BytesIO(content)) as image:
                narrow, turned = image.mode in _NARROW_MODES, orientation(image)
        except (UnidentifiedImageError, Image.DecompressionBombError):
            pass  # a format, or a size, of the loader's other backends
        if turned != 1:
            raise LabelError(
                f'{name} has the EXIF orientation {turned}, by which label maps are '
                "not turned when they are loaded. Turn the file's pixels."
            )
        if narrow:
            return
        values = self._decode(content)
        with np.errstate(invalid='ignore'):  # not a number
            changed = values.astype(np.uint8) != values
        if changed.any():
            raise LabelError(
                f'{name} holds the values {_listed(values[changed])} as '
                f'{values.dtype}; mmseg reads label maps as 8 bits, whole numbers '
                f'from 0 to 255, and would take others for them.{self._allowed()}'
            )

    def _read(self, results: dict) -> bytes | None:
        if self.loader is None or 'seg_map_path' not in results:
            return None
        return fileio.get(
            results['seg_map_path'], backend_args=self.loader.backend_args
        )

    def _decode(self, content: bytes) -> np.ndarray:
        """The values in the file, as mmseg reads them before it casts."""
        values = mmcv.imfrombytes(
            content, flag='unchanged', backend=self.loader.imdecode_backend
        ).squeeze()
        return values.astype(np.uint8) if values.dtype == bool else values

    def _refuse(
        self, name: str, label: np.ndarray, foreign: np.ndarray, results: dict
    ) -> None:
        loaded = np.unique(label[foreign])
        content = self._read(results)
        values = loaded
        if content is not None:
            values = np.unique(self._decode(content).reshape(label.shape)[foreign])
        text = f'{name} holds the values {_listed(values)}'
        if np.array_equal(values, loaded):
            text += ', which are outside the classes;'
        else:
            text += (
                f', loaded as {_listed(loaded)} (by reduce_zero_label, or by the '
                'label map of the classes, which make 255 of what is left out), '
                'outside the classes;'
            )
        hint = f' {self.hint}' if self.hint else ''
        raise LabelError(text + self._allowed() + hint)

    def _allowed(self) -> str:
        if self.num_classes is None:
            return ''
        return (
            f' allowed are 0 to {self.num_classes - 1} ({self.num_classes} classes) '
            f'and {self.ignore_index} (ignored).'
        )

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_classes={self.num_classes}, '
            f'ignore_index={self.ignore_index})'
        )


def _are_foreign(label: np.ndarray, num_classes: int) -> np.ndarray:
    foreign = label >= num_classes
    if label.dtype.kind not in 'ub':  # those of other loaders than mmseg's
        foreign |= (label < 0) | (label % 1 != 0)
    return foreign


def _listed(values: np.ndarray) -> str:
    return some(np.unique(values).tolist())
