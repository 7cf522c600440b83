# Copyright (c) PVD-MM contributors. Apache-2.0.
"""One drawn street scene: an image and its label map.

A scene is a flat ground with a street along the view, side structures (buildings,
walls, fences, trees) along both edges of it, and things that stand on it. Everything
has a place in metres and is painted from far to near, so occlusion is right.

Classes share colours on purpose: grey may be road, wall, building, pole, car or a coat,
so that place and form have to be learned, not hue.
"""

from collections.abc import Callable

import numpy as np

from .backdrop import Footprint, paint_ground, paint_sky, paint_skyline
from .camera import paint_hood, paint_wires, photograph
from .canvas import Canvas
from .furniture import (
    paint_bare_pole,
    paint_bin,
    paint_lamp,
    paint_light,
    paint_sign,
)
from .layout import SIDES, Street
from .people import paint_cycle, paint_person
from .roadside import (
    paint_building,
    paint_fence,
    paint_tree,
    paint_tree_row,
    paint_wall,
)
from .vehicles import (
    paint_bus,
    paint_car,
    paint_crossing_car,
    paint_tram,
    paint_truck,
)

# Painter, then width of the shadow to each side, its length, and the room it takes in
# its lane before and behind.
_VEHICLES = {
    'car': (paint_car, 0.95, 4.3, 0, 5),
    'truck': (paint_truck, 1.25, 8, 4, 10),
    'bus': (paint_bus, 1.3, 11, 4, 13),
}
_FRONTAGES = {
    'building': paint_building,
    'trees': paint_tree_row,
    'wall': paint_wall,
    'fence': paint_fence,
}
_ROWS = {'lamp': paint_lamp, 'bare_pole': paint_bare_pole, 'tree': paint_tree}


