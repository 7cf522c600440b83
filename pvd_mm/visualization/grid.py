# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Draw pictures in rows and columns, with captions and a legend."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

_CELL = 4.0  # width of a picture in inches
_CAPTION = 0.32  # height of the caption below it
_HEAD = 0.42  # height of the titles


class Cell(NamedTuple):
    """One picture.

    Args:
        picture (np.ndarray): (H, W, 3) uint8, RGB.
        caption (str): The text below it. Defaults to ''.
        outlines (Sequence): Pairs of a mask, (H, W) bool, whose contour is
            drawn, and its colour.
        labels (Sequence): Quadruples (x, y, text, colour), in pixels.
        window (tuple[slice, slice], optional): Rows and columns that a frame
            is drawn around.
    """

    picture: np.ndarray
    caption: str = ''
    outlines: Sequence[tuple[np.ndarray, Sequence[float]]] = ()
    labels: Sequence[tuple[float, float, str, Sequence[float]]] = ()
    window: tuple[slice, slice] | None = None

    def crop(self, window: tuple[slice, slice]) -> 'Cell':
        """That part of the picture with its outlines, and no text."""
        outlines = [(mask[window], color) for mask, color in self.outlines]
        return Cell(self.picture[window], outlines=outlines)


def draw_grid(
    titles: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    legend: Sequence[tuple[str, Sequence[float]]],
    path: Path,
) -> None:
    """Draw a grid of pictures; those of a row have one shape.

    Args:
        titles (Sequence[str]): Of the columns.
        rows (Sequence[Sequence[Cell]]): The pictures, row by row.
        legend (Sequence[tuple]): Names and colours, from 0 to 1.
        path (Path): The PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    lines = []
    for row in rows:
        height, width = row[0].picture.shape[:2]
        lines.append(_CELL * height / width + _CAPTION)
    per_row = max(1, int(len(titles) * _CELL / 1.75))
    foot = 0.3 * math.ceil(len(legend) / per_row) + 0.25
    total = (len(titles) * _CELL, sum(lines) + _HEAD + foot)
    figure = Figure(figsize=total, dpi=120)
    FigureCanvasAgg(figure)
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            bottom = total[1] - _HEAD - sum(lines[: r + 1]) + _CAPTION - 0.02
            axes = figure.add_axes(
                (
                    (c + 0.01) / len(titles),
                    bottom / total[1],
                    0.98 / len(titles),
                    (lines[r] - _CAPTION) / total[1],
                )
            )
            _draw_cell(axes, cell)
            if r == 0:
                axes.set_title(titles[c], fontsize=14, pad=6)
    if legend:
        figure.legend(
            handles=[
                Patch(facecolor=color, edgecolor='0.4', label=name)
                for name, color in legend
            ],
            loc='lower center',
            ncol=min(per_row, len(legend)),
            fontsize=10,
            frameon=False,
            handlelength=1.2,
            columnspacing=1.2,
        )
    figure.savefig(path)


def _draw_cell(axes, cell: Cell) -> None:
    axes.imshow(cell.picture, interpolation='nearest', aspect='auto')
    for mask, color in cell.outlines:
        if mask.any():
            # a border of zeros, so that contours close at the image's edge
            padded = np.pad(mask, 1).astype(float)
            x, y = (np.arange(-1, side + 1) for side in mask.shape[::-1])
            # on black, so that it is seen on its own colour
            for line, width in (((0, 0, 0), 2.4), (color, 1.2)):
                axes.contour(x, y, padded, [0.5], colors=[line], linewidths=width)
    for x, y, text, color in cell.labels:
        dark = np.mean(color) < 0.55
        axes.text(
            x,
            y,
            text,
            fontsize=7,
            color='white' if dark else 'black',
            va='bottom',
            clip_on=True,
            bbox=dict(facecolor=color, edgecolor='none', pad=1, alpha=0.85),
        )
    if cell.window is not None:
        rows, columns = cell.window
        width, height = columns.stop - columns.start, rows.stop - rows.start
        box = (columns.start - 0.5, rows.start - 0.5, width, height)
        draw_frame(axes, box, 'white', 1.4, 3.0)
    height, width = cell.picture.shape[:2]
    axes.set_xlim(-0.5, width - 0.5)
    axes.set_ylim(height - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(cell.caption, fontsize=10, labelpad=3)


def draw_frame(
    axes,
    box: tuple[float, float, float, float],
    color: str,
    line: float,
    edge: float,
) -> None:
    """Draw a frame with a black edge, which is seen on every ground.

    Args:
        axes: The axes of matplotlib that it is drawn on.
        box (tuple): Left, top, width and height.
        color (str): Of the line.
        line, edge (float): Widths of the line and, below it, of the edge.
    """
    from matplotlib.patches import Rectangle

    left, top, width, height = box
    for edgecolor, linewidth in (('black', edge), (color, line)):
        frame = Rectangle((left, top), width, height, fill=False)
        frame.set(edgecolor=edgecolor, linewidth=linewidth)
        axes.add_patch(frame)
