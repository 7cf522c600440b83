# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Draw on an image which pixels of the coarser maps voted for a pixel."""

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from pvd_mm.apis.images import read_image
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.decoder import PixelVotingDecoder
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import check_out_file

from .follow_votes import follow_votes
from .grid import draw_frame

_MARK = '#ffe119'  # the chosen pixel
_MIN_SHARE = 0.05  # of a level's strongest weight: what the view must show


class Level(NamedTuple):
    """The votes of one level for the chosen pixel.

    Args:
        level (int): l, from 1.
        stride (int): From y_0 to M_l.
        weights (np.ndarray): (H_l, W_l), the weight of each pixel of M_l.
    """

    level: int
    stride: int
    weights: np.ndarray


def draw_votes(
    config: str,
    checkpoint: str,
    image: str,
    pixel: tuple[int, int],
    out_file: str,
    group: int | None = None,
    force: bool = False,
    device: str | None = None,
    scale: float | None = None,
) -> dict:
    """Follow the votes for a pixel down from the coarsest map, and draw them.

    The first panel shows the image and the pixel. Each other one shows a
    fused map M_l with the weight by which each of its pixels reaches the
    pixel of y_0 that the chosen pixel of the image lies in, by the votes
    alone: see :func:`pvd_mm.visualization.follow_votes.follow_votes`. y_0 lies on
    the image as mmseg's resizing puts it there; a coarser pixel is drawn
    around the pixel of y_0 that its window is centred on.

    Args:
        config (str): Path of a segmentor's config with a ``PVDHead``, or the
            name of a shipped one.
        checkpoint (str): Its checkpoint.
        image (str): The image file.
        pixel (tuple[int, int]): x and y in the image, from 0.
        out_file (str): The picture, a .png.
        group (int, optional): Whose votes are followed where the decoder has
            groups. Defaults to None: the group of the class that is predicted
            for the pixel, or the first one where no classes are decoded.
        force (bool): Whether the picture may be replaced. Defaults to False.
        device, scale: See :func:`pvd_mm.apis.inferencers.load_inferencer`.

    Returns:
        dict: ``picture`` (path), ``predicted`` (name of the class),
        ``output`` (row and column in y_0), ``group`` and ``levels`` (list of
        :class:`Level`, finest first).

    Raises:
        UserError: The config has no ``PVDHead``, the image cannot be read,
            the pixel is not in it, there is no such group, the picture is
            there already, or what
            :func:`~pvd_mm.apis.inferencers.load_inferencer` raises.
    """
    out = check_out_file(out_file, force)
    picture = read_image(image)
    x, y = pixel
    height, width = picture.shape[:2]
    if not (0 <= x < width and 0 <= y < height):
        raise UserError(
            f'the pixel is {x} {y}; {image} is {width} pixels wide and {height} '
            'high, counted from 0.'
        )
    inferencer = load_inferencer(config, checkpoint, device, scale)
    decoder = _decoder_of(inferencer, config)
    label = int(inferencer.predict(image).pred_sem_seg.data[0, y, x])
    maps, shares = _maps_of(inferencer, decoder, image)
    size = tuple(maps[0].shape[2:])
    # rows and columns of y_0 that the image covers, the rest being padding
    covered = tuple(share * side for share, side in zip(shares, size))
    output = tuple(
        min(math.floor((position + 0.5) / length * part), side - 1)
        for position, length, part, side in zip((y, x), (height, width), covered, size)
    )
    steps = decoder.steps
    number = math.lcm(*(step.groups for step in steps))
    if group is None:
        logits = getattr(inferencer.model.decode_head, 'decodes_logits', False)
        # of a single logit, both classes have the same channel
        channel = min(label, decoder.channels - 1)
        group = channel * number // decoder.channels if logits else 0
    if not 0 <= group < number:
        raise UserError(f'group is {group}; the decoder has {number}, counted from 0.')
    strides = decoder.strides_of(maps)
    with torch.no_grad():
        votes = decoder.votes(maps)
    weights = follow_votes(
        votes,
        output,
        size,
        strides,
        [step.kernel_size for step in steps],
        [step.groups for step in steps],
        [step.formulation for step in steps],
    )
    levels = [
        Level(level, math.prod(strides[:level]), of_groups[group].numpy())
        for level, of_groups in enumerate(weights, 1)
    ]
    name = inferencer.model.dataset_meta['classes'][label]
    _draw(picture, covered, (x, y), name, output, levels, out)
    return dict(
        picture=str(out), predicted=name, output=output, group=group, levels=levels
    )


def _decoder_of(inferencer, config: str) -> PixelVotingDecoder:
    if inferencer.scope != 'mmseg':
        raise UserError(
            f'{config} is a detector, which decodes every RoI by a crop of its '
            'own; votes are drawn for segmentors.'
        )
    for module in inferencer.model.modules():
        if isinstance(module, PixelVotingDecoder):
            return module
    raise UserError(f'{config} has no PVDHead, so there are no votes to draw.')


