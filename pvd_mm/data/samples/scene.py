# Copyright (c) PVD-MM contributors. Apache-2.0.
"""One drawn street scene: an image and its label map.

A scene is a flat ground with a street along the view, side structures
(buildings, walls, fences, trees) along both edges of it, and things that
stand on it. Everything has a place in metres (X to the right, Y up, Z away
from the camera) and is painted from far to near, so occlusion is right.
Shapes are painted at twice the size; the image is then averaged down (soft
edges), the labels are sampled (crisp edges).

Classes share colours on purpose: grey may be road, wall, building, pole, car
or a coat, so that place and form have to be learned, not hue.
"""

import cv2
import numpy as np

# Train ids of Cityscapes.
ROAD, SIDEWALK, BUILDING, WALL, FENCE, POLE, LIGHT, SIGN = range(8)
VEGETATION, TERRAIN, SKY, PERSON, RIDER, CAR, TRUCK, BUS = range(8, 16)
TRAIN, MOTORCYCLE, BICYCLE, VOID = 16, 17, 18, 255

SUPERSAMPLING = 2
_FAR = 140.0  # metres, where the ground ends
_NEAR = 2.2  # metres, nothing is painted closer

_PAINTS = np.array(
    [
        [225, 225, 222],
        [190, 192, 195],
        [120, 124, 128],
        [62, 64, 70],
        [28, 29, 33],
        [150, 32, 30],
        [38, 62, 120],
        [52, 92, 70],
        [196, 160, 60],
        [120, 92, 74],
        [90, 130, 165],
    ],
    np.float32,
)
_FACADES = np.array(
    [
        [172, 150, 128],
        [140, 92, 76],
        [196, 188, 172],
        [122, 122, 124],
        [158, 136, 104],
        [98, 104, 112],
        [206, 178, 132],
        [134, 112, 108],
    ],
    np.float32,
)
_CLOTHES = np.array(
    [
        [34, 34, 40],
        [58, 70, 98],
        [120, 118, 114],
        [160, 40, 44],
        [202, 198, 190],
        [72, 86, 60],
        [150, 118, 80],
        [46, 92, 130],
        [200, 150, 50],
    ],
    np.float32,
)


