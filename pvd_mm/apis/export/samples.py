# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The images that a file is proven on, and calibrated on."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS
from torch import Tensor
from torch.nn.functional import interpolate

from ..images import find_images

#: Images of the train split that int8 is calibrated on.
_CALIBRATION_IMAGES = 32


def load_samples(
    inferencer,
    images: Sequence[str] | None,
    number: int,
    size: Sequence[int] | None,
) -> Iterator[dict]:
    """Batches of one image, as the model's ``data_preprocessor`` takes them.

    Args:
        inferencer (BaseInferencer): Of :func:`.load_inferencer`.
        images (Sequence[str], optional): Files, folders and patterns; None: images
            of the config's test set, with their annotations.
        number (int): How many at most; those of the test set are spread over it.
        size (Sequence[int], optional): Height and width to resize them to.

    Yields:
        dict: ``inputs``, a list of (3, H, W) uint8, and ``data_samples``.
    """
    if images is not None:
        for path in find_images(images)[:number]:
            yield resized(inferencer.prepare(str(path)), size)
        return
    dataset = DATASETS.build(inferencer.cfg.test_dataloader.dataset)
    for index in _spread(len(dataset), number):
        yield resized(pseudo_collate([dataset[index]]), size)


def calibration_images(inferencer, size: Sequence[int] | None) -> list[np.ndarray]:
    """Images of the train split as a file takes them, as the test pipeline loads them.
    Arguments as of :func:`load_samples`."""
    dataset = inferencer.cfg.train_dataloader.dataset
    while 'dataset' in dataset:  # e.g. RepeatDataset
        dataset = dataset.dataset
    dataset = DATASETS.build(dict(dataset, pipeline=[]))
    paths = [dataset[i]['img_path'] for i in _spread(len(dataset), _CALIBRATION_IMAGES)]
    batches = [resized(inferencer.prepare(path), size) for path in paths]
    swaps = swaps_channels(inferencer)
    return [raw(batch, swaps).numpy() for batch in batches]


def swaps_channels(inferencer) -> bool:
    """Whether the model takes RGB where mmcv loads BGR."""
    preprocessor = inferencer.cfg.model.get('data_preprocessor') or {}
    return any(preprocessor.get(name) for name in ('bgr_to_rgb', 'rgb_to_bgr'))


def raw(sample: dict, swaps: bool) -> Tensor:
    """What the file takes, (1, 3, H, W), of a batch of one image that mmcv loaded."""
    image = sample['inputs'][0]
    return (image.flip(0) if swaps else image)[None].float()


def _spread(length: int, number: int) -> list[int]:
    """So many indices at most, evenly over all."""
    return [round(x) for x in np.linspace(0, length - 1, min(number, length))]


def another_size(batch: dict) -> tuple[int, int]:
    """About three quarters of that of a batch of one image, and odd."""
    return tuple(3 * side // 4 | 1 for side in batch['inputs'][0].shape[1:])


def resized(batch: dict, size: Sequence[int] | None) -> dict:
    """A batch of one image with another height and width, unless that is None."""
    if size is not None:
        image = batch['inputs'][0][None].float()
        resized = interpolate(image, tuple(size), mode='bilinear')
        batch['inputs'] = [resized[0].round().to(torch.uint8)]
        sample = batch['data_samples'][0]
        old = sample.ori_shape[:2]
        sample.set_metainfo(
            dict(
                img_shape=tuple(size),
                scale_factor=(size[1] / old[1], size[0] / old[0]),
            )
        )
    return batch