class StreetScene:
    """Painter of one street scene.

    Args:
        rng (np.random.Generator): The only source of chance.
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.
        wanted (Sequence[str]): Things the scene must contain, out of 'bus', 'truck',
            'train', 'motorcycle', 'rider', 'wall', 'fence', 'light', 'terrain',
            'bicycle', 'person'. More appear by chance.
        hood (bool): Whether the bottom shows the unlabelled hood of the camera's own
            car.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        wanted: tuple[str, ...] = (),
        hood: bool = True,
    ) -> None:
        self.rng = rng
        self.wanted = wanted
        self.hood = hood
        self.canvas = Canvas(rng, height, width)
        self.street = Street(rng, wanted)
        self.queue = []  # (depth, painter, arguments)
        self.footprints = []

    def render(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Paint the scene.

        Returns:
            tuple[np.ndarray, np.ndarray, np.ndarray]: RGB image, (H, W, 3) uint8,
            train ids, (H, W) uint8 with 0-18 and 255 (unlabelled), and numbers, (H,
            W) uint16: pixels of a thing are of one object if both are equal.
        """
        self._place_furniture()
        self._place_traffic()
        self._place_people()
        self._place_frontages()
        paint_sky(self.canvas)
        paint_skyline(self.canvas)
        paint_ground(self.canvas, self.street, self.footprints)
        self.queue.sort(key=lambda item: -item[0])
        for number, (_, painter, args) in enumerate(self.queue, 1):
            self.canvas.number = number
            painter(self.canvas, *args)
        if self.rng.random() < 0.25:
            paint_wires(self.canvas)
        if self.hood:
            paint_hood(self.canvas)
        return photograph(self.canvas)

    def _chance(self, p: float, *names: str) -> bool:
        """True with probability ``p``, or surely if a name is wanted."""
        drawn = self.rng.random() < p  # always drawn: keeps seeds aligned
        return bool(drawn) or any(name in self.wanted for name in names)

    def _add(self, painter: Callable, x, z, *args, w=0.3, length=0.4) -> None:
        """Queue something that stands on the ground, w to each side, and its shadow."""
        self.queue.append((z, painter, (x, z, *args)))
        self.footprints.append(Footprint(x, z, w, length))

    def _place_furniture(self) -> None:
        """Poles, lamps, signs and lights along both curbs, bins, a railing."""
        rng, street, add = self.rng, self.street, self._add
        for side in SIDES:
            z = rng.uniform(5, 14)
            gap = rng.uniform(9, 20)
            row = rng.choice([*_ROWS, 'none'], p=[0.45, 0.2, 0.2, 0.15])
            x = street.curb(side) + side * rng.uniform(0.3, 0.8)
            while z < 95 and row != 'none':
                add(_ROWS[row], x, z, w=0.12)
                z += gap * rng.uniform(0.85, 1.15)
            for _ in range(rng.integers(1, 5)):
                x = street.on_walk(side, 0.2, 1.2)
                add(paint_sign, x, rng.uniform(5, 45), w=0.1)
            if rng.random() < 0.5:
                add(paint_bare_pole, street.on_walk(side), rng.uniform(5, 50), w=0.1)
            for _ in range(rng.integers(0, 3)):
                x = street.on_walk(side, 0.8)
                add(paint_bin, x, rng.uniform(6, 28), w=0.4, length=0.8)
        if self._chance(0.45, 'light') or street.crossing:
            z = street.crossing - 1 if street.crossing else rng.uniform(9, 30)
            for side in SIDES:
                add(paint_light, street.on_walk(side, 0.2, 0.9), z, w=0.1)
        if rng.random() < 0.15:  # a railing between road and sidewalk
            side = rng.choice(SIDES)
            x = street.curb(side) + side * 0.35
            z = rng.uniform(8, 25)
            while z < 60 and not (street.crossing and z + 6 > street.crossing):
                self.queue.append((z + 5, paint_fence, (side, x, z, z + 5, 0.95)))
                z += 5

    def _place_traffic(self) -> None:
        """Vehicles in the lanes, at the curbs, on the rails and on the crossing."""
        rng, street, add = self.rng, self.street, self._add
        lanes = [(street.right - 1.6 - rng.uniform(0, 0.5), True)]
        oncoming = street.left + 1.6 + (3.2 if street.rails else 0)
        if lanes[0][0] - oncoming > 2.6:
            lanes.append((oncoming + rng.uniform(0, 0.4), False))
        large = [kind for kind in ('truck', 'bus') if self._chance(0.17, kind)]
        rng.shuffle(large)
        for lane, (x, away) in enumerate(lanes):
            last = lane == len(lanes) - 1
            lead = large and (last or rng.random() < 0.5)
            # a large vehicle leads its lane, so that it is seen
            z = rng.uniform(4, 12) if lead else rng.uniform(7, 22)
            while z < 95:
                kind = 'car'
                if large and (lead or last):
                    kind, lead = large.pop(), False
                elif rng.random() < 0.05:
                    kind = rng.choice(['truck', 'bus'])
                painter, w, length, before, behind = _VEHICLES[kind]
                z += before
                add(painter, x + rng.normal(0, 0.15), z, away, w=w, length=length)
                z += behind
                z += rng.exponential(14) + 2
        for side, x in ((1, street.right - 0.2), (-1, street.left + 0.2)):
            # parked cars, half on the curb
            if rng.random() < (0.0 if street.rails and side < 0 else 0.4):
                z = rng.uniform(7, 20)
                for _ in range(rng.integers(1, 6)):
                    add(paint_car, x + side * 0.95, z, side > 0, w=0.95, length=4.3)
                    z += rng.uniform(5, 7.5)
        if self._chance(0.06, 'train') and street.rails:
            z, away = rng.uniform(9, 26), bool(rng.random() < 0.4)
            add(paint_tram, street.left + 1.62, z, away, w=1.3, length=25)
        if street.crossing and rng.random() < 0.6:
            forward = int(rng.choice(SIDES))
            z = street.crossing + (2 if forward > 0 else 4.5)
            x = rng.uniform(-10, 10)
            add(paint_crossing_car, x, z, forward, w=2.1, length=0.8)

    def _place_people(self) -> None:
        """People, alone and in groups, near and far; cycles and riders."""
        rng, street, add = self.rng, self.street, self._add
        for _ in range(rng.integers(2, 8)):
            side = rng.choice(SIDES)
            z = float(np.exp(rng.uniform(np.log(5), np.log(50))))
            x = street.on_walk(side, 0.4)
            for _ in range(rng.integers(1, 4)):
                add(paint_person, x, z, w=0.22)
                x += rng.uniform(0.4, 0.8) * rng.choice(SIDES)
                z += rng.uniform(-0.4, 1.2)
        if street.crossing and rng.random() < 0.5:
            for _ in range(rng.integers(1, 4)):
                x = rng.uniform(street.left, street.right)
                add(paint_person, x, street.crossing - rng.uniform(1, 3), w=0.22)
        for motor, name in ((False, 'bicycle'), (True, 'motorcycle')):
            count = rng.integers(1, 4) if self._chance(0.35, name) else 0
            for _ in range(count):
                x = street.on_walk(rng.choice(SIDES), 0.2, 1.4)
                add(paint_cycle, x, rng.uniform(6, 24), motor, False, w=0.4)
        if self._chance(0.4, 'rider'):
            for _ in range(rng.integers(1, 4)):
                x = rng.choice([street.right - 0.5, street.left + 0.7])
                motor = rng.random() < 0.4
                x += rng.normal(0, 0.3)
                add(paint_cycle, x, rng.uniform(6, 24), motor, True, w=0.4)

    def _place_frontages(self) -> None:
        """What lines the street, and trees behind what is low."""
        rng = self.rng
        for side, z0, z1, kind, height in self.street.frontages:
            edge = self.street.edge(side)
            if kind in _FRONTAGES:
                # the far end decides: what stands before it is in front
                stretch = side, edge, z0, z1, height
                self.queue.append((z1, _FRONTAGES[kind], stretch))
            if kind in ('wall', 'fence', 'open') and rng.random() < 0.8:
                for _ in range(rng.integers(1, 4)):
                    x = edge + side * rng.uniform(2.5, 9)
                    z = rng.uniform(z0, z1) + 1
                    self.queue.append((z1 + 0.5, paint_tree, (x, z)))
