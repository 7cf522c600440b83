# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Street furniture: poles, lamps, traffic signs and lights, bins."""

import numpy as np

from .canvas import PAINTS, Canvas
from .classes import LIGHT, POLE, SIGN, UNLABELLED

_METALS = [[98, 102, 104], [58, 60, 62], [150, 152, 150], [92, 84, 70]]
_BOARDS = [[32, 72, 150], [30, 98, 66], [214, 180, 40]]
_LANTERNS = [[30, 32, 30], [62, 64, 50]]
_SIGNALS = [220, 40, 36], [232, 170, 40], [60, 214, 130]
_RED, _WHITE = [186, 32, 36], [226, 226, 220]


def _paint_pole(canvas: Canvas, x, z, top, thick) -> np.ndarray:
    """Paint a pole and return its colour."""
    color = canvas.pick(_METALS)
    canvas.brush(POLE).stroke([(x, 0), (x, top)], z, thick, color)
    return color


def paint_bare_pole(canvas: Canvas, x, z) -> None:
    """Paint a pole that carries nothing."""
    _paint_pole(canvas, x, z, canvas.rng.uniform(3, 9), canvas.rng.uniform(0.08, 0.2))


def paint_lamp(canvas: Canvas, x, z) -> None:
    """Paint a street lamp; all of it is pole."""
    rng = canvas.rng
    pole = canvas.brush(POLE)
    top, thick = rng.uniform(5, 9), rng.uniform(0.09, 0.17)
    color = _paint_pole(canvas, x, z, top, thick)
    reach = -np.sign(x) * rng.uniform(0.8, 2.2)
    arm = [(x, top), (x + reach * 0.4, top + 0.35), (x + reach, top + 0.4)]
    pole.stroke(arm, z, thick * 0.7, color)
    head = x + reach
    glow = [250, 226, 170] if canvas.mood == 'dusk' else [150, 150, 146]
    pole.plate(head - 0.35, head + 0.25, top + 0.22, top + 0.45, z, glow)


def paint_sign(canvas: Canvas, x, z) -> None:
    """Paint a traffic sign on its pole."""
    rng = canvas.rng
    sign, detail = canvas.brush(SIGN), canvas.brush()
    top = rng.uniform(2.1, 3.4)
    _paint_pole(canvas, x, z, top, rng.uniform(0.06, 0.11))
    kind, r = rng.integers(5), rng.uniform(0.28, 0.42)
    if kind == 0:
        sign.disc(x, top, z, r, r, _RED)
        detail.disc(x, top, z, r * 0.66, r * 0.66, _WHITE)
    elif kind == 1:
        for brush, scale, color in ((sign, 1.15, _RED), (detail, 0.62, _WHITE)):
            a = r * scale
            triangle = [top - a * 0.7, top - a * 0.7, top + a]
            brush.polygon([x - a, x + a, x], triangle, z, color)
    elif kind == 2:
        w = r * rng.uniform(0.9, 2.2)
        sign.plate(x - w, x + w, top - r, top + r, z, canvas.pick(_BOARDS))
        for y in (top - 0.3 * r, top + 0.25 * r):
            detail.stroke([(x - w * 0.7, y), (x + w * 0.6, y)], z, 0.05, _WHITE)
    elif kind == 3:
        diamond = [x - r, x, x + r, x], [top, top - r, top, top + r]
        sign.polygon(*diamond, z, [216, 176, 40])
    else:  # seen from behind
        sign.disc(x, top, z, r, r, [128, 130, 130])


def paint_light(canvas: Canvas, x, z) -> None:
    """Paint traffic lights on their pole or mast."""
    rng = canvas.rng
    top = rng.uniform(2.6, 3.6)
    thick = rng.uniform(0.09, 0.15)
    if rng.random() < 0.35:  # a mast with an arm over the road
        high = rng.uniform(5.2, 6.2)
        color = _paint_pole(canvas, x, z, high, thick * 1.2)
        end = x - np.sign(x) * rng.uniform(2, 4.5)
        canvas.brush(POLE).stroke([(x, high), (end, high)], z, thick, color)
        _paint_lantern(canvas, end, high + 0.1, z)
    else:
        _paint_pole(canvas, x, z, top, thick)
    _paint_lantern(canvas, x, top, z)


def _paint_lantern(canvas: Canvas, x, y, z) -> None:
    """Paint the box of a traffic light, one lamp lit."""
    rng = canvas.rng
    w = rng.uniform(0.15, 0.21)
    dark = canvas.pick(_LANTERNS, 5)
    canvas.brush(LIGHT).plate(x - w, x + w, y - 0.95, y + 0.1, z, dark)
    lit = rng.integers(3)
    for i, color in enumerate(_SIGNALS):
        color = np.float32(color) * (1.0 if i == lit else 0.22)
        canvas.brush().disc(x, y - 0.12 - 0.3 * i, z, w * 0.62, w * 0.62, color)


def paint_bin(canvas: Canvas, x, z) -> None:
    """Paint street furniture without a class: unlabelled."""
    rng = canvas.rng
    h, w = rng.uniform(0.7, 1.3), rng.uniform(0.22, 0.5)
    color = canvas.pick(PAINTS, 14)
    canvas.brush(UNLABELLED).box(x - w, x + w, 0, h, z, z + 2 * w, color)
    canvas.brush().plate(x - w, x + w, h - 0.12, h, z, color * 0.6)