def _maps_of(inferencer, decoder, image: str):
    """Run the whole image; the decoder's maps z_0 … z_L, and which shares of
    the network's rows and columns, from 0 to 1, are no padding."""
    calls = []
    hook = decoder.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(args[0] if args else kwargs['maps']),
        with_kwargs=True,
    )
    try:
        with torch.no_grad():
            model = inferencer.model
            batch = model.data_preprocessor(inferencer.prepare(image), False)
            model(**batch, mode='tensor')
    finally:
        hook.remove()
    shape = batch['data_samples'][0].img_shape[:2]
    whole = batch['inputs'].shape[2:]
    return calls[0], tuple(a / b for a, b in zip(shape, whole))


def _view(levels, covered) -> tuple[float, float, float, float]:
    """Left, right, top and bottom, in pixels of y_0, of the part of the image
    that holds all but the weakest votes; of the image's proportions."""
    corners = []
    for _, stride, weights in levels:
        strong = np.abs(weights)
        if not strong.any():  # at a border there may be no votes
            continue
        rows, columns = np.nonzero(strong >= _MIN_SHARE * strong.max())
        for indices in (rows, columns):
            corners += [(indices.min() - 0.5) * stride, (indices.max() + 0.5) * stride]
    if not corners:
        return -0.5, covered[1] - 0.5, -0.5, covered[0] - 0.5
    corners = np.array(corners).reshape(-1, 2, 2)
    low, high = corners[..., 0].min(0), corners[..., 1].max(0)
    sides = np.array(covered)
    share = min(1.0, max(0.15, *(1.1 * (high - low) / sides)))
    low = np.clip((low + high) / 2 - share * sides / 2, -0.5, (1 - share) * sides - 0.5)
    (top, left), (bottom, right) = low, low + share * sides
    return left, right, top, bottom


def _draw(picture, covered, pixel, name, output, levels, out: Path) -> None:
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    panels = len(levels) + 1
    columns = panels if panels <= 3 else 3 if panels <= 9 else 4
    rows = math.ceil(panels / columns)
    high = 3.4 * covered[0] / covered[1] + 0.62
    figure = Figure(
        figsize=(3.5 * columns, high * rows + 0.75), dpi=110, layout='constrained'
    )
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for ax in axes[panels:]:
        ax.axis('off')
    left, right, top, bottom = _view(levels, covered)
    row, column = output

    title = f'pixel {pixel[0]}, {pixel[1]}: {name}'
    _draw_panel(axes[0], picture, covered, title, 'framed: what the others show')
    draw_frame(axes[0], (left, top, right - left, bottom - top), 'white', 1.4, 2.8)
    for color, line, size in (('black', 3.4, 13), (_MARK, 1.5, 12)):
        axes[0].plot(column, row, '+', color=color, mew=line, ms=size)

    colors = colormaps['coolwarm']
    pale = picture.mean(2) * 0.45 + 135  # so that nothing outshines the votes
    for ax, (level, stride, weights) in zip(axes[1:], levels):
        height, width = weights.shape
        strongest = weights.flat[np.abs(weights).argmax()]
        title = f'$M_{{{level}}}$, {height}×{width} pixels'
        caption = f'sum {weights.sum():.2f}, strongest {strongest:.2f}'
        _draw_panel(ax, pale, covered, title, caption, cmap='gray', vmin=0, vmax=255)
        share = weights / (abs(strongest) or 1.0)
        overlay = colors(share / 2 + 0.5)
        # weak ones still show, and what has no vote does not
        overlay[..., 3] = 0.75 * np.sqrt(np.abs(share))
        edges = (-0.5, width - 0.5, height - 0.5, -0.5)
        ax.imshow(
            overlay,
            extent=[edge * stride for edge in edges],
            interpolation='nearest',
            aspect='equal',
        )
        ax.set(xlim=(left, right), ylim=(bottom, top))
        draw_frame(ax, (column - 0.5, row - 0.5, 1, 1), _MARK, 1.4, 2.8)
    bar = figure.colorbar(
        ScalarMappable(Normalize(-1, 1), colors),
        ax=axes.tolist(),
        location='bottom',
        fraction=0.04,
        aspect=50,
        shrink=0.6,
    )
    bar.set_label("weight of a pixel's vote, as a share of the map's strongest")
    figure.savefig(out)


def _draw_panel(ax, image, covered, title: str, caption: str, **kwargs) -> None:
    """An image on the part of y_0 that it covers, its title and caption."""
    edges = (-0.5, covered[1] - 0.5, covered[0] - 0.5, -0.5)
    ax.imshow(image, extent=edges, aspect='equal', **kwargs)
    ax.set(xlim=edges[:2], ylim=edges[2:], xticks=[], yticks=[])
    ax.set_title(title, fontsize=11)
    ax.set_xlabel(caption, fontsize=9)
