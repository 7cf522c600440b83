# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Drawn figures: signed distances, from which masks and colours are made.

A figure is a function of ``u`` (to the right) and ``v`` (down), pixels from
its centre, that gives the signed distance to its outline in pixels, negative
inside. It lies in the circle of radius ``r`` around the centre, ``r`` being
its reach. Distances make crisp masks (the pixel's centre is inside), soft
edges of the image, rims and shadows, at any size and angle.

Whatever is thin is at least ``THIN`` pixels wide, so that it stays in one
piece at every angle.
"""

import math
from collections.abc import Callable

import numpy as np

Figure = Callable[[np.ndarray, np.ndarray], np.ndarray]

THIN = 2.0


def _box(u, v, half_u, half_v):
    du, dv = np.abs(u) - half_u, np.abs(v) - half_v
    outside = np.hypot(np.maximum(du, 0), np.maximum(dv, 0))
    return outside + np.minimum(np.maximum(du, dv), 0)


def _ellipse(u, v, half_u, half_v):
    # exact on the outline, and near it off by the ratio of the half axes
    return (np.hypot(u / half_u, v / half_v) - 1) * min(half_u, half_v)


def _polygon(u, v, corners):
    """Distance to a polygon, a list of P corners (u, v)."""
    squared = np.full(u.shape, np.inf, np.float32)
    inside = np.zeros(u.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        ex, ey = x1 - x0, y1 - y0
        pu, pv = u - x0, v - y0
        along = np.clip((pu * ex + pv * ey) / (ex * ex + ey * ey), 0, 1)
        squared = np.minimum(squared, (pu - along * ex) ** 2 + (pv - along * ey) ** 2)
        between = (y0 <= v) != (y1 <= v)
        left_of = (pu * ey < pv * ex) if ey > 0 else (pu * ey > pv * ex)
        inside ^= between & left_of
    distance = np.sqrt(squared)
    return np.where(inside, -distance, distance)


def _thick(r: float, share: float) -> float:
    return max(THIN, share * r)


def disc(rng: np.random.Generator, r: float) -> Figure:
    """A disc, seen a little from the side."""
    flat = rng.uniform(0.78, 1)
    return lambda u, v: _ellipse(u, v, r, r * flat)


def ring(rng: np.random.Generator, r: float) -> Figure:
    """A disc with a round hole."""
    half = _thick(r, rng.uniform(0.16, 0.42)) / 2
    return lambda u, v: np.abs(np.hypot(u, v) - (r - half)) - half


def frame(rng: np.random.Generator, r: float) -> Figure:
    """A rectangle with a rectangular hole."""
    angle = rng.uniform(0.45, 1.12)
    half_u, half_v = r * math.cos(angle), r * math.sin(angle)
    bar = _thick(r, rng.uniform(0.1, 0.2))
    return lambda u, v: np.maximum(
        _box(u, v, half_u, half_v), -_box(u, v, half_u - bar, half_v - bar)
    )


def star(rng: np.random.Generator, r: float) -> Figure:
    """A star of five or six rays."""
    rays = int(rng.integers(5, 7))
    blunt = THIN / 4  # else the last pixel of a ray may lie apart
    radii = r - blunt, r * rng.uniform(0.4, 0.52)
    corners = []
    for i in range(2 * rays):
        turn = i * math.pi / rays
        corners.append((radii[i % 2] * math.sin(turn), -radii[i % 2] * math.cos(turn)))
    return lambda u, v: _polygon(u, v, corners) - blunt


def cross(rng: np.random.Generator, r: float) -> Figure:
    """Two bars of one length across each other."""
    half = _thick(r, rng.uniform(0.3, 0.6)) / 2
    long = math.sqrt(r * r - half * half)
    return lambda u, v: np.minimum(_box(u, v, long, half), _box(u, v, half, long))


def lamp(rng: np.random.Generator, r: float) -> Figure:
    """A shade on a thin pole that stands on a foot."""
    half_pole = _thick(r, rng.uniform(0.05, 0.08)) / 2
    height = r * rng.uniform(0.5, 0.65)  # of the shade
    wide, narrow = r * rng.uniform(0.32, 0.4), r * rng.uniform(0.16, 0.24)
    top, low = -0.92 * r, 0.92 * r
    base = top + height
    shade = [(-narrow, top), (narrow, top), (wide, base), (-wide, base)]
    half_foot = max(THIN / 2, 0.05 * r)

    def distance(u, v):
        pole = _box(u, v - (base + low) / 2, half_pole, (low - base) / 2 + 1)
        foot = _box(u, v - low + half_foot, 0.3 * r, half_foot)
        return np.minimum(np.minimum(pole, foot), _polygon(u, v, shade))

    return distance


def comb(rng: np.random.Generator, r: float) -> Figure:
    """A fork: thin tines side by side on a bar with a handle."""
    half_tine = _thick(r, rng.uniform(0.06, 0.09)) / 2
    width = r * rng.uniform(0.9, 1.15)
    # gaps as wide as the tines and wider
    tines = int(np.clip(width / (2 * half_tine) / 2.6, 3, rng.integers(4, 7)))
    first, last = -width / 2 + half_tine, width / 2 - half_tine
    gap = (last - first) / (tines - 1)
    top, bar = -0.8 * r, rng.uniform(-0.05, 0.15) * r
    half_bar = max(THIN / 2, 0.09 * r)
    half_handle = max(THIN / 2 + 0.3, rng.uniform(0.07, 0.1) * r)

    def distance(u, v):
        place = np.clip(np.round((u - first) / gap), 0, tines - 1)
        nearest = u - first - place * gap
        teeth = _box(nearest, v - (top + bar) / 2, half_tine, (bar - top) / 2)
        handle = _box(u, v - (bar + 0.97 * r) / 2, half_handle, (0.97 * r - bar) / 2)
        beam = _box(u, v - bar, width / 2, half_bar)
        return np.minimum(np.minimum(teeth, handle), beam)

    return distance


def leaf(rng: np.random.Generator, r: float) -> Figure:
    """A pointed leaf with a toothed edge and a thin stalk."""
    half_stalk = _thick(r, 0.05) / 2
    half = r * rng.uniform(0.32, 0.46)  # width
    tip, end = -0.97 * r, 0.55 * r
    middle, long = (tip + end) / 2, (end - tip) / 2
    # two arcs through both ends
    radius = (long * long + half * half) / (2 * half)
    tooth = 0.03 * r * (r > 14)
    teeth = rng.uniform(9, 13) / r

    def distance(u, v):
        blade = np.hypot(np.abs(u) + radius - half, v - middle) - radius
        blade = blade + tooth * np.sin(teeth * 2 * v)
        stalk = _box(
            u, v - (middle + 0.96 * r) / 2, half_stalk, (0.96 * r - middle) / 2
        )
        return np.minimum(blade, stalk)

    return distance


#: Class -> (maker of the figure, least reach in pixels at which it can be
#: told, hue in degrees).
FIGURES: dict[str, tuple[Callable[..., Figure], float, float]] = {
    'disc': (disc, 6, 4),
    'ring': (ring, 8, 212),
    'frame': (frame, 10, 28),
    'star': (star, 8, 52),
    'cross': (cross, 7, 318),
    'lamp': (lamp, 12, 178),
    'comb': (comb, 15, 268),
    'leaf': (leaf, 10, 110),
}
