# Copyright (c) PVD-MM contributors. Apache-2.0.
"""One drawn scene of figures: an image and the objects in it.

A scene is a dull, textured ground with clutter that is no object, and figures
that lie on it over each other. Every class has a hue of its own, so that it
is learnt fast; what is hard are the masks: holes, thin parts, neighbours of
the same class, objects in several pieces.

Objects are painted from low to high. An object of which too little would be
seen is left out, so whatever is in the image is annotated.
"""

import colorsys
import math
from dataclasses import dataclass

import cv2
import numpy as np

from .figures import FIGURES, Figure

LEAST_PIXELS = 24  # visible ones of an object
LEAST_SHARE = 0.12  # of its pixels that are visible
_CROWDED = ('disc', 'ring', 'star', 'cross')  # told apart when they are small


@dataclass
class SceneObject:
    """One annotated object of a scene.

    Attributes:
        category (str): Name of its class.
        mask (np.ndarray): (H, W) bool, all of it that lies in the image.
        visible (np.ndarray): (H, W) bool, what no other object hides.
        crowd (bool): Whether it is a dense group, annotated as one region.
    """

    category: str
    mask: np.ndarray
    visible: np.ndarray
    crowd: bool = False


@dataclass
class _Part:
    """A figure at its place."""

    figure: Figure
    x: float
    y: float
    r: float
    angle: float
    color: np.ndarray

    def crop(self, shape, reach: float) -> tuple[slice, slice]:
        """The part of the image within ``reach`` pixels of the figure."""
        reach = self.r + reach
        y0, y1 = self.y - reach, self.y + reach + 1
        x0, x1 = self.x - reach, self.x + reach + 1
        return (
            slice(*np.clip([int(y0), int(y1)], 0, shape[0])),
            slice(*np.clip([int(x0), int(x1)], 0, shape[1])),
        )

    def local(self, crop) -> tuple[np.ndarray, np.ndarray]:
        """``u`` and ``v`` of the pixels of a crop."""
        rows, columns = crop
        y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + 0.5 - self.y
        x = np.arange(columns.start, columns.stop, dtype=np.float32) + 0.5 - self.x
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        return cos * x + sin * y, cos * y - sin * x

    def mask(self, shape) -> np.ndarray:
        """Pixels whose centre is inside, (H, W) bool."""
        mask = np.zeros(shape, bool)
        crop = self.crop(shape, 1)
        mask[crop] = self.figure(*self.local(crop)) < 0
        return mask


