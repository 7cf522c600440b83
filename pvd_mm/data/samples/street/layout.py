# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Where the street and its sides are."""

from typing import NamedTuple

import numpy as np

SIDES = (-1, 1)  # left, right
_HEIGHTS = {
    'building': (5, 22), 'trees': (4, 9), 'wall': (1.2, 3.2), 'fence': (0.9, 1.9),
}  # fmt: skip


class Frontage(NamedTuple):
    """A stretch of what lines the street, from ``z0`` to ``z1`` on one side."""

    side: int
    z0: float
    z1: float
    kind: str  # of _HEIGHTS, or 'open'
    height: float


class Street:
    """The road along the view, its sidewalks, and what lines them.

    Args:
        rng (np.random.Generator): The only source of chance.
        wanted (Sequence[str]): What the scene must contain.

    Attributes:
        left, right (float): x of the road's curbs.
        walk (np.ndarray): Widths of the sidewalks, (2,).
        strip (np.ndarray): Widths of the strips of terrain beside them, (2,).
        edges (np.ndarray): x of where the sides begin, (2,).
        crossing (float | None): z of a road across, if there is one.
        rails (bool): Whether a tram has rails on the left.
        frontages (list[Frontage]): What lines the street.
    """

    def __init__(self, rng: np.random.Generator, wanted: tuple[str, ...]) -> None:
        self.rng = rng
        self.left = -rng.uniform(4.2, 8.5)
        self.right = rng.uniform(2.0, 4.5)
        self.walk = rng.uniform(1.8, 4.5, 2)
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
        self.frontages = []
        for side in SIDES:
            forced = [kind for kind in ('wall', 'fence') if kind in wanted]
            self._line(side, forced[:1] if side < 0 else forced)

    def _line(self, side: int, forced: list[str]) -> None:
        """Choose what lines one side; ``forced`` must be in it, the last first."""
        rng = self.rng
        kinds = ['building', 'trees', 'wall', 'fence', 'open']
        z = rng.uniform(1.5, 5)
        while z < 120:
            length = rng.uniform(7, 20) * (1 + z / 90)
            kind = str(rng.choice(kinds, p=[0.58, 0.16, 0.1, 0.1, 0.06]))
            if forced and z > 4:
                kind = forced.pop()
            # all heights are drawn, so that the seeds of what follows are aligned
            heights = {name: rng.uniform(*bounds) for name, bounds in _HEIGHTS.items()}
            if (
                self.crossing
                and z < self.crossing + 8
                and z + length > self.crossing - 1
            ):
                if z >= self.crossing - 5:
                    z = self.crossing + 8
                    continue
                length = self.crossing - 1 - z
            height = heights.get(kind, 0)
            self.frontages.append(Frontage(side, z, z + length, kind, height))
            z += length + (0.0 if rng.random() < 0.7 else 1.5)

    def curb(self, side: int) -> float:
        """x of the curb on a side."""
        return self.left if side < 0 else self.right

    def edge(self, side: int) -> float:
        """x of where a side begins."""
        return self.edges[0 if side < 0 else 1]

    def on_walk(self, side: int, low: float = 0.3, high: float | None = None) -> float:
        """Choose an x on a sidewalk, ``low`` to ``high`` metres from the curb; the
        default of ``high`` is its width."""
        high = self.walk[0 if side < 0 else 1] if high is None else high
        return self.curb(side) + side * self.rng.uniform(low, high)
