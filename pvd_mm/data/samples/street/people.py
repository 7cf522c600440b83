# Copyright (c) PVD-MM contributors. Apache-2.0.
"""People on foot, and bicycles and motorcycles with or without their riders."""

import numpy as np

from .canvas import PAINTS, Canvas
from .classes import BICYCLE, MOTORCYCLE, PERSON, RIDER

_CLOTHES = [
    [34, 34, 40], [58, 70, 98], [120, 118, 114], [160, 40, 44], [202, 198, 190],
    [72, 86, 60], [150, 118, 80], [46, 92, 130], [200, 150, 50],
]  # fmt: skip
_TYRE, _METAL, _SPOKES = [34, 34, 36], [150, 152, 154], [104, 104, 102]


def paint_person(canvas: Canvas, x, z) -> None:
    """Paint somebody who walks or stands."""
    rng = canvas.rng
    person = canvas.brush(PERSON)
    h = rng.uniform(1.5, 1.92) * (0.68 if rng.random() < 0.12 else 1)
    coat, coat_gain = canvas.pick(_CLOTHES), rng.uniform(0.7, 1.05)
    legs = canvas.pick(_CLOTHES)
    skin = rng.uniform([120, 78, 58], [226, 178, 148])
    step = rng.uniform(-0.14, 0.14)
    wide = rng.uniform(0.11, 0.15)
    for foot in (step, -step):
        leg = [(x, 0.5 * h), (x + foot * h, 0.02 * h)]
        person.stroke(leg, z, 0.085 * h, legs, 0.7)
    swing = rng.uniform(-0.16, 0.16)
    for reach in (swing, -swing):
        shoulder = x + np.sign(reach) * wide * h
        arm = [(shoulder, 0.8 * h), (shoulder + reach * h * 0.6, 0.48 * h)]
        person.stroke(arm, z, 0.06 * h, coat, coat_gain)
    xs = x + h * wide * np.array([-0.8, 0.8, 1, 0.55, -0.55, -1])
    ys = h * np.array([0.46, 0.46, 0.78, 0.85, 0.85, 0.78])
    person.polygon(xs, ys, z, coat, coat_gain)
    person.disc(x, 0.92 * h, z, 0.058 * h, 0.075 * h, skin, 0.95)
    hair = rng.uniform([20, 16, 12], [110, 84, 56])
    person.disc(x, 0.955 * h, z, 0.056 * h, 0.042 * h, hair)
    if rng.random() < 0.3:
        bag = canvas.pick(_CLOTHES)
        a = x + np.sign(swing) * 0.2 * h
        person.plate(a - 0.09, a + 0.09, 0.32 * h, 0.47 * h, z, bag, 0.8)


def paint_cycle(canvas: Canvas, x, z, motor: bool, ridden: bool) -> None:
    """Paint a bicycle or motorcycle at an angle, with or without its rider."""
    rng = canvas.rng
    cycle = canvas.brush(MOTORCYCLE if motor else BICYCLE)
    turn = rng.choice([-1, 1]) * rng.uniform(0.3, 1.0)
    base, r = (0.66 * turn, 0.3) if motor else (0.52 * turn, 0.34)
    paint = canvas.pick(PAINTS, 14)
    for wheel in (x - base, x + base):
        cycle.disc(wheel, r, z, r * abs(turn), r, _SPOKES)
        thick = max(2, round((0.1 if motor else 0.045) * canvas.focal / z))
        cycle.disc(wheel, r, z, r * abs(turn), r, _TYRE, thick=thick)

    def bar(points, thick, color, brush=cycle, gain=1.0):
        """Paint a line through (right, up) metres from where the cycle stands."""
        points = [(x + right * turn, up) for right, up in points]
        brush.stroke(points, z, thick, color, gain)

    if motor:
        saddle = 0.9
        xs = x + turn * np.array([-0.75, -0.3, 0.25, 0.55, 0.3, -0.45])
        ys = np.array([0.72, 0.3, 0.25, 0.75, 0.98, 0.82])
        cycle.polygon(xs, ys, z, paint)
        bar([(-0.6, 0.86), (-0.1, 0.84)], 0.13, _TYRE)
        bar([(0.66, 0.32), (0.42, 1.08)], 0.08, _METAL)
    else:
        saddle = 0.96
        rear, front = (-0.52, r), (0.52, r)
        bar([rear, (-0.1, 0.32), (0.36, 0.82), (-0.18, 0.78), rear], 0.05, paint)
        bar([front, (0.36, 0.98), (0.24, 1.02)], 0.05, _METAL)
        bar([(-0.1, 0.32), (-0.2, 0.94)], 0.05, _METAL)
    if not ridden:
        return
    rider = canvas.brush(RIDER)
    coat, legs = canvas.pick(_CLOTHES), canvas.pick(_CLOTHES)
    hip, neck = (-0.22, saddle), (0.08, saddle + 0.56)
    bar([hip, (0.12, 0.66), (-0.04, 0.26)], 0.15, legs, rider, 0.75)
    bar([hip, neck], 0.3, coat, rider)
    bar([neck, (0.36, 1.08)], 0.1, coat, rider)
    if motor or rng.random() < 0.5:  # a helmet
        head = rng.uniform(20, 230, 3)
    else:
        head = rng.uniform([110, 74, 56], [220, 176, 146])
    r = 0.14 if motor else 0.115
    rider.disc(x + 0.14 * turn, saddle + 0.74, z, r, r * 1.1, head)
