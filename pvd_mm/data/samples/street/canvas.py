# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The image and the label map of a scene, and what paints on them.

Places are in metres: x to the right of the camera, y up from the ground, z away from
the camera. Colours are RGB, 0 to 255, as they are near; light and haze are added when
they are painted.
"""

import cv2
import numpy as np

from .classes import UNLABELLED

SUPERSAMPLING = 2  # shapes are painted at twice the size of the image
_NEAR = 2.2  # metres, nothing is painted closer

PAINTS = np.array(
    [
        [225, 225, 222], [190, 192, 195], [120, 124, 128], [62, 64, 70],
        [28, 29, 33], [150, 32, 30], [38, 62, 120], [52, 92, 70],
        [196, 160, 60], [120, 92, 74], [90, 130, 165],
    ],
    np.float32,
)  # fmt: skip
FACADES = np.array(
    [
        [172, 150, 128], [140, 92, 76], [196, 188, 172], [122, 122, 124],
        [158, 136, 104], [98, 104, 112], [206, 178, 132], [134, 112, 108],
    ],
    np.float32,
)  # fmt: skip


class Canvas:
    """Image, label map, camera and light of one scene.

    Args:
        rng (np.random.Generator): The only source of chance.
        height (int): Height of the final image in pixels.
        width (int): Width of the final image in pixels.

    Attributes:
        image (np.ndarray): (H, W, 3) uint8, H and W :data:`SUPERSAMPLING` times the
            final ones.
        label (np.ndarray): (H, W) uint8, train ids.
        objects (np.ndarray): (H, W) uint16, the number of what a brush has painted
            last, where that has a label.
        number (int): Of what is painted now.
        mood (str): 'sunny', 'overcast' or 'dusk'.
        sun (int): The side the light comes from, -1 left, 1 right.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        self.rng = rng
        self.height = height * SUPERSAMPLING
        self.width = width * SUPERSAMPLING
        self.image = np.zeros((self.height, self.width, 3), np.uint8)
        self.label = np.full((self.height, self.width), UNLABELLED, np.uint8)
        self.objects = np.zeros((self.height, self.width), np.uint16)
        self.number = 0

        # the camera; lengths in pixels, the eye's height in metres
        self.focal = self.height * rng.uniform(0.95, 1.25)
        self.center = self.width * rng.uniform(0.42, 0.58)
        self.horizon = self.height * rng.uniform(0.36, 0.5)
        self.eye = rng.uniform(1.25, 1.75)
        self.curve = rng.normal(0, 0.0012)  # of the street

        # the light
        self.mood = rng.choice(['sunny', 'overcast', 'dusk'], p=[0.45, 0.35, 0.2])
        self.sun = rng.choice([-1, 1])
        self.haze_length = rng.uniform(90, 320)
        self.haze = {
            'sunny': np.float32([186, 200, 216]),
            'overcast': np.float32([188, 190, 192]),
            'dusk': np.float32([172, 138, 122]),
        }[self.mood] + rng.normal(0, 6, 3).astype(np.float32)

    def project(self, x, y, z) -> np.ndarray:
        """Metres (broadcast together) to pixels, (..., 2) int32."""
        x, y, z = np.broadcast_arrays(x, y, z)
        z = np.maximum(z, _NEAR)
        u = self.center + self.focal * (x / z + self.curve * z)
        v = self.horizon + self.focal * (self.eye - y) / z
        points = np.stack([u, v], -1)
        return np.clip(np.round(points), -20000, 20000).astype(np.int32)

    def shade(self, color, z: float, gain: float = 1.0) -> tuple[float, ...]:
        """Colour of a surface at depth ``z``: light (``gain``), then haze."""
        clear = np.exp(-z / self.haze_length)
        value = np.float32(color) * gain * clear + self.haze * (1 - clear)
        return tuple(float(v) for v in np.clip(value, 0, 255))

    def pick(self, palette, spread: float = 10) -> np.ndarray:
        """Choose a colour near one of the palette, (N, 3)."""
        palette = np.float32(palette)
        color = palette[self.rng.integers(len(palette))]
        return np.clip(color + self.rng.normal(0, spread, 3), 8, 245)

    def brush(self, label: int | None = None) -> 'Brush':
        """What paints an object of a class; see :class:`Brush`."""
        return Brush(self, label)

    def smooth_noise(
        self, height: int, width: int, rows: int, columns: int
    ) -> np.ndarray:
        """Soft noise between 0 and 1, (height, width) float32."""
        coarse = self.rng.random((rows, columns), dtype=np.float32)
        fine = self.rng.random((rows * 4, columns * 4), dtype=np.float32)
        size = (width, height)
        noise = 0.7 * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)
        noise += 0.3 * cv2.resize(fine, size, interpolation=cv2.INTER_CUBIC)
        return np.clip(noise, 0, 1)


