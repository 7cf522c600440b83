# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Compare trained models: a table of figures and a grid of pictures.

What segmentors and detectors have in common; what differs is in
:mod:`comparison.segmentors` and
:mod:`comparison.detectors`.
"""

import json
import os.path as osp
from collections.abc import Callable, Iterable, Sequence

import cv2
import numpy as np
from mmengine.registry import init_default_scope

from pvd_mm import register_all_modules
from pvd_mm.apis.complexity import model_complexity
from pvd_mm.apis.runs import (
    WARM_UP,
    Method,
    Run,
    add_passes,
    load_all,
    predict,
    read_figures,
)
from pvd_mm.utils.files import make_folder
from pvd_mm.visualization.picture_grid import Cell, draw_grid

from .detectors import InstanceTask
from .segmentors import SemanticTask
from .table import COSTS, markdown

__all__ = ['Run', 'compare', 'most_different']

#: ``default_scope`` of a config -> its task.
TASKS = {'mmseg': SemanticTask, 'mmdet': InstanceTask}


def compare(
    runs: Sequence[Run],
    out_dir: str,
    images: int = 4,
    max_images: int = 100,
    focus: str = 'pole',
    device: str = 'cpu',
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Compare methods on the test data of their configs.

    All of them are segmentors or all are detectors with masks, by the
    ``default_scope`` of their configs.

    The figures of a method come from the JSON file that ``mim test`` has
    left in its work directory; where that lacks one of them (or no work
    directory is given) they are computed on the whole test data. Methods are
    run in turn on every image, in this process, so that a busy machine is
    busy for all of them; the time is the median of those passes, from the
    loaded image to the label map or to the masks. What is counted as
    multiply-accumulates is told by
    :func:`pvd_mm.apis.complexity.model_complexity`.

    The picture shows the images where the methods differ most: as many where
    the last method is ahead of the first, by the number of pixels labelled
    right or by the panoptic quality of the image, as where it is behind.

    Args:
        runs (Sequence[Run]): The methods, in the order of the columns. Their
            test data has to be the same.
        out_dir (str): Where ``compare.md``, ``compare.json`` and
            ``compare.png`` are written.
        images (int): Rows of the picture. Defaults to 4.
        max_images (int): How many images, evenly spread, are run when all
            figures are read from files. Defaults to 100.
        focus (str): The thin class of segmentors that is reported on its own;
            its columns are empty if the data has no such class. Defaults to
            'pole'.
        device (str): 'cpu', 'cuda:0', ... Defaults to 'cpu'.
        progress (Callable): Wraps the list of image indices, e.g.
            ``mmengine.track_iter_progress``. Defaults to none.

    Returns:
        dict: ``rows`` (list of dicts), ``markdown``, ``json`` and
        ``picture`` (paths).

    Raises:
        BlockedPathError: ``out_dir`` cannot be a folder.
        FileNotFoundError: A config, checkpoint or work directory is missing.
        ValueError: There is no run, two have the same name, their test data
            differ, or a checkpoint is not of its config's model.
    """
    out = make_folder(out_dir)
    register_all_modules()
    methods = load_all(runs, device)
    first = methods[0]
    init_default_scope(first.scope)
    task = TASKS[first.scope](first.dataset, focus)
    for method in methods:
        if method.run.work_dir is not None:
            method.figures = read_figures(method.run.work_dir, task.wanted)
    computing = [m for m in methods if m.figures is None]
    for method in computing:
        method.metrics = task.metrics(method.cfg)
        for metric in method.metrics:
            metric.dataset_meta = method.dataset.metainfo
    total = len(first.dataset)
    if computing or total <= max_images:
        indices = list(range(total))
    else:
        indices = np.linspace(0, total - 1, max_images).astype(int).tolist()
    leads = []  # of the last method over the first
    for index in progress(indices):
        qualities = []
        for method in methods:
            sample = predict(method, index)
            for metric in method.metrics:
                metric.process({}, [sample.to_dict()])
            qualities.append(task.quality(sample))
        leads.append((qualities[-1] - qualities[0], index))
    add_passes(methods, indices[0])

    for method in computing:
        method.figures = {}
        for metric in method.metrics:
            method.figures.update(metric.evaluate(len(indices)))
    rows = [_row(method, task) for method in methods]

    chosen = most_different(leads, images)
    grid = [_pictures(methods, task, index) for index in chosen]
    titles = ['Image', 'Ground truth', *(run.name for run in runs)]
    draw_grid(titles, grid, task.legend(), out / 'compare.png')
    table = markdown(rows, [*task.columns, *COSTS])
    (out / 'compare.md').write_text(table + '\n')
    report = dict(
        focus=focus,
        runs=[vars(run) for run in runs],
        rows=rows,
        pictured=[first.dataset.get_data_info(index)['img_path'] for index in chosen],
    )
    (out / 'compare.json').write_text(json.dumps(report, indent=2) + '\n')
    return dict(
        rows=rows,
        markdown=str(out / 'compare.md'),
        json=str(out / 'compare.json'),
        picture=str(out / 'compare.png'),
    )


def most_different(leads: Sequence[tuple[float, int]], number: int) -> list[int]:
    """Choose images by how far one method leads another.

    Args:
        leads (Sequence[tuple[float, int]]): (lead, image), the lead negative
            where the method is behind.
        number (int): How many images.

    Returns:
        list[int]: Images: half of them (rounded up) with the largest leads,
        largest first, then those with the smallest, smallest last.
    """
    ordered = [image for _, image in sorted(leads, key=lambda d: (-d[0], d[1]))]
    if number >= len(ordered):
        return ordered
    behind = number // 2
    return ordered[: number - behind] + ordered[len(ordered) - behind :]


def _row(method: Method, task) -> dict:
    cost = model_complexity(method.model, method.input_shape)
    return dict(
        method=method.run.name,
        **{column.key: column.value(method.figures) for column in task.columns},
        params_m=round(cost['params'] / 1e6, 2),
        gmacs=round(cost['macs'] / 1e9, 2),
        input_size=list(method.input_shape[1:]),
        seconds=round(float(np.median(method.seconds[WARM_UP:])), 4),
        passes=len(method.seconds) - WARM_UP,
        figures='computed' if method.metrics else 'read from files',
    )


def _pictures(methods: Sequence[Method], task, index: int) -> list[Cell]:
    """A row of the grid: image, ground truth and every prediction."""
    samples = [predict(method, index) for method in methods]
    path = samples[0].img_path
    image = cv2.imread(path, cv2.IMREAD_COLOR)[..., ::-1]
    name = osp.splitext(osp.basename(path))[0].removesuffix('_leftImg8bit')
    return [
        Cell(image, name),
        task.draw_truth(samples[0], image),
        *(task.draw_prediction(sample, image) for sample in samples),
    ]
