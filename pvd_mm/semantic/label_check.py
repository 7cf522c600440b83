# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A pipeline step that refuses broken label maps."""

import numpy as np

from pvd_mm.utils.errors import LabelError, some


class LabelCheck:
    """Pipeline step that refuses label maps with values outside the classes.

    :class:`.CheckedDatasetMixin` puts one directly behind every
    ``LoadAnnotations`` of its pipeline, so the whole map is checked, before
    any crop. It compares bytes and costs well under a millisecond for a
    1024x2048 map; the values are only listed when the check fails.

    Args:
        classes (Sequence[str]): Class names; the labels ``0 ..
            len(classes) - 1`` are allowed.
        ignore_index (int): The label that is allowed besides them.
            Defaults to 255.
        owner (str): Name of the dataset class, for the messages.
        hint (str): Sentence that is added when foreign values are found.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        ignore_index: int = 255,
        owner: str = 'dataset',
        hint: str = '',
    ) -> None:
        self.num_classes = len(classes)
        self.ignore_index = ignore_index
        self.owner = owner
        self.hint = hint

    def __call__(self, results: dict) -> dict:
        """Check ``results['gt_seg_map']`` (H x W), change nothing.

        Raises:
            ValueError: The map is not two-dimensional, its size is not that
                of the image, or it holds values that are neither a class
                nor the ignore index.
        """
        label = results['gt_seg_map']
        path = results.get('seg_map_path', '<no path>')
        if label.ndim != 2:
            raise LabelError(
                f'{self.owner}: the label map {path} has the shape '
                f'{label.shape}; expected one value per pixel, (H, W). '
                'Colour-coded label images have to be converted to class '
                'indices first.'
            )
        size = results.get('ori_shape')
        if size is not None and tuple(size[:2]) != label.shape:
            raise LabelError(
                f'{self.owner}: the label map {path} has the size '
                f'{label.shape}, but its image {results.get("img_path")} has '
                f'{tuple(size[:2])} (height, width).'
            )
        foreign = (label >= self.num_classes) & (label != self.ignore_index)
        if foreign.any():
            values = np.unique(label[foreign]).tolist()
            hint = f' {self.hint}' if self.hint else ''
            raise LabelError(
                f'{self.owner}: the label map {path} holds the values '
                f'{some(values)}, which are outside the classes; allowed '
                f'are 0 to {self.num_classes - 1} ({self.num_classes} '
                f'classes) and {self.ignore_index} (ignored).{hint}'
            )
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_classes={self.num_classes}, '
            f'ignore_index={self.ignore_index})'
        )