class Brush:
    """Paints surfaces of one label.

    Args:
        canvas (Canvas): What is painted on.
        label (int, optional): Train id of all that it paints. Defaults to None: labels
            stay as they are, for details of what has been painted.
    """

    def __init__(self, canvas: Canvas, label: int | None = None) -> None:
        self.canvas = canvas
        self.label = label

    def _label_maps(self) -> list[tuple[np.ndarray, int]]:
        """The maps beside the image that are painted as well, and with what."""
        if self.label is None:
            return []
        canvas = self.canvas
        return [(canvas.label, self.label), (canvas.objects, canvas.number)]

    def fill(self, polygons: np.ndarray, color, z: float, gain: float = 1.0) -> None:
        """Paint polygons, (P, 2) or (N, P, 2) pixels, as surfaces at depth ``z``."""
        polygons = list(polygons[None] if polygons.ndim == 2 else polygons)
        cv2.fillPoly(self.canvas.image, polygons, self.canvas.shade(color, z, gain))
        for target, value in self._label_maps():
            cv2.fillPoly(target, polygons, value)

    def polygon(self, x, y, z, color, gain: float = 1.0, depth=None) -> None:
        """Paint polygons with corners in metres, (P,) or (N, P) each.

        Light and haze are those at ``depth``, by default ``z``, then one number.
        """
        depth = z if depth is None else depth
        self.fill(self.canvas.project(x, y, z), color, depth, gain)

    def plate(self, x0, x1, y0, y1, z, color, gain: float = 1.0) -> None:
        """Paint an upright rectangle that faces the camera."""
        self.polygon([x0, x1, x1, x0], [y0, y0, y1, y1], z, color, gain)

    def face(self, x, z0, z1, y0, y1, color, depth, gain: float = 1.0) -> None:
        """Paint upright rectangles along the street; ``z0`` ... ``y1`` may be (N,)."""
        z0, z1, y0, y1 = np.broadcast_arrays(z0, z1, y0, y1)
        corners = np.stack([y0, y0, y1, y1], -1), np.stack([z0, z1, z1, z0], -1)
        self.polygon(x, *corners, color, gain, depth)

    def disc(self, x, y, z, rx, ry, color, gain: float = 1.0, thick: int = -1) -> None:
        """Paint an ellipse that faces the camera: radii in metres, filled or an outline
        of ``thick`` pixels."""
        canvas = self.canvas
        center = canvas.project(x, y, z).tolist()
        scale = canvas.focal / max(z, _NEAR)
        axes = (max(1, int(rx * scale)), max(1, int(ry * scale)))
        ellipse = center, axes, 0, 0, 360
        cv2.ellipse(canvas.image, *ellipse, canvas.shade(color, z, gain), thick)
        for target, value in self._label_maps():
            cv2.ellipse(target, *ellipse, value, thick)

    def stroke(self, points, z, thick, color, gain: float = 1.0, depth=None) -> None:
        """Paint a line through (x, y) metres at depth ``z``, ``thick`` metres wide."""
        canvas = self.canvas
        points = np.asarray(points, np.float32)
        pixels = canvas.project(points[:, 0], points[:, 1], z)[None]
        # at least one pixel of the final image
        thick = max(SUPERSAMPLING, round(thick * canvas.focal / z))
        color = canvas.shade(color, z if depth is None else depth, gain)
        cv2.polylines(canvas.image, pixels, False, color, thick)
        for target, value in self._label_maps():
            cv2.polylines(target, pixels, False, value, thick)

    def box(self, x0, x1, y0, y1, z0, z1, color, taper: float = 0.0) -> None:
        """Paint the visible faces of a box, whose top may be narrower by ``taper``."""
        canvas = self.canvas
        a, b = x0 + taper, x1 - taper
        f, g = z0 + taper, z1 - taper
        bend0, bend1 = canvas.curve * z0 * z0, canvas.curve * z1 * z1
        left_lit = 1.05 if canvas.sun < 0 else 0.7
        upright, sides = [y0, y0, y1, y1], [z0, z1, g, f]
        if y1 < canvas.eye:
            self.polygon([a, b, b, a], y1, [f, f, g, g], color, 1.15, z0)
        if x0 + bend1 > 0 or x0 + bend0 > 0:
            self.polygon([x0, x0, a, a], upright, sides, color, left_lit, z0)
        if x1 + bend1 < 0 or x1 + bend0 < 0:
            self.polygon([x1, x1, b, b], upright, sides, color, 1.75 - left_lit, z0)
        self.polygon([x0, x1, b, a], upright, [z0, z0, f, f], color, 0.9, z0)