class ShapesScene:
    """Painter of one scene.

    Args:
        rng (np.random.Generator): The only source of chance.
        height (int): Height H of the image in pixels.
        width (int): Width W of the image in pixels.
        wanted (str): Class of the uppermost object.
        empty (bool): No object, only ground and clutter. Defaults to False.
        crowd (bool): With a dense group. Defaults to False.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        height: int,
        width: int,
        wanted: str,
        empty: bool = False,
        crowd: bool = False,
    ) -> None:
        self.rng = rng
        self.shape = (height, width)
        self.wanted = wanted
        self.empty = empty
        self.crowd = crowd
        self.scale = min(height, width) / 192
        angle = rng.uniform(0, 2 * np.pi)
        self.light = math.cos(angle), math.sin(angle)  # (x, y) towards it

    # ---- what is where -----------------------------------------------------

    def reach(self, category: str) -> float:
        """Choose how large an object is, in pixels."""
        least = FIGURES[category][1]
        small, large = self.rng.choice(
            [(8, 18), (20, 46), (46, 95)], p=[0.25, 0.4, 0.35]
        )
        r = math.exp(self.rng.uniform(math.log(small), math.log(large)))
        return max(least, self.scale * r)

    def color(self, category: str) -> np.ndarray:
        """Choose a colour of the class's family, RGB 0 to 255."""
        hue = FIGURES[category][2] + self.rng.normal(0, 4)
        saturation, value = self.rng.uniform([0.62, 0.62], [0.98, 1.0])
        rgb = colorsys.hsv_to_rgb(hue / 360 % 1, saturation, value)
        return np.float32(rgb) * 255

    def part(self, category: str, x: float, y: float, r: float) -> _Part:
        """Make one figure of a class."""
        rng = self.rng
        angle = rng.normal(0, 0.12) if category == 'lamp' else rng.uniform(0, 2 * np.pi)
        if category == 'frame' and rng.random() < 0.5:
            angle = rng.normal(0, 0.08)
        figure = FIGURES[category][0](rng, r)
        return _Part(figure, float(x), float(y), r, angle, self.color(category))

    def group(self, category: str) -> list[_Part]:
        """Make the figures of a crowd, a dense heap of small ones."""
        rng = self.rng
        r = max(FIGURES[category][1], 7 * self.scale) * rng.uniform(0.9, 1.15)
        centre = rng.uniform(0.25, 0.75, 2) * self.shape
        spread = r * rng.uniform([1.9, 2.6], [2.6, 4.0])[rng.permutation(2)]
        places = []
        for place in centre + rng.normal(0, 1, (90, 2)) * spread:
            near = [np.hypot(*(place - other)) < 1.4 * r for other in places]
            inside = (place > r).all() and (place < np.array(self.shape) - r).all()
            if inside and not any(near):
                places.append(place)
        parts = []
        for y, x in places[:28]:
            parts.append(self.part(category, x, y, r * rng.uniform(0.85, 1.1)))
        return parts

    def plan(self) -> list[tuple[str, bool, list[_Part]]]:
        """Choose the objects, the lowest first: (class, crowd, figures)."""
        rng = self.rng
        if self.empty:
            return []
        count = rng.choice(np.arange(1, 8), p=[0.1, 0.15, 0.2, 0.2, 0.15, 0.1, 0.1])
        names = [self.wanted, *rng.choice(list(FIGURES), count - 1)]
        if count > 2 and rng.random() < 0.35:
            names[1] = names[0]  # neighbours of one class
        objects = []
        for category in names:
            r = self.reach(category)
            y, x = rng.uniform(0.1, 0.9, 2) * self.shape
            if objects and rng.random() < 0.55:
                other = objects[rng.integers(len(objects))][2][0]
                turn = rng.uniform(0, 2 * np.pi)
                apart = rng.uniform(0.45, 1) * (r + other.r)
                y = other.y + apart * math.sin(turn)
                x = other.x + apart * math.cos(turn)
            # most of it, or at least a good piece, is in the image
            margin = min(r * 0.8, min(self.shape) * 0.42)
            y = np.clip(y, margin, self.shape[0] - margin)
            x = np.clip(x, margin, self.shape[1] - margin)
            objects.append((category, False, [self.part(category, x, y, r)]))
        # large ones rather lie below, the wanted one on top
        order = sorted(
            range(1, len(objects)),
            key=lambda i: -math.log(objects[i][2][0].r) + rng.normal(0, 0.5),
        )
        objects = [objects[i] for i in order] + objects[:1]
        if self.crowd:
            category = str(rng.choice(_CROWDED))
            place = rng.integers(len(objects))
            objects.insert(place, (category, True, self.group(category)))
        return objects

    # ---- paint -------------------------------------------------------------

    def noise(self, cells: float) -> np.ndarray:
        """Soft noise around 0, (H, W) float32, of the given cells a side."""
        h, w = self.shape
        rows, columns = max(2, round(cells)), max(2, round(cells * w / h))
        coarse = self.rng.standard_normal((rows, columns), dtype=np.float32)
        return cv2.resize(coarse, (w, h), interpolation=cv2.INTER_CUBIC)

    def dull(self) -> np.ndarray:
        """Choose a colour of little saturation."""
        rgb = colorsys.hsv_to_rgb(
            self.rng.random(), self.rng.uniform(0, 0.22), self.rng.uniform(0.3, 0.85)
        )
        return np.float32(rgb) * 255

    def paint_ground(self) -> np.ndarray:
        """Paint a gradient with one of several textures, (H, W, 3) float32."""
        rng, (h, w) = self.rng, self.shape
        y, x = np.mgrid[:h, :w].astype(np.float32)
        turn = rng.uniform(0, 2 * np.pi)
        across = x * math.sin(turn) - y * math.cos(turn)
        down = x * math.cos(turn) + y * math.sin(turn)
        along = down / math.hypot(h, w) + 0.5
        first = self.dull()
        second = first * 0.6 + self.dull() * 0.4
        image = first + (second - first) * np.clip(along, 0, 1)[..., None]
        gain = 1 + 0.07 * self.noise(5) + 0.04 * self.noise(24)
        kind = rng.choice(['plain', 'planks', 'tiles', 'cloth', 'sand'])
        period = rng.uniform(18, 44) * self.scale
        if kind == 'planks':
            plank = np.floor(across / period).astype(int) % 64
            gain *= rng.uniform(0.86, 1.1, 64).astype(np.float32)[plank]
            gain *= 1 + 0.04 * np.sin(down * 0.15 + 7 * self.noise(5))
            gain[np.mod(across, period) < 1.3] *= 0.72
        elif kind == 'tiles':
            cell = np.floor(across / period) * 7 + np.floor(down / period) * 13
            gain *= rng.uniform(0.9, 1.08, 64).astype(np.float32)[cell.astype(int) % 64]
            joint = np.minimum(np.mod(across, period), np.mod(down, period))
            gain[joint < 1.6] *= rng.choice([0.78, 1.15])
        elif kind == 'cloth':
            gain *= 1 + 0.06 * np.sin(across * 1.9) * np.sin(down * 1.9)
        elif kind == 'sand':
            gain *= 1 + 0.07 * rng.standard_normal((h, w), dtype=np.float32)
        return image * gain[..., None]

    def paint_clutter(self, image: np.ndarray) -> None:
        """Paint scratches, pebbles, stains and scraps, which are no objects."""
        rng = self.rng
        for _ in range(rng.integers(2, 9)):
            layer = np.zeros(self.shape, np.uint8)
            y, x = (rng.uniform(0, 1, 2) * self.shape).tolist()
            kind = rng.choice(['scratch', 'pebbles', 'stain', 'scrap'])
            blur, strength = 0.7, rng.uniform(0.35, 0.8)
            if kind == 'scratch':
                steps = rng.normal(0, 9 * self.scale, (6, 2)) + rng.normal(0, 9, 2)
                points = np.cumsum([[x, y], *steps], 0).round().astype(np.int32)
                cv2.polylines(layer, [points], False, 255, int(rng.integers(1, 3)))
            elif kind == 'pebbles':
                for dx, dy, r in rng.normal(0, 1, (rng.integers(3, 9), 3)):
                    centre = (int(x + 16 * dx), int(y + 16 * dy))
                    cv2.circle(layer, centre, 1 + int(abs(r) * 1.2), 255, -1)
            elif kind == 'stain':
                axes = tuple(int(a) for a in rng.uniform(8, 40, 2) * self.scale)
                cv2.ellipse(layer, (int(x), int(y)), axes, rng.uniform(0, 180), 0, 360,
                            255, -1)  # fmt: skip
                blur, strength = 6 * self.scale, rng.uniform(0.15, 0.35)
            else:
                corners = rng.uniform(-1, 1, (3, 2)) * rng.uniform(6, 26) * self.scale
                corners = np.round(corners + [x, y]).astype(np.int32)
                cv2.fillPoly(layer, [corners], 255)
            layer = cv2.GaussianBlur(layer, (0, 0), blur)
            left, top, wide, high = cv2.boundingRect(layer)
            crop = slice(top, top + high), slice(left, left + wide)
            alpha = np.float32(strength / 255) * layer[crop][..., None]
            image[crop] += alpha * (self.dull() - image[crop])

    def texture(self, part: _Part, u, v, d) -> np.ndarray:
        """Brightness of a figure's surface, around 1, from its distances."""
        rng, r = self.rng, part.r
        cos, sin = math.cos(part.angle), math.sin(part.angle)
        light_x, light_y = self.light
        to_u = light_x * cos + light_y * sin
        to_v = light_y * cos - light_x * sin
        gain = 1 + 0.16 * (u * to_u + v * to_v) / r
        # light and shade on the rim: the slope of the distance
        edge = np.exp(np.minimum(d, 0) / max(1.2, 0.05 * r))
        if min(d.shape) > 1:
            gy, gx = np.gradient(d)
            gain += 0.22 * edge * (gx * light_x + gy * light_y)
        gain -= 0.06 * edge
        kind = rng.choice(['plain', 'stripes', 'dots', 'grain'])
        period = max(5.0, r * rng.uniform(0.2, 0.4))
        turn = rng.uniform(0, np.pi)
        depth = rng.uniform(0.08, 0.16)
        if kind == 'stripes':
            along = u * math.cos(turn) + v * math.sin(turn)
            wave = np.sin(along * (2 * np.pi / period))
            gain += depth * np.clip(2 * wave, -1, 1)
        elif kind == 'dots':
            wave = np.cos(u * 2 * np.pi / period) * np.cos(v * 2 * np.pi / period)
            gain += depth * np.clip(4 * wave - 1.5, -1, 1)
        elif kind == 'grain':
            gain += 0.6 * depth * rng.standard_normal(d.shape, dtype=np.float32)
        return gain

    def paint(self, image: np.ndarray, part: _Part) -> None:
        """Paint a figure and the shadow that it casts on what is below."""
        drop = 2.5 * self.scale
        crop = part.crop(self.shape, 4 * drop)
        u, v = part.local(crop)
        if not u.size:
            return
        x, y = part.x, part.y
        shadow = _Part(part.figure, x - drop * self.light[0], y - drop * self.light[1],
                       part.r, part.angle, part.color)  # fmt: skip
        d = part.figure(*shadow.local(crop))
        below = image[crop]
        below *= 1 - 0.38 * np.clip(0.5 - d / (2 * drop), 0, 1)[..., None]
        d = part.figure(u, v)
        color = part.color * self.texture(part, u, v, d)[..., None]
        below += np.clip(0.5 - d, 0, 1)[..., None] * (color - below)

    def develop(self, image: np.ndarray) -> np.ndarray:
        """Exposure, colour cast, softness and noise of a camera."""
        rng, (h, w) = self.rng, self.shape
        image = image * math.exp(rng.normal(0, 0.09))
        image *= np.exp(rng.normal(0, 0.02, 3)).astype(np.float32)
        sigma = rng.uniform(0, 0.7)
        if sigma > 0.3:
            image = cv2.GaussianBlur(image, (3, 3), sigma)
        noise = rng.standard_normal((h, w, 3), dtype=np.float32)
        image = image + noise * np.float32(rng.uniform(1, 4))
        return np.clip(image, 0, 255).astype(np.uint8)

    def render(self) -> tuple[np.ndarray, list[SceneObject]]:
        """Paint the scene.

        Returns:
            tuple[np.ndarray, list[SceneObject]]: RGB image, (H, W, 3) uint8,
            and its objects, the lowest first.
        """
        covered = np.zeros(self.shape, bool)
        kept, objects = [], []
        for category, crowd, parts in reversed(self.plan()):
            mask = np.zeros(self.shape, bool)
            for part in parts:
                mask |= part.mask(self.shape)
            visible = mask & ~covered
            if visible.sum() < max(LEAST_PIXELS, LEAST_SHARE * mask.sum()):
                continue
            covered |= mask
            kept.append(parts)
            objects.append(SceneObject(category, mask, visible, crowd))
        image = self.paint_ground()
        self.paint_clutter(image)
        for parts in reversed(kept):
            for part in parts:
                self.paint(image, part)
        return self.develop(image), objects[::-1]
