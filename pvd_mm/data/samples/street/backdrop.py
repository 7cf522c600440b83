# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Sky, skyline and ground."""

from typing import NamedTuple

import cv2
import numpy as np

from .canvas import FACADES, Canvas
from .classes import BUILDING, ROAD, SIDEWALK, SKY, TERRAIN
from .layout import Street
from .roadside import paint_crown

_FAR = 140.0  # metres, where the ground ends
_GRASS = [[84, 104, 56], [112, 108, 66], [70, 92, 48]]


class Footprint(NamedTuple):
    """Where something stands: half its width, and its length away from the camera."""

    x: float
    z: float
    w: float
    length: float


def paint_sky(canvas: Canvas) -> None:
    """Paint a gradient with clouds, down to the horizon."""
    top, low = {
        'sunny': ([92, 142, 206], [198, 214, 228]),
        'overcast': ([168, 172, 178], [206, 206, 206]),
        'dusk': ([78, 82, 118], [222, 164, 122]),
    }[canvas.mood]
    rows = max(1, int(canvas.horizon) + 8)
    t = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 1.3
    sky = np.float32(top) * (1 - t) + np.float32(low) * t
    cover = canvas.rng.uniform(0.1, 0.9)
    cloud = canvas.smooth_noise(rows, canvas.width, 5, 12)
    cloud = np.clip((cloud - 1 + cover) * 2.2, 0, 1)[..., None]
    white = np.float32([236, 236, 238]) * (0.82 if canvas.mood == 'dusk' else 1)
    sky = sky * (1 - 0.75 * cloud) + white * 0.75 * cloud
    canvas.image[:rows] = sky
    canvas.label[:rows] = SKY


def paint_skyline(canvas: Canvas) -> None:
    """Paint far trees and houses around the vanishing point."""
    rng = canvas.rng
    for _ in range(rng.integers(5, 11)):
        z = rng.uniform(100, 138)
        x = rng.uniform(-90, 90)
        if rng.random() < 0.5:
            w, h = rng.uniform(6, 16), rng.uniform(5, 22)
            house = canvas.brush(BUILDING)
            house.plate(x - w, x + w, 0, h, z, canvas.pick(FACADES))
        else:
            paint_crown(canvas, x, 3.5, z, rng.uniform(6, 16), 4.5)


def paint_ground(canvas: Canvas, street: Street, footprints: list[Footprint]) -> None:
    """Paint road, sidewalk and terrain, each pixel by its metres.

    Args:
        canvas (Canvas): What is painted on.
        street (Street): Where road and sidewalks are.
        footprints (list[Footprint]): What casts a shadow, beside the frontages.
    """
    rng = canvas.rng
    first = int(canvas.horizon + canvas.focal * canvas.eye / _FAR)
    v = np.arange(first, canvas.height, dtype=np.float32)[:, None]
    u = np.arange(canvas.width, dtype=np.float32)[None]
    z = canvas.focal * canvas.eye / (v - canvas.horizon)
    x = (u - canvas.center) * z / canvas.focal - canvas.curve * z * z
    z = np.broadcast_to(z, x.shape)

    left, right, crossing = street.left, street.right, street.crossing
    label = np.full(x.shape, TERRAIN, np.uint8)
    label[(x > left - street.walk[0]) & (x < right + street.walk[1])] = SIDEWALK
    road = (x > left) & (x < right)
    if crossing:
        road |= (z > crossing) & (z < crossing + 7)
    label[road] = ROAD

    grey = rng.uniform(72, 128)
    tint = rng.normal(0, 4, 3)
    colors = np.zeros((256, 3), np.float32)
    colors[ROAD] = grey + tint
    colors[SIDEWALK] = rng.uniform(95, 160) + tint + rng.normal(0, 6, 3)
    colors[TERRAIN] = canvas.pick(_GRASS)
    image = colors[label]

    # texture that lies on the ground: a noise tile indexed by metres
    tile = rng.normal(0, 1, (128, 128)).astype(np.float32)
    tile = tile + 2.5 * cv2.GaussianBlur(tile, (0, 0), 4)
    tx = (x * 9).astype(np.int32) & 127
    tz = (z * 5).astype(np.int32) & 127
    gain = 1 + tile[tz, tx] * rng.uniform(0.03, 0.07)
    joints = (label == SIDEWALK) & (z < 22)
    joints &= (np.mod(x, 0.9) < 0.07) | (np.mod(z, 0.9) < 0.09)
    gain[joints] *= 0.84
    for edge in (left, right):
        curb = (np.abs(x - edge) < 0.11) & (label == SIDEWALK)
        gain[curb] *= 1.22
    image *= gain[..., None]

    marks = np.zeros(x.shape, bool)
    middle = (left + right) / 2 + rng.normal(0, 0.3)
    dash = rng.uniform(4, 9)
    if rng.random() < 0.8:
        dashes = np.mod(z + rng.uniform(0, 9), dash) < dash * 0.45
        marks |= (np.abs(x - middle) < 0.08) & dashes
    if rng.random() < 0.5:
        marks |= np.abs(x - left - 0.5) < 0.07
        marks |= np.abs(x - right + 0.4) < 0.07
    if crossing and rng.random() < 0.8:
        zebra = (z > crossing - 3.4) & (z < crossing - 0.6)
        marks |= zebra & (np.mod(x, 1.0) < 0.5)
    marks &= road
    wear = rng.uniform(0.35, 0.9)
    image[marks] = image[marks] * (1 - wear) + 215 * wear
    if street.rails:
        for x_rail in (left + 0.9, left + 2.34):
            rail = (np.abs(x - x_rail) < 0.05) & road
            image[rail] = image[rail] * 0.5 + 34

    shadow = cv2.blur(_cast_shadows(canvas, street, footprints)[first:], (5, 3))
    image *= 1 - 0.45 * (shadow.astype(np.float32) / 255)[..., None]
    clear = np.exp(-z / canvas.haze_length)[..., None]
    image = image * clear + canvas.haze * (1 - clear)
    canvas.image[first:] = np.clip(image, 0, 255)
    canvas.label[first:] = label


def _cast_shadows(
    canvas: Canvas, street: Street, footprints: list[Footprint]
) -> np.ndarray:
    """Strength of the shadow on the ground, (H, W) uint8, 255 the most."""
    mask = np.zeros((canvas.height, canvas.width), np.uint8)
    sunny = canvas.mood == 'sunny'
    if sunny:
        reach = canvas.rng.uniform(0.15, 0.7)
        edge = street.edge(canvas.sun)
        for side, z0, z1, kind, height in street.frontages:
            if side == canvas.sun and kind in ('building', 'trees'):
                end = edge - canvas.sun * height * reach
                corners = canvas.project([edge, edge, end, end], 0, [z0, z1, z1, z0])
                cv2.fillPoly(mask, [corners], 255)
    for x, z, w, length in footprints:
        shift = -canvas.sun * 0.5 * w if sunny else 0
        xs = [x - w, x + w, x + w + shift, x - w + shift]
        zs = [z - 0.3, z - 0.3, z + length, z + length]
        cv2.fillPoly(mask, [canvas.project(xs, 0, zs)], 255 if sunny else 170)
    return mask
