# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What lines the street: buildings, walls, fences and trees.

Painters of a stretch take its side (-1 left, 1 right), the x of the street's edge, the
depths where it begins and ends, and its height in metres.
"""

import cv2
import numpy as np

from .canvas import FACADES, PAINTS, Brush, Canvas
from .classes import BUILDING, FENCE, VEGETATION, WALL

_FENCES = [[60, 62, 60], [140, 142, 144], [96, 74, 54]]
_FOLIAGE = [[58, 82, 40], [74, 92, 52], [92, 96, 46], [46, 66, 44]]


def paint_building(canvas: Canvas, side, edge, z0, z1, height) -> None:
    """Paint a house: its front and its long face to the street."""
    rng = canvas.rng
    house, detail = canvas.brush(BUILDING), canvas.brush()
    base = canvas.pick(FACADES, 14)
    lit = 1.12 if side != canvas.sun else 0.74
    if canvas.mood != 'sunny':
        lit = rng.uniform(0.85, 1.0)
    house.plate(edge, edge + side * 14, 0, height, z0, base, 0.9)
    _paint_slices(house, edge, z0, z1, height, base, lit)
    middle = (z0 + z1) / 2
    trim = base * rng.uniform(0.6, 1.25)
    for y in (height - 0.5, 3.4):
        detail.face(edge, z0, z1, y, y + 0.4, trim, middle, lit)
    _paint_windows(detail, edge, z0, z1, height, lit)
    shop = canvas.pick(PAINTS, 14)
    if rng.random() < 0.5:
        detail.face(edge, z0, z1, 0.3, 2.8, shop, middle, lit * 0.7)
    if rng.random() < 0.3 and z1 - z0 > 6:
        # an advertisement: as bright as a sign, but on a building
        z = rng.uniform(z0, z1 - 4)
        detail.face(edge, z, z + 3.5, 3, 4.2, rng.uniform(20, 250, 3), z, lit)


def _paint_slices(brush: Brush, edge, z0, z1, height, color, lit) -> None:
    """Paint a long face in slices, so that haze grows with depth."""
    cuts = np.linspace(z0, z1, 4)
    for a, b in zip(cuts[:-1], cuts[1:], strict=True):
        brush.face(edge, a, b, 0, height, color, (a + b) / 2, lit)


def _paint_windows(brush: Brush, edge, z0, z1, height, lit) -> None:
    """Paint the windows of a long face."""
    canvas, rng = brush.canvas, brush.canvas.rng
    pitch = rng.uniform(2.0, 3.4)
    if canvas.focal * abs(edge) * pitch / z1**2 < 2 and z0 > 50:
        return  # too small to show
    z = np.arange(z0 + 0.6, z1 - 1.2, pitch)
    y = np.arange(3.9, height - 1.8, rng.uniform(2.7, 3.4))
    if not len(z) or not len(y):
        return
    z, y = (a.ravel() for a in np.meshgrid(z, y))
    wide, high = rng.uniform(0.8, pitch - 0.6), rng.uniform(1.1, 1.9)
    glow = rng.random(len(z)) < (0.4 if canvas.mood == 'dusk' else 0.12)
    dark = rng.uniform(30, 95, 3)
    for chosen, color, gain in ((~glow, dark, lit), (glow, [222, 206, 160], 1)):
        if chosen.any():
            a, b = z[chosen], y[chosen]
            brush.face(edge, a, a + wide, b, b + high, color, (z0 + z1) / 2, gain)


def paint_wall(canvas: Canvas, side, edge, z0, z1, height) -> None:
    """Paint a wall along the street."""
    rng = canvas.rng
    wall, detail = canvas.brush(WALL), canvas.brush()
    base = rng.uniform(85, 165) + rng.normal(0, 8, 3)
    lit = 1.1 if side != canvas.sun else 0.78
    middle = (z0 + z1) / 2
    _paint_slices(wall, edge, z0, z1, height, base, lit)
    detail.face(edge, z0, z1, height - 0.15, height, base * 1.2, middle, lit)
    joint = np.arange(z0, z1, rng.uniform(1.2, 3))
    detail.face(edge, joint, joint + 0.08, 0, height - 0.2, base * 0.8, middle, lit)


def paint_fence(canvas: Canvas, side, edge, z0, z1, height) -> None:
    """Paint pickets and rails; what shows between them is labelled fence, too."""
    rng = canvas.rng
    detail = canvas.brush()
    color, middle = canvas.pick(_FENCES), (z0 + z1) / 2
    outline = canvas.project(edge, [0, 0, height, height], [z0, z1, z1, z0])
    cv2.fillPoly(canvas.label, [outline], FENCE)
    z = np.arange(z0, min(z1, z0 + 60), rng.uniform(0.18, 0.5))
    thick = rng.uniform(0.05, 0.11)
    corners = np.stack([z, z + thick, z + thick, z], -1)
    shaded = canvas.shade(color, middle)
    for picket in canvas.project(edge, [0, 0, height, height], corners):
        # one by one: filled at once, those that overlap would leave gaps
        cv2.fillPoly(canvas.image, [picket], shaded)
    for y in (0.15, height - 0.12):
        detail.face(edge, z0, z1, y, y + 0.1, color, middle)


def paint_tree_row(canvas: Canvas, side, edge, z0, z1, height) -> None:
    """Paint a row of trees without trunks, as of a park."""
    rng = canvas.rng
    for z in np.linspace(z1, z0 + 1, max(2, int((z1 - z0) / 3.5))):
        x = edge + side * rng.uniform(0.5, 3)
        y = height * rng.uniform(0.4, 0.6)
        paint_crown(canvas, x, y, z, height * 0.45, y)


def paint_tree(canvas: Canvas, x, z) -> None:
    """Paint a street tree."""
    rng = canvas.rng
    top = rng.uniform(4, 8.5)
    bark = rng.uniform(50, 105) + np.float32([8, 0, -8])
    w = rng.uniform(0.1, 0.26)
    trunk = [x - w, x + w, x + w * 0.6, x - w * 0.6]
    canvas.brush(VEGETATION).polygon(trunk, [0, 0, top * 0.6, top * 0.6], z, bark, 0.9)
    paint_crown(canvas, x, top * 0.68, z, rng.uniform(1.1, 2.4), top * 0.3)


def paint_crown(canvas: Canvas, x, y, z, rx, ry) -> None:
    """Paint foliage around (x, y): dark lumps first, light ones on top."""
    rng = canvas.rng
    brush = canvas.brush(VEGETATION)
    base = canvas.pick(_FOLIAGE)
    count = 9 if z < 60 else 5
    angle = np.linspace(0, 2 * np.pi, 15)[:-1]
    for i in range(count):
        ox, oy = rng.uniform(-0.62, 0.62, 2)
        radius = rng.uniform(0.32, 0.6) * rng.uniform(0.8, 1.2, 14)
        across = x + rx * (ox + radius * np.cos(angle))
        up = np.maximum(y + ry * (oy + radius * np.sin(angle)), 0)
        brush.polygon(across, up, z, base, 0.6 + 0.6 * i / count + 0.12 * (oy > 0))
