# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Cars, trucks, buses and trams.

Painters take where the near end of the vehicle stands, and whether it drives away.
"""

import numpy as np

from .canvas import PAINTS, Brush, Canvas
from .classes import BUS, CAR, TRAIN, TRUCK

_BLACK, _DARK = [22, 22, 24], [36, 36, 38]


def paint_car(canvas: Canvas, x, z, away: bool) -> None:
    """Paint a car along the street."""
    rng = canvas.rng
    car, detail = canvas.brush(CAR), canvas.brush()
    w = rng.uniform(0.82, 0.95)
    length = rng.uniform(3.6, 4.7)
    tall = rng.uniform(1.38, 1.8)
    x0, x1, z1 = x - w, x + w, z + length
    waist = tall * rng.uniform(0.56, 0.63)
    paint = canvas.pick(PAINTS, 12)
    _paint_wheels(car, x0, x1, z, z1)
    car.box(x0, x1, 0.22, waist, z, z1, paint)
    back = z + (0.15 if away else 1.0)
    front = z1 - (1.1 if away else 0.2)
    taper = tall - waist
    roof = 0.42 * taper
    car.box(x0 + 0.04, x1 - 0.04, waist, tall, back, front, paint, roof)

    glass = rng.uniform([34, 40, 46], [96, 108, 118])
    low, high = waist + 0.12 * taper, tall - 0.14 * taper
    a, b = 0.04 + roof * 0.12 + 0.08, 0.04 + roof * 0.86 + 0.08
    ys = [low, low, high, high]
    za, zb = back + a - 0.1, back + b - 0.1
    xs = [x0 + a, x1 - a, x1 - b, x0 + b]
    detail.polygon(xs, ys, [za, za, zb, zb], glass, 0.9, z)
    side = _visible_side(canvas, x0 + 0.04, x1 - 0.04, z)
    if side is not None:
        inward = 1 if side < x else -1
        cut = (back + front) / 2
        xs = [side + inward * a * 0.5] * 2 + [side + inward * b * 0.85] * 2
        for p, q in ((back + 0.35, cut - 0.06), (cut + 0.06, front - 0.35)):
            detail.polygon(xs, ys, [p, q, q - 0.1, p + 0.2], glass, 0.9, z)
    _paint_lamps(detail, x0, x1, waist * 0.76, z, away)
    detail.plate(x - 0.26, x + 0.26, 0.42, 0.54, z, [214, 210, 190])
    detail.plate(x0, x1, 0.22, 0.34, z, paint * 0.45)


def paint_crossing_car(canvas: Canvas, x, z, forward: int) -> None:
    """Paint a car across the street, seen from its side; it drives to the right if
    ``forward`` is 1, to the left if it is -1."""
    rng = canvas.rng
    car, detail = canvas.brush(CAR), canvas.brush()
    paint = canvas.pick(PAINTS, 12)
    tall = rng.uniform(1.4, 1.65)
    glass = rng.uniform([34, 40, 46], [90, 100, 110])

    def outline(brush, along, up, color, gain=1.0):
        brush.polygon(x + forward * np.array(along), up, z, color, gain)

    body = [-2.1, -2.05, -1.1, 1.0, 2.0, 2.15, 2.15, -2.1]
    outline(car, body, [0.5, 0.9, 0.95, 0.92, 0.76, 0.6, 0.24, 0.24], paint)
    outline(car, [-1.75, -1.15, 0.35, 1.1], [0.9, tall, tall, 0.9], paint, 0.95)
    for pane in ([-1.45, -1.05, -0.4, -0.4], [-0.28, -0.28, 0.3, 0.82]):
        outline(detail, pane, [0.96, tall - 0.1, tall - 0.1, 0.96], glass)
    for wheel in (x - forward * 1.3, x + forward * 1.3):
        car.disc(wheel, 0.32, z, 0.32, 0.32, _BLACK)
        detail.disc(wheel, 0.32, z, 0.17, 0.17, [128, 130, 132])


def paint_truck(canvas: Canvas, x, z, away: bool) -> None:
    """Paint a truck along the street."""
    rng = canvas.rng
    truck, detail = canvas.brush(TRUCK), canvas.brush()
    w, tall, length = 1.2, rng.uniform(2.9, 3.7), rng.uniform(5.5, 8.5)
    x0, x1, z1 = x - w, x + w, z + length
    cargo, cab = canvas.pick(PAINTS, 12), canvas.pick(PAINTS, 12)
    _paint_wheels(truck, x0, x1, z, z1, 0.45)
    if away:
        truck.box(x0 + 0.1, x1 - 0.1, 0.5, 2.4, z1, z1 + 1.9, cab)
        truck.box(x0 + 0.1, x1 - 0.1, 0.4, 0.95, z, z1, _DARK)
        truck.box(x0, x1, 0.95, tall, z, z1, cargo)
        line = cargo * 0.6
        detail.stroke([(x, 1.0), (x, tall - 0.05)], z, 0.05, line)
        for y in (1.6, tall - 0.5):
            detail.stroke([(x0 + 0.1, y), (x1 - 0.1, y)], z, 0.04, line)
        _paint_lamps(detail, x0, x1, 0.62, z, True, 0.13)
    else:
        truck.box(x0, x1, 0.95, tall, z + 2.2, z1, cargo)
        truck.box(x0 + 0.05, x1 - 0.05, 0.35, 2.7, z, z + 2, cab)
        detail.plate(x0 + 0.18, x1 - 0.18, 1.65, 2.45, z, [48, 56, 62])
        detail.plate(x - 0.6, x + 0.6, 0.7, 1.3, z, _DARK)
        _paint_lamps(detail, x0, x1, 0.55, z, False, 0.2)


def paint_bus(canvas: Canvas, x, z, away: bool) -> None:
    """Paint a bus along the street."""
    tall, length = canvas.rng.uniform(2.9, 3.2), canvas.rng.uniform(9, 12)
    _paint_coach(canvas, BUS, x, z, tall, length, away)


def paint_tram(canvas: Canvas, x, z, away: bool) -> None:
    """Paint a tram, the train of the street."""
    tall, length = canvas.rng.uniform(3.3, 3.7), canvas.rng.uniform(20, 32)
    _paint_coach(canvas, TRAIN, x, z, tall, length, away)
    pantograph = [(x, tall), (x + 0.5, tall + 0.6), (x - 0.1, tall + 1.1)]
    canvas.brush(TRAIN).stroke(pantograph, z + 6, 0.06, [60, 60, 62], depth=z)


def _paint_coach(canvas: Canvas, label: int, x, z, tall, length, away: bool) -> None:
    rng = canvas.rng
    coach, detail = canvas.brush(label), canvas.brush()
    bus = label == BUS
    x0, x1, z1 = x - 1.26, x + 1.26, z + length
    paint, stripe = canvas.pick(PAINTS, 12), canvas.pick(PAINTS, 12)
    if bus:
        _paint_wheels(coach, x0, x1, z, z1, 0.48)
    coach.box(x0, x1, 0.3 if bus else 0.16, tall, z, z1, paint)
    glass = rng.uniform([30, 36, 42], [80, 92, 100])
    side = _visible_side(canvas, x0, x1, z)
    if side is not None:
        detail.face(side, z, z1, 0.75, 1.05, stripe, z, 0.9)
        panes = np.arange(z + 0.5, z1 - 1.4, 1.7)
        detail.face(side, panes, panes + 1.45, 1.4, tall - 0.55, glass, z)
    low = 1.7 if bus and away else 1.1
    detail.plate(x0 + 0.14, x1 - 0.14, low, tall - 0.5, z, glass)
    if not bus:
        detail.stroke([(x, tall - 0.5), (x, low)], z, 0.05, paint)
    detail.plate(x0, x1, 0.72, 0.95, z, stripe)
    board = [236, 190, 60] if rng.random() < 0.7 else [40, 40, 40]
    detail.plate(x - 0.7, x + 0.7, tall - 0.4, tall - 0.15, z, board)
    _paint_lamps(detail, x0, x1, 0.5, z, away, 0.16)


def _visible_side(canvas: Canvas, x0, x1, z) -> float | None:
    """The side of a vehicle that is seen, or None from straight behind."""
    bend = canvas.curve * z * z
    if x0 + bend > 0:
        return x0
    return x1 if x1 + bend < 0 else None


def _paint_wheels(vehicle: Brush, x0, x1, z0, z1, radius=0.32) -> None:
    """Paint the wheels of a vehicle that are seen."""
    canvas = vehicle.canvas
    w = 0.22
    for x in (x0 + 0.08, x1 - 0.08 - w):
        y = [0, 0, radius * 1.3, radius * 1.3]
        vehicle.polygon([x, x + w, x + w, x], y, z0 + 0.1, _BLACK, depth=z0)
    side = _visible_side(canvas, x0, x1, z0)
    if side is None:
        return
    angle = np.linspace(0, 2 * np.pi, 13)[:-1]
    tyre, rim = (
        (vehicle, radius, _BLACK),
        (canvas.brush(), radius * 0.5, [120, 122, 124]),
    )
    for z in (z0 + 0.2 * (z1 - z0), z0 + 0.8 * (z1 - z0)):
        for brush, r, color in (tyre, rim):
            circle = radius + r * np.sin(angle), z + r * np.cos(angle)
            brush.polygon(side, *circle, color, depth=z0)


def _paint_lamps(brush: Brush, x0, x1, y, z, away: bool, size=0.14) -> None:
    """Paint tail lamps or headlamps."""
    if away:
        color = [198, 28, 30] if brush.canvas.rng.random() < 0.6 else [120, 20, 24]
    else:
        dusk = brush.canvas.mood == 'dusk'
        color = [250, 246, 220] if dusk else [212, 214, 210]
    for x in (x0 + 0.1, x1 - 0.1 - 1.8 * size):
        brush.plate(x, x + 1.8 * size, y, y + size, z, color)
