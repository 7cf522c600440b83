# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Two trained models side by side, as in the paper's Figs. 6 and 7."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pvd_mm.apis.images import UnreadableImage, find_images, read_image
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.files import check_out_file
from pvd_mm.visualization.grid import Cell, draw_grid

from .kinds import make_task, task_of
from .runs import Run, build_dataset, evenly_spread, image_paths, load_run


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
    """Draw images, what two models predict for them, and the ground truth.

    Segmentors give Fig. 6, painted label maps; detectors Fig. 7, objects with
    a score of at least 0.5 as contours with label and score; panoptic models
    their segments, things outlined. Shown are the
    images where the two models differ in the most pixels, whichever of them
    is right, and below each image the window where they differ most. Of
    detectors a pixel's label is the class of the most certain object on it.

    Args:
        runs (Sequence[Run]): Two models: name, config and checkpoint.
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
        UserError: There are not two models, their tasks, classes or val
            splits differ, there are no images, a file is there already, or
            what :func:`.load_run` raises.
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
    models = [load_run(run, device) for run in runs]
    _check_same_task(models, runs)
    meta = models[0].model.dataset_meta
    task = make_task(task_of(models[0]), models[0].model, meta, contours=True)
    scenes = (
        _scenes_of_split(models, runs)
        if paths is None
        else [_Scene(str(path)) for path in paths]
    )

    differing, unreadable = [], {}
    for index in progress(evenly_spread(len(scenes), max_images)):
        path = scenes[index].path
        try:
            read_image(path)
        except UnreadableImage as error:
            unreadable[path] = str(error)
            continue
        labels = [task.labels(model.predict(path)) for model in models]
        differing.append((float((labels[0] != labels[1]).mean()), index))
    if not differing:
        raise UserError(f'none of {len(unreadable)} images could be read.')
    differing.sort(key=lambda pair: (-pair[0], pair[1]))

    grid, drawn = [], []
    for share, index in differing[:rows]:
        cells, window = _cells(task, models, scenes[index], zoom)
        grid.append([cell._replace(window=window) for cell in cells])
        grid.append([cell.crop(window) for cell in cells])
        down, right = window
        width, height = right.stop - right.start, down.stop - down.start
        drawn.append(
            dict(
                image=scenes[index].path,
                differing=round(share, 4),
                window=[right.start, down.start, width, height],
            )
        )
    titles = ['Image', *(run.name for run in runs)]
    titles += ['Ground truth'] if len(grid[0]) == 4 else []
    draw_grid(titles, grid, task.legend(), out)
    report = dict(
        runs=[
            dict(name=run.name, config=run.config, checkpoint=run.checkpoint)
            for run in runs
        ],
        predicted=len(differing),
        images=drawn,
    )
    json_file = out.with_suffix('.json')
    json_file.write_text(json.dumps(report, indent=2) + '\n')
    return dict(
        picture=str(out), json=str(json_file), images=drawn, unreadable=unreadable
    )


class _Scene(NamedTuple):
    path: str
    load_truth: Callable | None = None  # gives a sample with ground truth


def _check_same_task(models: Sequence, runs: Sequence[Run]) -> None:
    for feature, of in (
        ('tasks', task_of),
        ('classes', lambda model: list(model.model.dataset_meta['classes'])),
    ):
        if of(models[0]) != of(models[1]):
            raise UserError(
                f"the {feature} of '{runs[0].name}' and '{runs[1].name}' differ: "
                f'{of(models[0])} and {of(models[1])}.'
            )


def _scenes_of_split(models: Sequence, runs: Sequence[Run]) -> list[_Scene]:
    for model, run in zip(models, runs):
        if not model.cfg.get('val_dataloader'):
            raise UserError(f'{run.config} has no val_dataloader; name images instead.')
    data, other = (build_dataset(model.cfg, 'val') for model in models)
    paths = image_paths(data)
    if paths != image_paths(other):
        raise UserError(
            f"the val splits of '{runs[0].name}' and '{runs[1].name}' hold "
            'different images; name images instead.'
        )
    return [
        _Scene(path, lambda i=i: data[i]['data_samples'])
        for i, path in enumerate(paths)
    ]


def _cells(task, models, scene, zoom) -> tuple[list[Cell], tuple[slice, slice]]:
    """A row of pictures, and the window where the models differ most."""
    image = read_image(scene.path)
    samples = [model.predict(scene.path) for model in models]
    labels = [task.labels(sample) for sample in samples]
    truth = scene.load_truth() if scene.load_truth else None
    cells = [Cell(image, Path(scene.path).stem)]
    cells += [task.draw_prediction(sample, image, truth) for sample in samples]
    if truth is not None:
        cells.append(task.draw_truth(truth, image))
    return cells, densest_window(labels[0] != labels[1], zoom)


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
