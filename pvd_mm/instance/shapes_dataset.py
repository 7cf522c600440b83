# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The built-in shapes sample, which has the layout of COCO."""

from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS

from .checked_coco import CheckedCocoMixin


@DATASETS.register_module()
class ShapesDataset(CheckedCocoMixin, CocoDataset):
    """The sample that ``tools/make_sample.py --kind shapes`` draws.

    Eight classes of drawn figures with holes (ring, frame) and thin parts
    (lamp, comb, the stalk of a leaf), crowds, and images without any object.
    Arguments are those of mmdet's ``CocoDataset``.

    Raises:
        MissingDataError, AnnotationError: See :class:`CheckedCocoMixin`.
    """

    METAINFO = dict(
        classes=('disc', 'ring', 'frame', 'star', 'cross', 'lamp', 'comb', 'leaf'),
        palette=[
            (214, 58, 48),
            (52, 118, 214),
            (226, 128, 36),
            (236, 206, 46),
            (222, 66, 172),
            (40, 186, 182),
            (126, 70, 214),
            (74, 184, 52),
        ],
    )

    how_to_get = (
        'The shapes sample is drawn by `python tools/make_sample.py --kind shapes '
        '--out FOLDER`.'
    )