class Scene:
    """Painter of one street scene.

    Args:
        rng (np.random.Generator): The only source of chance.
        height (int): Height of the image in pixels.
        width (int): Width of the image in pixels.
        wanted (Sequence[str]): Things the scene must contain, out of 'bus',
            'truck', 'train', 'motorcycle', 'rider', 'wall', 'fence',
            'light', 'terrain', 'bicycle', 'person'. More appear by chance.
        hood (bool): Whether the bottom shows the unlabelled hood of the
            camera's own car.
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
        self.height = height * SUPERSAMPLING
        self.width = width * SUPERSAMPLING
        self.wanted = wanted
        self.hood = hood
        self.image = np.zeros((self.height, self.width, 3), np.uint8)
        self.label = np.full((self.height, self.width), VOID, np.uint8)
        self.queue = []  # (depth, painter, arguments)

        # the camera
        self.focal = self.height * rng.uniform(0.95, 1.25)
        self.center = self.width * rng.uniform(0.42, 0.58)
        self.horizon = self.height * rng.uniform(0.36, 0.5)
        self.eye = rng.uniform(1.25, 1.75)
        self.curve = rng.normal(0, 0.0012)

        # the light
        self.mood = rng.choice(['sunny', 'overcast', 'dusk'], p=[0.45, 0.35, 0.2])
        self.sun = rng.choice([-1, 1])  # the side the light comes from
        self.haze_length = rng.uniform(90, 320)
        self.haze = {
            'sunny': np.float32([186, 200, 216]),
            'overcast': np.float32([188, 190, 192]),
            'dusk': np.float32([172, 138, 122]),
        }[self.mood] + rng.normal(0, 6, 3).astype(np.float32)

        # the street
        self.left = -rng.uniform(4.2, 8.5)
        self.right = rng.uniform(2.0, 4.5)
        self.walk = rng.uniform(1.8, 4.5, 2)  # sidewalk width per side
        self.strip = np.where(rng.random(2) < 0.45, rng.uniform(1, 5, 2), 0)
        if 'terrain' in wanted:
            self.strip[:] = rng.uniform(2, 5, 2)
        self.edges = np.array(
            [
                self.left - self.walk[0] - self.strip[0],
                self.right + self.walk[1] + self.strip[1],
            ]
        )
        self.crossing = rng.uniform(14, 45) if rng.random() < 0.45 else None
        self.rails = 'train' in wanted or rng.random() < 0.12
        if self.rails:
            self.left -= 3.2
            self.edges[0] -= 3.2

    # ---- geometry and paint ------------------------------------------------

    def project(self, x, y, z) -> np.ndarray:
        """Metres (broadcast together) to pixels, (..., 2) int32."""
        x, y, z = np.broadcast_arrays(x, y, z)
        z = np.maximum(z, _NEAR)
        u = self.center + self.focal * (x / z + self.curve * z)
        v = self.horizon + self.focal * (self.eye - y) / z
        points = np.stack([u, v], -1)
        return np.clip(np.round(points), -20000, 20000).astype(np.int32)

    def shade(self, color, z: float, gain: float = 1.0) -> tuple:
        """Colour of a surface at depth ``z``: light, then haze."""
        clear = np.exp(-z / self.haze_length)
        value = np.float32(color) * gain * clear + self.haze * (1 - clear)
        return tuple(float(v) for v in np.clip(value, 0, 255))

    def fill(self, polygons, color, label: int | None = None) -> None:
        """Paint polygons, (P, 2) or (N, P, 2) pixels, in one colour."""
        polygons = np.asarray(polygons, np.int32)
        if polygons.ndim == 2:
            polygons = polygons[None]
        polygons = list(polygons)
        cv2.fillPoly(self.image, polygons, color)
        if label is not None:
            cv2.fillPoly(self.label, polygons, label)

    def quad(self, x, y, z, color, label=None) -> None:
        """Paint the quad with corners (x, y, z), each of length 4."""
        self.fill(self.project(x, y, z), color, label)

    def plate(self, x0, x1, y0, y1, z, color, label=None) -> None:
        """Paint an upright rectangle that faces the camera."""
        self.quad([x0, x1, x1, x0], [y0, y0, y1, y1], [z] * 4, color, label)

    def disc(self, x, y, z, rx, ry, color, label=None, thick=-1) -> None:
        """Paint an ellipse that faces the camera; radii in metres."""
        u, v = self.project(x, y, z).tolist()
        scale = self.focal / max(z, _NEAR)
        axes = (max(1, int(rx * scale)), max(1, int(ry * scale)))
        cv2.ellipse(self.image, (u, v), axes, 0, 0, 360, color, thick)
        if label is not None:
            cv2.ellipse(self.label, (u, v), axes, 0, 0, 360, label, thick)

    def stroke(self, points, z, thick, color, label=None) -> None:
        """Paint a line through (x, y) metres at depth z, thick in metres."""
        points = np.asarray(points, np.float32)
        pixels = self.project(points[:, 0], points[:, 1], z)[None]
        # at least one pixel of the final image
        thick = max(SUPERSAMPLING, round(thick * self.focal / z))
        cv2.polylines(self.image, pixels, False, color, thick)
        if label is not None:
            cv2.polylines(self.label, pixels, False, label, thick)

    def pick(self, palette: np.ndarray, spread: float = 10) -> np.ndarray:
        """Choose a colour near one of the palette."""
        color = palette[self.rng.integers(len(palette))]
        return np.clip(color + self.rng.normal(0, spread, 3), 8, 245)

    def chance(self, p: float, *names: str) -> bool:
        """True with probability ``p``, or surely if a name is wanted."""
        drawn = self.rng.random() < p  # always drawn: keeps seeds aligned
        return bool(drawn) or any(name in self.wanted for name in names)

    def later(self, depth: float, painter, *args) -> None:
        """Queue something to be painted when its depth is reached."""
        self.queue.append((depth, len(self.queue), painter, args))

    # ---- backdrop ----------------------------------------------------------

    def paint_sky(self) -> None:
        """Paint a gradient with clouds, down to the horizon."""
        rng = self.rng
        top, low = {
            'sunny': ([92, 142, 206], [198, 214, 228]),
            'overcast': ([168, 172, 178], [206, 206, 206]),
            'dusk': ([78, 82, 118], [222, 164, 122]),
        }[self.mood]
        rows = max(1, int(self.horizon) + 8)
        t = np.linspace(0, 1, rows, dtype=np.float32)[:, None, None] ** 1.3
        sky = np.float32(top) * (1 - t) + np.float32(low) * t
        cover = rng.uniform(0.1, 0.9)
        cloud = _smooth_noise(rng, rows, self.width, 5, 12)
        cloud = np.clip((cloud - 1 + cover) * 2.2, 0, 1)[..., None]
        white = np.float32([236, 236, 238]) * (0.82 if self.mood == 'dusk' else 1)
        sky = sky * (1 - 0.75 * cloud) + white * 0.75 * cloud
        self.image[:rows] = sky
        self.label[:rows] = SKY

    def paint_skyline(self) -> None:
        """Far trees and houses around the vanishing point."""
        rng = self.rng
        for _ in range(rng.integers(5, 11)):
            z = rng.uniform(100, 138)
            x = rng.uniform(-90, 90)
            if rng.random() < 0.5:
                w, h = rng.uniform(6, 16), rng.uniform(5, 22)
                self.plate(
                    x - w,
                    x + w,
                    0,
                    h,
                    z,
                    self.shade(self.pick(_FACADES), z),
                    BUILDING,
                )
            else:
                self.crown(x, 3.5, z, rng.uniform(6, 16), 4.5, VEGETATION)

    def paint_ground(self) -> None:
        """Paint road, sidewalk and terrain, each pixel by its metres."""
        rng = self.rng
        first = int(self.horizon + self.focal * self.eye / _FAR)
        v = np.arange(first, self.height, dtype=np.float32)[:, None]
        u = np.arange(self.width, dtype=np.float32)[None]
        z = self.focal * self.eye / (v - self.horizon)
        x = (u - self.center) * z / self.focal - self.curve * z * z
        z = np.broadcast_to(z, x.shape)

        label = np.full(x.shape, TERRAIN, np.uint8)
        walk = (x > self.left - self.walk[0]) & (x < self.right + self.walk[1])
        label[walk] = SIDEWALK
        road = (x > self.left) & (x < self.right)
        if self.crossing:
            road |= (z > self.crossing) & (z < self.crossing + 7)
        label[road] = ROAD

        grey = rng.uniform(72, 128)
        tint = rng.normal(0, 4, 3)
        colors = np.zeros((3, 3), np.float32)
        colors[0] = grey + tint
        colors[1] = rng.uniform(95, 160) + tint + rng.normal(0, 6, 3)
        colors[2] = self.pick(np.float32([[84, 104, 56], [112, 108, 66], [70, 92, 48]]))
        lookup = np.zeros((256, 3), np.float32)
        lookup[[ROAD, SIDEWALK, TERRAIN]] = colors
        image = lookup[label]

        # texture that lies on the ground: a noise tile indexed by metres
        tile = rng.normal(0, 1, (128, 128)).astype(np.float32)
        tile = tile + 2.5 * cv2.GaussianBlur(tile, (0, 0), 4)
        tx = (x * 9).astype(np.int32) & 127
        tz = (z * 5).astype(np.int32) & 127
        gain = 1 + tile[tz, tx] * rng.uniform(0.03, 0.07)

        near = z < 22
        joints = (label == SIDEWALK) & near
        joints &= (np.mod(x, 0.9) < 0.07) | (np.mod(z, 0.9) < 0.09)
        gain[joints] *= 0.84
        for edge in (self.left, self.right):
            curb = (np.abs(x - edge) < 0.11) & (label == SIDEWALK)
            gain[curb] *= 1.22
        image *= gain[..., None]

        marks = np.zeros(x.shape, bool)
        middle = (self.left + self.right) / 2 + rng.normal(0, 0.3)
        dash = rng.uniform(4, 9)
        if rng.random() < 0.8:
            on = np.mod(z + rng.uniform(0, 9), dash) < dash * 0.45
            marks |= (np.abs(x - middle) < 0.08) & on
        if rng.random() < 0.5:
            marks |= np.abs(x - self.left - 0.5) < 0.07
            marks |= np.abs(x - self.right + 0.4) < 0.07
        if self.crossing and rng.random() < 0.8:
            zebra = (z > self.crossing - 3.4) & (z < self.crossing - 0.6)
            marks |= zebra & (np.mod(x, 1.0) < 0.5)
        marks &= road
        wear = rng.uniform(0.35, 0.9)
        image[marks] = image[marks] * (1 - wear) + 215 * wear
        if self.rails:
            for rail in (self.left + 0.9, self.left + 2.34):
                on = (np.abs(x - rail) < 0.05) & road
                image[on] = image[on] * 0.5 + 34

        image *= 1 - 0.45 * self.cast_shadows(first)[..., None]
        clear = np.exp(-z / self.haze_length)[..., None]
        image = image * clear + self.haze * (1 - clear)
        self.image[first:] = np.clip(image, 0, 255)
        self.label[first:] = label

    def cast_shadows(self, first: int) -> np.ndarray:
        """Shadow strength, 0 to 1, on the ground rows from ``first`` on."""
        mask = np.zeros((self.height, self.width), np.uint8)
        if self.mood == 'sunny':
            reach = self.rng.uniform(0.15, 0.7)
            edge = self.edges[0 if self.sun < 0 else 1]
            for side, z0, z1, kind, size in self.side:
                if side == self.sun and kind in ('building', 'trees'):
                    end = edge - self.sun * size * reach
                    corners = self.project([edge, edge, end, end], 0, [z0, z1, z1, z0])
                    cv2.fillPoly(mask, [corners], 255)
        strength = 255 if self.mood == 'sunny' else 170
        for x, z, w, length in self.footprints:
            shift = -self.sun * 0.5 * w if self.mood == 'sunny' else 0
            xs = np.array([x - w, x + w, x + w, x - w]) * 1.0
            xs[2:] += shift
            corners = self.project(xs, 0, [z - 0.3, z - 0.3, z + length, z + length])
            cv2.fillPoly(mask, [corners], strength)
        mask = cv2.blur(mask[first:], (5, 3))
        return mask.astype(np.float32) / 255

    # ---- the sides of the street -------------------------------------------

    def plan_sides(self) -> None:
        """Choose what lines the street: (side, z0, z1, kind, size)."""
        rng = self.rng
        self.side = []
        kinds = ['building', 'trees', 'wall', 'fence', 'open']
        for side in (-1, 1):
            z = rng.uniform(1.5, 5)
            forced = [k for k in ('wall', 'fence') if k in self.wanted]
            if side < 0:
                forced = forced[:1]
            while z < 120:
                length = rng.uniform(7, 20) * (1 + z / 90)
                kind = rng.choice(kinds, p=[0.58, 0.16, 0.1, 0.1, 0.06])
                if forced and z > 4:
                    kind = forced.pop()
                size = {
                    'building': rng.uniform(5, 22),
                    'trees': rng.uniform(4, 9),
                    'wall': rng.uniform(1.2, 3.2),
                    'fence': rng.uniform(0.9, 1.9),
                    'open': 0,
                }[str(kind)]
                blocked = self.crossing and (
                    z < self.crossing + 8 and z + length > self.crossing - 1
                )
                if blocked:
                    if z < self.crossing - 5:
                        length = self.crossing - 1 - z
                    else:
                        z = self.crossing + 8
                        continue
                self.side.append((side, z, z + length, str(kind), size))
                z += length + (0.0 if rng.random() < 0.7 else 1.5)

    def queue_sides(self) -> None:
        """Queue what :meth:`plan_sides` has chosen."""
        for side, z0, z1, kind, size in self.side:
            edge = self.edges[0 if side < 0 else 1]
            painter = getattr(self, 'paint_' + kind, None)
            if painter:
                # the far end decides: what stands before it is in front
                self.later(z1, painter, side, edge, z0, z1, size)
            if kind in ('wall', 'fence', 'open') and self.rng.random() < 0.8:
                for _ in range(self.rng.integers(1, 4)):
                    x = edge + side * self.rng.uniform(2.5, 9)
                    z = self.rng.uniform(z0, z1) + 1
                    self.later(z1 + 0.5, self.paint_tree, x, z)

    def paint_building(self, side, edge, z0, z1, size) -> None:
        """Paint a house: its front and its long face to the street."""
        rng = self.rng
        base = self.pick(_FACADES, 14)
        lit = 1.12 if side != self.sun else 0.74
        if self.mood != 'sunny':
            lit = rng.uniform(0.85, 1.0)
        back = edge + side * 14
        self.plate(edge, back, 0, size, z0, self.shade(base, z0, 0.9), BUILDING)
        # the long face, in slices so that haze grows with depth
        cuts = np.linspace(z0, z1, 4)
        for a, b in zip(cuts[:-1], cuts[1:], strict=True):
            self.quad(
                [edge] * 4,
                [0, 0, size, size],
                [a, b, b, a],
                self.shade(base, (a + b) / 2, lit),
                BUILDING,
            )
        mid = (z0 + z1) / 2
        trim = self.shade(base * rng.uniform(0.6, 1.25), mid, lit)
        for y in (size - 0.5, 3.4):
            self.quad([edge] * 4, [y, y, y + 0.4, y + 0.4], [z0, z1, z1, z0], trim)
        self.windows(edge, z0, z1, size, lit)
        shop = self.shade(self.pick(_PAINTS, 14), mid, lit * 0.7)
        if rng.random() < 0.5:
            self.quad([edge] * 4, [0.3, 0.3, 2.8, 2.8], [z0, z1, z1, z0], shop)
        if rng.random() < 0.3 and z1 - z0 > 6:
            # an advertisement: as bright as a sign, but on a building
            a = rng.uniform(z0, z1 - 4)
            self.quad(
                [edge] * 4,
                [3, 3, 4.2, 4.2],
                [a, a + 3.5, a + 3.5, a],
                self.shade(rng.uniform(20, 250, 3), a, lit),
            )

    def windows(self, edge, z0, z1, size, lit) -> None:
        """Paint the windows of a long face."""
        rng = self.rng
        pitch = rng.uniform(2.0, 3.4)
        if self.focal * abs(edge) * pitch / z1**2 < 2 and z0 > 50:
            return  # too small to show
        z = np.arange(z0 + 0.6, z1 - 1.2, pitch)
        y = np.arange(3.9, size - 1.8, rng.uniform(2.7, 3.4))
        if not len(z) or not len(y):
            return
        z, y = (a.ravel() for a in np.meshgrid(z, y))
        wide, high = rng.uniform(0.8, pitch - 0.6), rng.uniform(1.1, 1.9)
        corners = self.project(
            edge,
            np.stack([y, y, y + high, y + high], -1),
            np.stack([z, z + wide, z + wide, z], -1),
        )
        glow = rng.random(len(z)) < (0.4 if self.mood == 'dusk' else 0.12)
        dark = self.shade(rng.uniform(30, 95, 3), (z0 + z1) / 2, lit)
        if (~glow).any():
            self.fill(corners[~glow], dark)
        if glow.any():
            self.fill(corners[glow], self.shade([222, 206, 160], (z0 + z1) / 2, 1))

    def paint_wall(self, side, edge, z0, z1, size) -> None:
        """Paint a wall along the street."""
        rng = self.rng
        base = rng.uniform(85, 165) + rng.normal(0, 8, 3)
        lit = 1.1 if side != self.sun else 0.78
        cuts = np.linspace(z0, z1, 4)
        for a, b in zip(cuts[:-1], cuts[1:], strict=True):
            color = self.shade(base, (a + b) / 2, lit)
            self.quad([edge] * 4, [0, 0, size, size], [a, b, b, a], color, WALL)
        cap = self.shade(base * 1.2, (z0 + z1) / 2, lit)
        self.quad(
            [edge] * 4,
            [size - 0.15, size - 0.15, size, size],
            [z0, z1, z1, z0],
            cap,
        )
        joint = self.shade(base * 0.8, (z0 + z1) / 2, lit)
        z = np.arange(z0, z1, rng.uniform(1.2, 3))
        bars = self.project(
            edge,
            np.array([0, 0, size - 0.2, size - 0.2]),
            np.stack([z, z + 0.08, z + 0.08, z], -1),
        )
        self.fill(bars, joint)

    def paint_fence(self, side, edge, z0, z1, size) -> None:
        """Pickets and rails; what shows between them is labelled fence."""
        rng = self.rng
        base = self.pick(np.float32([[60, 62, 60], [140, 142, 144], [96, 74, 54]]))
        color = self.shade(base, (z0 + z1) / 2)
        outline = self.project([edge] * 4, [0, 0, size, size], [z0, z1, z1, z0])
        cv2.fillPoly(self.label, [outline], FENCE)
        z = np.arange(z0, min(z1, z0 + 60), rng.uniform(0.18, 0.5))
        thick = rng.uniform(0.05, 0.11)
        bars = self.project(
            edge,
            np.array([0, 0, size, size]),
            np.stack([z, z + thick, z + thick, z], -1),
        )
        for bar in bars:  # narrow bars may touch: one by one
            cv2.fillPoly(self.image, [bar], color)
        for y in (0.15, size - 0.12):
            self.quad([edge] * 4, [y, y, y + 0.1, y + 0.1], [z0, z1, z1, z0], color)

    def paint_trees(self, side, edge, z0, z1, size) -> None:
        """Paint a row of trees without trunks, as of a park."""
        rng = self.rng
        for z in np.linspace(z1, z0 + 1, max(2, int((z1 - z0) / 3.5))):
            x = edge + side * rng.uniform(0.5, 3)
            y = size * rng.uniform(0.4, 0.6)
            self.crown(x, y, z, size * 0.45, y, VEGETATION)

    def crown(self, x, y, z, rx, ry, label) -> None:
        """Paint foliage: dark lumps first, light ones on top."""
        rng = self.rng
        base = self.pick(
            np.float32([[58, 82, 40], [74, 92, 52], [92, 96, 46], [46, 66, 44]])
        )
        count = 9 if z < 60 else 5
        angle = np.linspace(0, 2 * np.pi, 15)[:-1]
        for i in range(count):
            ox, oy = rng.uniform(-0.62, 0.62, 2)
            radius = rng.uniform(0.32, 0.6) * rng.uniform(0.8, 1.2, 14)
            light = 0.6 + 0.6 * i / count + 0.12 * (oy > 0)
            self.fill(
                self.project(
                    x + rx * (ox + radius * np.cos(angle)),
                    np.maximum(y + ry * (oy + radius * np.sin(angle)), 0),
                    z,
                ),
                self.shade(base, z, light),
                label,
            )

    def paint_tree(self, x, z) -> None:
        """Paint a street tree."""
        rng = self.rng
        top = rng.uniform(4, 8.5)
        bark = self.shade(rng.uniform(50, 105) + np.float32([8, 0, -8]), z, 0.9)
        w = rng.uniform(0.1, 0.26)
        self.quad(
            [x - w, x + w, x + w * 0.6, x - w * 0.6],
            [0, 0, top * 0.6, top * 0.6],
            [z] * 4,
            bark,
            VEGETATION,
        )
        self.crown(x, top * 0.68, z, rng.uniform(1.1, 2.4), top * 0.3, VEGETATION)

    # ---- things on poles ---------------------------------------------------

    def pole(self, x, z, top, thick) -> tuple:
        """Paint a pole and return its colour."""
        color = self.shade(
            self.pick(
                np.float32(
                    [[98, 102, 104], [58, 60, 62], [150, 152, 150], [92, 84, 70]]
                )
            ),
            z,
        )
        self.stroke([(x, 0), (x, top)], z, thick, color, POLE)
        return color

    def paint_lamp(self, x, z) -> None:
        """Paint a street lamp; all of it is pole."""
        rng = self.rng
        top, thick = rng.uniform(5, 9), rng.uniform(0.09, 0.17)
        color = self.pole(x, z, top, thick)
        reach = -np.sign(x) * rng.uniform(0.8, 2.2)
        arm = [(x, top), (x + reach * 0.4, top + 0.35), (x + reach, top + 0.4)]
        self.stroke(arm, z, thick * 0.7, color, POLE)
        head = x + reach
        glow = [250, 226, 170] if self.mood == 'dusk' else [150, 150, 146]
        self.plate(
            head - 0.35,
            head + 0.25,
            top + 0.22,
            top + 0.45,
            z,
            self.shade(glow, z),
            POLE,
        )

    def paint_bare_pole(self, x, z) -> None:
        """Paint a pole that carries nothing."""
        rng = self.rng
        self.pole(x, z, rng.uniform(3, 9), rng.uniform(0.08, 0.2))

    def paint_sign(self, x, z) -> None:
        """Paint a traffic sign on its pole."""
        rng = self.rng
        top = rng.uniform(2.1, 3.4)
        self.pole(x, z, top, rng.uniform(0.06, 0.11))
        kind, r = rng.integers(5), rng.uniform(0.28, 0.42)
        red = self.shade([186, 32, 36], z)
        white = self.shade([226, 226, 220], z)
        if kind == 0:
            self.disc(x, top, z, r, r, red, SIGN)
            self.disc(x, top, z, r * 0.66, r * 0.66, white)
        elif kind == 1:
            for scale, color, lab in ((1.15, red, SIGN), (0.62, white, None)):
                a = r * scale
                self.fill(
                    self.project(
                        np.array([x - a, x + a, x]),
                        np.array([top - a * 0.7, top - a * 0.7, top + a]),
                        z,
                    ),
                    color,
                    lab,
                )
        elif kind == 2:
            w = r * rng.uniform(0.9, 2.2)
            board = self.shade(
                self.pick(np.float32([[32, 72, 150], [30, 98, 66], [214, 180, 40]])),
                z,
            )
            self.plate(x - w, x + w, top - r, top + r, z, board, SIGN)
            for y in (-0.3, 0.25):
                self.stroke(
                    [(x - w * 0.7, top + y * r), (x + w * 0.6, top + y * r)],
                    z,
                    0.05,
                    white,
                )
        elif kind == 3:
            self.fill(
                self.project(
                    np.array([x - r, x, x + r, x]),
                    np.array([top, top - r, top, top + r]),
                    z,
                ),
                self.shade([216, 176, 40], z),
                SIGN,
            )
        else:  # seen from behind
            self.disc(x, top, z, r, r, self.shade([128, 130, 130], z), SIGN)

    def paint_light(self, x, z) -> None:
        """Paint traffic lights on their pole or mast."""
        rng = self.rng
        top = rng.uniform(2.6, 3.6)
        thick = rng.uniform(0.09, 0.15)
        if rng.random() < 0.35:  # a mast with an arm over the road
            high = rng.uniform(5.2, 6.2)
            color = self.pole(x, z, high, thick * 1.2)
            end = x - np.sign(x) * rng.uniform(2, 4.5)
            self.stroke([(x, high), (end, high)], z, thick, color, POLE)
            self.lantern(end, high + 0.1, z)
        else:
            self.pole(x, z, top, thick)
        self.lantern(x, top, z)

    def lantern(self, x, y, z) -> None:
        """Paint the box of a traffic light, one lamp lit."""
        rng = self.rng
        w = rng.uniform(0.15, 0.21)
        dark = self.shade(self.pick(np.float32([[30, 32, 30], [62, 64, 50]]), 5), z)
        self.plate(x - w, x + w, y - 0.95, y + 0.1, z, dark, LIGHT)
        lit = rng.integers(3)
        lamps = ([220, 40, 36], [232, 170, 40], [60, 214, 130])
        for i, lamp in enumerate(lamps):
            glow = 1.0 if i == lit else 0.22
            self.disc(
                x,
                y - 0.12 - 0.3 * i,
                z,
                w * 0.62,
                w * 0.62,
                self.shade(np.float32(lamp) * glow, z),
            )

    # ---- people ------------------------------------------------------------

    def paint_person(self, x, z) -> None:
        """Paint somebody who walks or stands."""
        rng = self.rng
        h = rng.uniform(1.5, 1.92) * (0.68 if rng.random() < 0.12 else 1)
        coat = self.shade(self.pick(_CLOTHES), z, rng.uniform(0.7, 1.05))
        legs = self.shade(self.pick(_CLOTHES), z, 0.7)
        skin = self.shade(rng.uniform([120, 78, 58], [226, 178, 148]), z, 0.95)
        step = rng.uniform(-0.14, 0.14)
        wide = rng.uniform(0.11, 0.15)
        for foot in (step, -step):
            self.stroke(
                [(x, 0.5 * h), (x + foot * h, 0.02 * h)],
                z,
                0.085 * h,
                legs,
                PERSON,
            )
        swing = rng.uniform(-0.16, 0.16)
        for arm in (swing, -swing):
            self.stroke(
                [
                    (x + np.sign(arm) * wide * h, 0.8 * h),
                    (x + np.sign(arm) * wide * h + arm * h * 0.6, 0.48 * h),
                ],
                z,
                0.06 * h,
                coat,
                PERSON,
            )
        xs = x + h * wide * np.array([-0.8, 0.8, 1, 0.55, -0.55, -1])
        ys = h * np.array([0.46, 0.46, 0.78, 0.85, 0.85, 0.78])
        self.fill(self.project(xs, ys, z), coat, PERSON)
        self.disc(x, 0.92 * h, z, 0.058 * h, 0.075 * h, skin, PERSON)
        hair = self.shade(rng.uniform([20, 16, 12], [110, 84, 56]), z)
        self.disc(x, 0.955 * h, z, 0.056 * h, 0.042 * h, hair, PERSON)
        if rng.random() < 0.3:
            bag = self.shade(self.pick(_CLOTHES), z, 0.8)
            a = x + np.sign(swing) * 0.2 * h
            self.plate(a - 0.09, a + 0.09, 0.32 * h, 0.47 * h, z, bag, PERSON)

    def paint_cycle(self, x, z, motor: bool, ridden: bool) -> None:
        """A bicycle or motorcycle, seen at an angle, with or without rider."""
        rng = self.rng
        label = MOTORCYCLE if motor else BICYCLE
        turn = rng.choice([-1, 1]) * rng.uniform(0.3, 1.0)
        base, r = (0.66 * turn, 0.3) if motor else (0.52 * turn, 0.34)
        tyre = self.shade([34, 34, 36], z)
        paint = self.shade(self.pick(_PAINTS, 14), z)
        metal = self.shade([150, 152, 154], z)
        for side in (-1, 1):
            wheel = x + side * base
            spokes = self.shade([104, 104, 102], z)
            self.disc(wheel, r, z, r * abs(turn), r, spokes, label)
            thick = max(2, round((0.1 if motor else 0.045) * self.focal / z))
            self.disc(wheel, r, z, r * abs(turn), r, tyre, label, thick)
        if motor:
            xs = x + turn * np.array([-0.75, -0.3, 0.25, 0.55, 0.3, -0.45])
            ys = np.array([0.72, 0.3, 0.25, 0.75, 0.98, 0.82])
            self.fill(self.project(xs, ys, z), paint, label)
            self.stroke(
                [(x - 0.6 * turn, 0.86), (x - 0.1 * turn, 0.84)],
                z,
                0.13,
                tyre,
                label,
            )
            self.stroke(
                [(x + 0.66 * turn, 0.32), (x + 0.42 * turn, 1.08)],
                z,
                0.08,
                metal,
                label,
            )
            saddle = 0.9
        else:
            frame = [
                (x - base, r),
                (x - 0.1 * turn, 0.32),
                (x + 0.36 * turn, 0.82),
                (x - 0.18 * turn, 0.78),
                (x - base, r),
            ]
            self.stroke(frame, z, 0.05, paint, label)
            fork = [
                (x + base, r),
                (x + 0.36 * turn, 0.98),
                (x + 0.24 * turn, 1.02),
            ]
            self.stroke(fork, z, 0.05, metal, label)
            self.stroke(
                [(x - 0.1 * turn, 0.32), (x - 0.2 * turn, 0.94)],
                z,
                0.05,
                metal,
                label,
            )
            saddle = 0.96
        if not ridden:
            return
        coat = self.shade(self.pick(_CLOTHES), z)
        legs = self.shade(self.pick(_CLOTHES), z, 0.75)
        hip, neck = (x - 0.22 * turn, saddle), (x + 0.08 * turn, saddle + 0.56)
        self.stroke(
            [hip, (x + 0.12 * turn, 0.66), (x - 0.04 * turn, 0.26)],
            z,
            0.15,
            legs,
            RIDER,
        )
        self.stroke([hip, neck], z, 0.3, coat, RIDER)
        self.stroke([neck, (x + 0.36 * turn, 1.08)], z, 0.1, coat, RIDER)
        head = (
            rng.uniform(20, 230, 3)
            if motor or rng.random() < 0.5
            else rng.uniform([110, 74, 56], [220, 176, 146])
        )
        r = 0.14 if motor else 0.115
        self.disc(
            x + 0.14 * turn, saddle + 0.74, z, r, r * 1.1, self.shade(head, z), RIDER
        )

    # ---- vehicles ----------------------------------------------------------

    def box(self, x0, x1, y0, y1, z0, z1, color, label, taper=0.0) -> None:
        """Paint the visible faces of a box; the top may be narrower."""
        a, b = x0 + taper, x1 - taper
        f, g = z0 + taper, z1 - taper
        bend0, bend1 = self.curve * z0 * z0, self.curve * z1 * z1
        left_lit = 1.05 if self.sun < 0 else 0.7
        if y1 < self.eye:
            self.quad(
                [a, b, b, a], [y1] * 4, [f, f, g, g],
                self.shade(color, z0, 1.15), label,
            )  # fmt: skip
        if x0 + bend1 > 0 or x0 + bend0 > 0:
            self.quad(
                [x0, x0, a, a], [y0, y0, y1, y1], [z0, z1, g, f],
                self.shade(color, z0, left_lit), label,
            )  # fmt: skip
        if x1 + bend1 < 0 or x1 + bend0 < 0:
            self.quad(
                [x1, x1, b, b], [y0, y0, y1, y1], [z0, z1, g, f],
                self.shade(color, z0, 1.75 - left_lit), label,
            )  # fmt: skip
        self.quad(
            [x0, x1, b, a], [y0, y0, y1, y1], [z0, z0, f, f],
            self.shade(color, z0, 0.9), label,
        )  # fmt: skip

    def side_x(self, x0, x1, z):
        """The side of a vehicle that is seen, or None from straight behind."""
        bend = self.curve * z * z
        if x0 + bend > 0:
            return x0
        return x1 if x1 + bend < 0 else None

    def wheels(self, x0, x1, z0, z1, label, radius=0.32) -> None:
        """Paint the wheels of a vehicle that are seen."""
        black = self.shade([22, 22, 24], z0)
        w = 0.22
        for x in (x0 + 0.08, x1 - 0.08 - w):
            self.plate(x, x + w, 0, radius * 1.3, z0 + 0.1, black, label)
        side = self.side_x(x0, x1, z0)
        if side is None:
            return
        length = z1 - z0
        angle = np.linspace(0, 2 * np.pi, 13)[:-1]
        rim = self.shade([120, 122, 124], z0)
        for place in (0.2, 0.8):
            z = z0 + place * length
            for r, color, lab in (
                (radius, black, label),
                (radius * 0.5, rim, None),
            ):
                self.fill(
                    self.project(
                        side,
                        radius + r * np.sin(angle),
                        z + r * np.cos(angle),
                    ),
                    color,
                    lab,
                )

    def lamps(self, x0, x1, y, z, away: bool, size=0.14) -> None:
        """Paint tail lamps or headlamps."""
        if away:
            color = [198, 28, 30] if self.rng.random() < 0.6 else [120, 20, 24]
        else:
            color = [250, 246, 220] if self.mood == 'dusk' else [212, 214, 210]
        color = self.shade(color, z)
        for x in (x0 + 0.1, x1 - 0.1 - 1.8 * size):
            self.plate(x, x + 1.8 * size, y, y + size, z, color)

    def paint_car(self, x, z, away: bool) -> None:
        """Paint a car that drives away or comes near."""
        rng = self.rng
        w = rng.uniform(0.82, 0.95)
        length = rng.uniform(3.6, 4.7)
        tall = rng.uniform(1.38, 1.8)
        x0, x1, z1 = x - w, x + w, z + length
        waist = tall * rng.uniform(0.56, 0.63)
        paint = self.pick(_PAINTS, 12)
        self.wheels(x0, x1, z, z1, CAR)
        self.box(x0, x1, 0.22, waist, z, z1, paint, CAR)
        back = z + (0.15 if away else 1.0)
        front = z1 - (1.1 if away else 0.2)
        taper = tall - waist
        roof = 0.42 * taper
        self.box(x0 + 0.04, x1 - 0.04, waist, tall, back, front, paint, CAR, roof)
        glass = self.shade(rng.uniform([34, 40, 46], [96, 108, 118]), z, 0.9)
        low, high = waist + 0.12 * taper, tall - 0.14 * taper
        a, b = 0.04 + roof * 0.12 + 0.08, 0.04 + roof * 0.86 + 0.08
        self.quad(
            [x0 + a, x1 - a, x1 - b, x0 + b],
            [low, low, high, high],
            [back + a - 0.1, back + a - 0.1, back + b - 0.1, back + b - 0.1],
            glass,
        )
        side = self.side_x(x0 + 0.04, x1 - 0.04, z)
        if side is not None:
            inward = 1 if side < x else -1
            cut = (back + front) / 2
            for p, q in ((back + 0.35, cut - 0.06), (cut + 0.06, front - 0.35)):
                self.quad(
                    [side + inward * a * 0.5] * 2 + [side + inward * b * 0.85] * 2,
                    [low, low, high, high],
                    [p, q, q - 0.1, p + 0.2],
                    glass,
                )
        self.lamps(x0, x1, waist * 0.76, z, away)
        self.plate(x - 0.26, x + 0.26, 0.42, 0.54, z, self.shade([214, 210, 190], z))
        self.plate(x0, x1, 0.22, 0.34, z, self.shade(paint * 0.45, z))

    def paint_profile(self, x, z, forward: int) -> None:
        """A car across the street, seen from its side."""
        rng = self.rng
        paint = self.pick(_PAINTS, 12)
        tall = rng.uniform(1.4, 1.65)
        d = forward
        body = np.array([-2.1, -2.05, -1.1, 1.0, 2.0, 2.15, 2.15, -2.1])
        heights = np.array([0.5, 0.9, 0.95, 0.92, 0.76, 0.6, 0.24, 0.24])
        self.fill(self.project(x + d * body, heights, z), self.shade(paint, z), CAR)
        self.fill(
            self.project(
                x + d * np.array([-1.75, -1.15, 0.35, 1.1]),
                np.array([0.9, tall, tall, 0.9]),
                z,
            ),
            self.shade(paint, z, 0.95),
            CAR,
        )
        glass = self.shade(rng.uniform([34, 40, 46], [90, 100, 110]), z)
        for p in ([-1.45, -1.05, -0.4, -0.4], [-0.28, -0.28, 0.3, 0.82]):
            self.fill(
                self.project(
                    x + d * np.array(p),
                    np.array([0.96, tall - 0.1, tall - 0.1, 0.96]),
                    z,
                ),
                glass,
            )
        for wheel in (-1.3, 1.3):
            black = self.shade([22, 22, 24], z)
            self.disc(x + d * wheel, 0.32, z, 0.32, 0.32, black, CAR)
            rim = self.shade([128, 130, 132], z)
            self.disc(x + d * wheel, 0.32, z, 0.17, 0.17, rim)

    def paint_truck(self, x, z, away: bool) -> None:
        """Paint a truck that drives away or comes near."""
        rng = self.rng
        w, tall, length = 1.2, rng.uniform(2.9, 3.7), rng.uniform(5.5, 8.5)
        x0, x1, z1 = x - w, x + w, z + length
        cargo, cab = self.pick(_PAINTS, 12), self.pick(_PAINTS, 12)
        dark = np.float32([36, 36, 38])
        self.wheels(x0, x1, z, z1, TRUCK, 0.45)
        if away:
            self.box(x0 + 0.1, x1 - 0.1, 0.5, 2.4, z1, z1 + 1.9, cab, TRUCK)
            self.box(x0 + 0.1, x1 - 0.1, 0.4, 0.95, z, z1, dark, TRUCK)
            self.box(x0, x1, 0.95, tall, z, z1, cargo, TRUCK)
            line = self.shade(cargo * 0.6, z)
            self.stroke([(x, 1.0), (x, tall - 0.05)], z, 0.05, line)
            for y in (1.6, tall - 0.5):
                self.stroke([(x0 + 0.1, y), (x1 - 0.1, y)], z, 0.04, line)
            self.lamps(x0, x1, 0.62, z, True, 0.13)
        else:
            self.box(x0, x1, 0.95, tall, z + 2.2, z1, cargo, TRUCK)
            self.box(x0 + 0.05, x1 - 0.05, 0.35, 2.7, z, z + 2, cab, TRUCK)
            glass = self.shade([48, 56, 62], z)
            self.plate(x0 + 0.18, x1 - 0.18, 1.65, 2.45, z, glass)
            grill = self.shade(dark, z)
            self.plate(x - 0.6, x + 0.6, 0.7, 1.3, z, grill)
            self.lamps(x0, x1, 0.55, z, False, 0.2)

    def paint_coach(self, x, z, away: bool, label: int) -> None:
        """A bus, or a tram as the train of the street."""
        rng = self.rng
        bus = label == BUS
        w = 1.26
        tall = rng.uniform(2.9, 3.2) if bus else rng.uniform(3.3, 3.7)
        length = rng.uniform(9, 12) if bus else rng.uniform(20, 32)
        x0, x1, z1 = x - w, x + w, z + length
        paint = self.pick(_PAINTS, 12)
        stripe = self.pick(_PAINTS, 12)
        if bus:
            self.wheels(x0, x1, z, z1, BUS, 0.48)
        self.box(x0, x1, 0.3 if bus else 0.16, tall, z, z1, paint, label)
        glass = self.shade(rng.uniform([30, 36, 42], [80, 92, 100]), z)
        side = self.side_x(x0, x1, z)
        if side is not None:
            self.quad(
                [side] * 4, [0.75, 0.75, 1.05, 1.05], [z, z1, z1, z],
                self.shade(stripe, z, 0.9),
            )  # fmt: skip
            panes = np.arange(z + 0.5, z1 - 1.4, 1.7)
            corners = self.project(
                side,
                np.array([1.4, 1.4, tall - 0.55, tall - 0.55]),
                np.stack([panes, panes + 1.45, panes + 1.45, panes], -1),
            )
            self.fill(corners, glass)
        low = 1.1 if not away or not bus else 1.7
        self.plate(x0 + 0.14, x1 - 0.14, low, tall - 0.5, z, glass)
        if not bus:
            self.stroke([(x, tall - 0.5), (x, low)], z, 0.05, self.shade(paint, z))
        self.plate(x0, x1, 0.72, 0.95, z, self.shade(stripe, z))
        board = [236, 190, 60] if rng.random() < 0.7 else [40, 40, 40]
        self.plate(x - 0.7, x + 0.7, tall - 0.4, tall - 0.15, z, self.shade(board, z))
        self.lamps(x0, x1, 0.5, z, away, 0.16)
        if not bus:  # the pantograph
            arm = [(x, tall), (x + 0.5, tall + 0.6), (x - 0.1, tall + 1.1)]
            self.stroke(arm, z + 6, 0.06, self.shade([60, 60, 62], z), TRAIN)

    def paint_bin(self, x, z) -> None:
        """Street furniture without a class: unlabelled."""
        rng = self.rng
        h, w = rng.uniform(0.7, 1.3), rng.uniform(0.22, 0.5)
        color = self.pick(_PAINTS, 14)
        self.box(x - w, x + w, 0, h, z, z + 2 * w, color, VOID)
        lid = self.shade(color * 0.6, z)
        self.plate(x - w, x + w, h - 0.12, h, z, lid)

    # ---- composition -------------------------------------------------------

    def populate(self) -> None:
        """Choose what stands on the street and where."""
        rng = self.rng
        self.footprints = []  # (x, z, half width, length) of shadows

        def add(painter, x, z, *args, w=0.3, length=0.4):
            self.later(z, painter, x, z, *args)
            self.footprints.append((x, z, w, length))

        def on_walk(side, low=0.3, high=None):
            i = 0 if side < 0 else 1
            edge = self.left if side < 0 else self.right
            high = self.walk[i] if high is None else high
            return edge + side * rng.uniform(low, high)

        # poles, lamps, signs and lights, along both curbs
        for side in (-1, 1):
            z = rng.uniform(5, 14)
            gap = rng.uniform(9, 20)
            row = rng.choice(['lamp', 'bare_pole', 'tree', 'none'],
                             p=[0.45, 0.2, 0.2, 0.15])  # fmt: skip
            offset = rng.uniform(0.3, 0.8)
            edge = self.left if side < 0 else self.right
            while z < 95 and row != 'none':
                add(
                    getattr(self, f'paint_{row}'),
                    edge + side * offset,
                    z,
                    w=0.12,
                )
                z += gap * rng.uniform(0.85, 1.15)
            for _ in range(rng.integers(1, 5)):
                add(self.paint_sign, on_walk(side, 0.2, 1.2),
                    rng.uniform(5, 45), w=0.1)  # fmt: skip
            if rng.random() < 0.5:
                add(self.paint_bare_pole, on_walk(side), rng.uniform(5, 50), w=0.1)
            for _ in range(rng.integers(0, 3)):
                add(self.paint_bin, on_walk(side, 0.8), rng.uniform(6, 28),
                    w=0.4, length=0.8)  # fmt: skip
        if self.chance(0.45, 'light') or self.crossing:
            z = self.crossing - 1 if self.crossing else rng.uniform(9, 30)
            for side in (-1, 1):
                add(self.paint_light, on_walk(side, 0.2, 0.9), z, w=0.1)

        # a rail between road and sidewalk
        if rng.random() < 0.15:
            side = rng.choice([-1, 1])
            edge = (self.left if side < 0 else self.right) + side * 0.35
            z = rng.uniform(8, 25)
            while z < 60 and not (self.crossing and z + 6 > self.crossing):
                self.later(z + 5, self.paint_fence, side, edge, z, z + 5, 0.95)
                z += 5

        # traffic
        lanes = [(self.right - 1.6 - rng.uniform(0, 0.5), True)]
        oncoming = self.left + 1.6 + (3.2 if self.rails else 0)
        if lanes[0][0] - oncoming > 2.6:
            lanes.append((oncoming + rng.uniform(0, 0.4), False))
        big = [k for k in ('truck', 'bus') if self.chance(0.17, k)]
        rng.shuffle(big)
        for lane, (x, away) in enumerate(lanes):
            lead = big and (lane == len(lanes) - 1 or rng.random() < 0.5)
            # a big vehicle leads its lane, so that it is seen
            z = rng.uniform(4, 12) if lead else rng.uniform(7, 22)
            while z < 95:
                kind = 'car'
                if big and (lead or lane == len(lanes) - 1):
                    kind, lead = big.pop(), False
                elif rng.random() < 0.05:
                    kind = str(rng.choice(['truck', 'bus']))
                jitter = x + rng.normal(0, 0.15)
                if kind == 'truck':
                    z += 4
                    add(self.paint_truck, jitter, z, away, w=1.25, length=8)
                    z += 10
                elif kind == 'bus':
                    z += 4
                    add(self.paint_coach, jitter, z, away, BUS, w=1.3, length=11)
                    z += 13
                else:
                    add(self.paint_car, jitter, z, away, w=0.95, length=4.3)
                    z += 5
                z += rng.exponential(14) + 2
        for side, x in ((1, self.right - 0.2), (-1, self.left + 0.2)):
            # parked cars, half on the curb
            if rng.random() < (0.0 if self.rails and side < 0 else 0.4):
                z = rng.uniform(7, 20)
                for _ in range(rng.integers(1, 6)):
                    add(self.paint_car, x + side * 0.95, z, side > 0,
                        w=0.95, length=4.3)  # fmt: skip
                    z += rng.uniform(5, 7.5)
        if self.chance(0.06, 'train') and self.rails:
            add(self.paint_coach, self.left + 1.62, rng.uniform(9, 26),
                bool(rng.random() < 0.4), TRAIN, w=1.3, length=25)  # fmt: skip
        if self.crossing and rng.random() < 0.6:
            d = int(rng.choice([-1, 1]))
            add(self.paint_profile, rng.uniform(-10, 10),
                self.crossing + (2 if d > 0 else 4.5), d,
                w=2.1, length=0.8)  # fmt: skip

        # people, alone and in groups, near and far
        for _ in range(rng.integers(2, 8)):
            side = rng.choice([-1, 1])
            z = float(np.exp(rng.uniform(np.log(5), np.log(50))))
            x = on_walk(side, 0.4)
            for _ in range(rng.integers(1, 4)):
                add(self.paint_person, x, z, w=0.22)
                x += rng.uniform(0.4, 0.8) * rng.choice([-1, 1])
                z += rng.uniform(-0.4, 1.2)
        if self.crossing and rng.random() < 0.5:
            for _ in range(rng.integers(1, 4)):
                add(self.paint_person, rng.uniform(self.left, self.right),
                    self.crossing - rng.uniform(1, 3), w=0.22)  # fmt: skip
        for motor, name in ((False, 'bicycle'), (True, 'motorcycle')):
            count = rng.integers(1, 4) if self.chance(0.35, name) else 0
            for _ in range(count):
                side = rng.choice([-1, 1])
                add(self.paint_cycle, on_walk(side, 0.2, 1.4),
                    rng.uniform(6, 24), motor, False, w=0.4)  # fmt: skip
        if self.chance(0.4, 'rider'):
            for _ in range(rng.integers(1, 4)):
                x = rng.choice([self.right - 0.5, self.left + 0.7])
                motor = rng.random() < 0.4
                add(self.paint_cycle, x + rng.normal(0, 0.3),
                    rng.uniform(6, 24), motor, True, w=0.4)  # fmt: skip

    def paint_hood(self) -> None:
        """The camera's own car, at the bottom: unlabelled."""
        rng = self.rng
        axes = (int(self.width * rng.uniform(0.55, 0.75)),
                int(self.height * rng.uniform(0.08, 0.15)))  # fmt: skip
        spot = (int(self.width * rng.uniform(0.45, 0.55)), self.height)
        color = self.pick(_PAINTS[2:8], 8)
        tone = tuple(float(v) for v in color * 0.5)
        gloss = tuple(float(v) for v in color * 0.5 * 0.6 + self.haze * 0.3)
        cv2.ellipse(self.image, spot, axes, 0, 180, 360, tone, -1)
        inner = (int(axes[0] * 0.8), int(axes[1] * 0.6))
        cv2.ellipse(self.image, spot, inner, 0, 180, 360, gloss, -1)
        cv2.ellipse(self.label, spot, axes, 0, 180, 360, VOID, -1)

    def paint_wires(self) -> None:
        """Cables over the street: seen, but of no class of their own."""
        rng = self.rng
        for _ in range(rng.integers(1, 4)):
            ends = rng.uniform(-0.1, 0.35, 2) * self.height
            sag = rng.uniform(0.02, 0.1) * self.height
            t = np.linspace(0, 1, 16)
            v = ends[0] * (1 - t) + ends[1] * t + sag * 4 * t * (1 - t)
            points = np.stack([t * self.width, v], -1).astype(np.int32)
            tone = float(rng.uniform(30, 80))
            cv2.polylines(self.image, [points], False, (tone,) * 3, 1)

    def develop(self) -> tuple[np.ndarray, np.ndarray]:
        """Texture, downsampling and the flaws of a camera."""
        rng = self.rng
        h, w = self.height // SUPERSAMPLING, self.width // SUPERSAMPLING
        label = np.ascontiguousarray(self.label[::SUPERSAMPLING, ::SUPERSAMPLING])
        image = cv2.resize(self.image, (w, h), interpolation=cv2.INTER_AREA)
        image = image.astype(np.float32)

        # roughness of surfaces, of random strength in every image
        rough = np.zeros(256, np.float32)
        rough[:19] = rng.uniform(0.01, 0.06, 19)
        rough[VEGETATION] = rng.uniform(0.12, 0.25)
        rough[TERRAIN] = rng.uniform(0.06, 0.16)
        rough[SKY] = 0.004
        grain = rng.standard_normal((h, w), dtype=np.float32)
        coarse = cv2.resize(
            grain[: h // 3, : w // 3], (w, h), interpolation=cv2.INTER_LINEAR
        )
        gain = 1 + (0.6 * grain + coarse) * cv2.LUT(label, rough)
        blotch = _smooth_noise(rng, h, w, 4, 8) - 0.5
        gain *= 1 + 0.16 * blotch

        # exposure, vignette, colour cast
        u = np.linspace(-1, 1, w, dtype=np.float32)[None]
        v = np.linspace(-1, 1, h, dtype=np.float32)[:, None]
        gain *= 1 - rng.uniform(0, 0.28) * (u * u + v * v) / 2
        level = {'sunny': 1.05, 'overcast': 0.95, 'dusk': 0.76}[self.mood]
        gain *= level * np.exp(rng.normal(0, 0.14))
        cast = np.exp(rng.normal(0, 0.03, 3)).astype(np.float32)
        if self.mood == 'dusk':
            cast *= np.float32([1.06, 0.97, 0.98])
        image *= gain[..., None]
        image *= cast
        sigma = rng.uniform(0, 0.75)
        if sigma > 0.25:
            image = cv2.GaussianBlur(image, (3, 3), sigma)
        noise = rng.standard_normal((h, w, 3), dtype=np.float32)
        image += noise * np.float32(rng.uniform(1.5, 6))
        return np.clip(image, 0, 255).astype(np.uint8), label

    def render(self) -> tuple[np.ndarray, np.ndarray]:
        """Paint the scene.

        Returns:
            tuple[np.ndarray, np.ndarray]: RGB image, (H, W, 3) uint8, and
            train ids, (H, W) uint8 with 0-18 and 255 (unlabelled).
        """
        self.plan_sides()
        self.populate()
        self.queue_sides()
        self.paint_sky()
        self.paint_skyline()
        self.paint_ground()
        self.queue.sort(key=lambda item: (-item[0], item[1]))
        for _, _, painter, args in self.queue:
            painter(*args)
        if self.rng.random() < 0.25:
            self.paint_wires()
        if self.hood:
            self.paint_hood()
        return self.develop()


def _smooth_noise(rng, height, width, rows, columns) -> np.ndarray:
    """Soft noise between 0 and 1, (height, width) float32."""
    seed = rng.random((rows, columns), dtype=np.float32)
    fine = rng.random((rows * 4, columns * 4), dtype=np.float32)
    size = (width, height)
    noise = 0.7 * cv2.resize(seed, size, interpolation=cv2.INTER_CUBIC)
    noise += 0.3 * cv2.resize(fine, size, interpolation=cv2.INTER_CUBIC)
    return np.clip(noise, 0, 1)
