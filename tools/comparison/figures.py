# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Two trained methods side by side, as in the paper's Figs. 6 and 7."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmengine.registry import DATASETS

from pvd_mm.apis.images import UnreadableImage, find_images, read_image
from pvd_mm.apis.inferencers import load_inferencer
from pvd_mm.apis.runs import Run
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import check_out_file
from pvd_mm.visualization.picture_grid import Cell, draw_grid

from .detectors import ObjectPainter, detections_of, match, truth_of
from .segmentors import IGNORED, LabelPainter, labels_of


def draw_figures(
    runs: Sequence[Run],
    out_file: str,
    images: Sequence[str] = (),
    rows: int = 4,
    max_images: int = 100,
    zoom: float = 4.0,
    force: bool = False,
    device: str | None = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Draw images, what two methods predict for them, and the ground truth.

    Segmentors give Fig. 6, painted label maps; detectors Fig. 7, objects with
    a score of at least 0.5 as contours with label and score. Shown are the
    images where the two methods differ in the most pixels, whichever of them
    is right, and below each image the window where they differ most. Of
    detectors a pixel's label is the class of the most certain object on it.

    Args:
        runs (Sequence[Run]): Two methods: name, config and checkpoint.
        out_file (str): The picture, a .png; a .json of the same name says
            which images and windows are shown, and how much differs.
        images (Sequence[str]): Files, folders and patterns. Defaults to none:
            the ``val_dataloader`` of the configs, with its ground truth.
        rows (int): How many images are drawn. Defaults to 4.
        max_images (int): How many images, evenly spread, are predicted.
            Defaults to 100.
        zoom (float): How many times a window's side goes into the image's.
            Defaults to 4.
        force (bool): Whether the files may be replaced. Defaults to False.
        device (str, optional): See
            :func:`pvd_mm.apis.inferencers.load_inferencer`.
        progress (Callable): Wraps the list of images. Defaults to none.

    Returns:
        dict: ``picture`` and ``json`` (paths), ``images`` (list of dicts with
        ``image``, ``differing``, from 0 to 1, and ``window``, x, y, width and
        height) and ``unreadable`` (image to what is wrong with it).

    Raises:
        UserError: There are not two methods, their tasks, classes or val
            splits differ, there are no images, a file is there already, or
            what :func:`~pvd_mm.apis.inferencers.load_inferencer` raises.
    """
    if len(runs) != 2 or runs[0].name == runs[1].name:
        raise UserError(
            f'the runs are {[run.name for run in runs]}; expected two, with '
            'different names.'
        )
    for name, value in (('rows', rows), ('max_images', max_images), ('zoom', zoom)):
        if value < 1:
            raise UserError(f'{name} is {value}; expected at least 1.')
    out = check_out_file(out_file, force)
    check_out_file(out.with_suffix('.json'), force, '.json')
    paths = find_images(images) if images else None
    methods = [load_inferencer(run.config, run.checkpoint, device) for run in runs]
    _check_alike(methods, runs)
    scenes = (
        _scenes_of_split(methods, runs)
        if paths is None
        else [_Scene(str(path)) for path in paths]
    )
    indices = range(len(scenes))
    if len(scenes) > max_images:
        indices = np.linspace(0, len(scenes) - 1, max_images).astype(int).tolist()
    figure = _FIGURES[methods[0].scope](methods[0].model.dataset_meta)

    differing, unreadable = [], {}
    for index in progress(list(indices)):
        path = scenes[index].path
        try:
            read_image(path)
        except UnreadableImage as error:
            unreadable[path] = str(error)
            continue
        one, other = (figure.labels(method.predict(path)) for method in methods)
        differing.append((float((one != other).mean()), index))
    if not differing:
        raise UserError(f'none of {len(unreadable)} images could be read.')
    chosen = sorted(differing, key=lambda pair: (-pair[0], pair[1]))[:rows]

    grid, told = [], []
    for share, index in chosen:
        cells, window = _cells(figure, methods, scenes[index], zoom)
        grid += [cells, [cell.crop(window) for cell in cells]]
        grid[-2] = [cell._replace(window=window) for cell in cells]
        down, right = window
        told.append(
            dict(
                image=scenes[index].path,
                differing=round(share, 4),
                window=[right.start, down.start, right.stop - right.start,
                        down.stop - down.start],
            )
        )  # fmt: skip
    titles = ['Image', *(run.name for run in runs)]
    titles += ['Ground truth'] if len(grid[0]) == 4 else []
    draw_grid(titles, grid, figure.legend(), out)
    report = dict(
        runs=[
            dict(name=run.name, config=run.config, checkpoint=run.checkpoint)
            for run in runs
        ],
        predicted=len(differing),
        images=told,
    )
    out.with_suffix('.json').write_text(json.dumps(report, indent=2) + '\n')
    return dict(
        picture=str(out),
        json=str(out.with_suffix('.json')),
        images=told,
        unreadable=unreadable,
    )


class _Scene(NamedTuple):
    path: str
    load_truth: Callable | None = None  # gives a sample with ground truth


def _check_alike(methods: Sequence, runs: Sequence[Run]) -> None:
    for what, look in (
        ('tasks', lambda m: m.scope),
        ('classes', lambda m: list(m.model.dataset_meta['classes'])),
    ):
        if look(methods[0]) != look(methods[1]):
            raise UserError(
                f"the {what} of '{runs[0].name}' and '{runs[1].name}' differ: "
                f'{look(methods[0])} and {look(methods[1])}.'
            )


def _scenes_of_split(methods: Sequence, runs: Sequence[Run]) -> list[_Scene]:
    splits = []
    for method, run in zip(methods, runs):
        if not method.cfg.get('val_dataloader'):
            raise UserError(f'{run.config} has no val_dataloader; name images instead.')
        settings = dict(method.cfg.val_dataloader.dataset, lazy_init=False)
        data = DATASETS.build(settings)
        paths = [data.get_data_info(i)['img_path'] for i in range(len(data))]
        splits.append((data, paths))
    (data, paths), (_, others) = splits
    if paths != others:
        raise UserError(
            f"the val splits of '{runs[0].name}' and '{runs[1].name}' hold "
            'different images; name images instead.'
        )
    return [
        _Scene(path, lambda i=i: data[i]['data_samples'])
        for i, path in enumerate(paths)
    ]


def _cells(figure, methods, scene, zoom) -> tuple[list[Cell], tuple[slice, slice]]:
    """A row of pictures, and the window where the methods differ most."""
    image = read_image(scene.path)
    samples = [method.predict(scene.path) for method in methods]
    one, other = map(figure.labels, samples)
    truth = scene.load_truth() if scene.load_truth else None
    cells = [Cell(image, Path(scene.path).stem)]
    cells += [figure.draw_prediction(sample, image, truth) for sample in samples]
    if truth is not None:
        cells.append(figure.draw_truth(truth, image))
    return cells, densest_window(one != other, zoom)


def densest_window(mask: np.ndarray, zoom: float) -> tuple[slice, slice]:
    """Find the window with the most true pixels.

    Args:
        mask (np.ndarray): (H, W) bool.
        zoom (float): The window is (H / zoom, W / zoom), rounded, and has at
            least one pixel.

    Returns:
        tuple[slice, slice]: Its rows and columns; of equal windows the one
        nearest to the middle of the mask.
    """
    height, width = (max(1, round(side / zoom)) for side in mask.shape)
    sums = np.pad(mask.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    counts = (
        sums[height:, width:]
        - sums[:-height, width:]
        - sums[height:, :-width]
        + sums[:-height, :-width]
    )
    best = np.argwhere(counts == counts.max())
    middle = (np.array(counts.shape) - 1) / 2
    top, left = best[np.square(best - middle).sum(1).argmin()].tolist()
    return slice(top, top + height), slice(left, left + width)


class _LabelFigure(LabelPainter):
    """Fig. 6."""

    def labels(self, sample) -> np.ndarray:
        return labels_of(sample.pred_sem_seg)

    def draw_prediction(self, sample, image: np.ndarray, truth) -> Cell:
        labels = self.labels(sample)
        cell = Cell(self.paint(labels))
        if truth is None:
            return cell
        right = self._truth(truth, image)
        known = right != IGNORED
        share = 100 * (labels == right)[known].mean() if known.any() else 0
        return cell._replace(caption=f'{share:.1f} % of pixels right')

    def draw_truth(self, truth, image: np.ndarray) -> Cell:
        return Cell(self.paint(self._truth(truth, image)))

    def _truth(self, sample, image: np.ndarray) -> np.ndarray:
        labels = labels_of(sample.gt_sem_seg)
        if labels.shape != image.shape[:2]:
            raise UserError(
                f'the label map of {sample.img_path} is {labels.shape} after the '
                f'val pipeline, its image {image.shape[:2]}: LoadAnnotations has '
                'to come after Resize there, so that labels keep their size.'
            )
        return labels


class _ObjectFigure(ObjectPainter):
    """Fig. 7."""

    def __init__(self, meta: dict) -> None:
        super().__init__(meta, fill=0)

    def labels(self, sample) -> np.ndarray:
        found = detections_of(sample)
        labels = np.full(sample.ori_shape[:2], -1)
        for mask, label in reversed(list(zip(found.masks, found.labels))):
            labels[mask] = label
        return labels

    def draw_prediction(self, sample, image: np.ndarray, truth) -> Cell:
        found = detections_of(sample)
        cell = self.draw(found, image)
        if truth is None:
            return cell
        try:
            objects, crowds = truth_of(truth, 'gt'), truth_of(truth, 'ignored')
        except ValueError as error:
            raise UserError(str(error)) from error
        result = match(found, objects, crowds)
        caption = f'{len(result.ious)} of {result.truths} found, {result.false} false'
        return cell._replace(caption=caption)


_FIGURES = {'mmseg': _LabelFigure, 'mmdet': _ObjectFigure}
