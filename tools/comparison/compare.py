# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Compare trained models: a table of metrics and costs, and a grid of pictures."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from pvd_mm.apis.complexity import model_complexity
from pvd_mm.apis.images import read_image
from pvd_mm.utils.files import make_folder
from pvd_mm.utils.markdown import markdown_table
from pvd_mm.visualization.grid import Cell, draw_grid

from .kinds import make_task
from .runs import (
    WARM_UP,
    Candidate,
    Run,
    add_passes,
    evenly_spread,
    image_paths,
    load_candidates,
    read_metrics,
)
from .tasks import Column

_COSTS = (
    Column('Params (M)', 'params_m'),
    Column('GMACs', 'gmacs'),
    Column('s / image', 'seconds', form='{:.3f}'),
)


def compare(
    runs: Sequence[Run],
    out_dir: str,
    images: int = 4,
    max_images: int = 100,
    focus: str = 'pole',
    device: str = 'cpu',
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Compare trained models on the test data of their configs.

    All of them are segmentors, or all are detectors with masks, by the
    ``default_scope`` of their configs, or all are panoptic models.

    The metrics of a model come from the JSON file that its test has left in its
    work directory; where that lacks one of them (or no work directory is given)
    they are computed on the whole test data. Models take turns on every image,
    in this process, so that a busy machine is busy for all of them; the time is
    the median of those passes, from the loaded image to the label map or to the
    masks. Multiply-accumulates are counted by
    :func:`pvd_mm.apis.complexity.model_complexity`.

    The picture shows the images where the models differ most: as many where
    the last model is ahead of the first, by the number of pixels labelled
    right or by the panoptic quality of the image, as where it is behind.

    Args:
        runs (Sequence[Run]): The models, in the order of the rows. Their test
            data has to be the same.
        out_dir (str): Where ``compare.md``, ``compare.json`` and
            ``compare.png`` are written.
        images (int): Rows of the picture. Defaults to 4.
        max_images (int): How many images, evenly spread, are run when all
            metrics are read from files. Defaults to 100.
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
        UserError: ``out_dir`` cannot be a folder, a work directory is missing,
            or what :func:`.load_candidates` raises.
        ValueError: See :func:`.load_candidates`.
    """
    out = make_folder(out_dir)
    candidates = load_candidates(runs, device)
    first = candidates[0]
    meta = first.dataset.metainfo
    task = make_task(first.task, first.inferencer.model, meta, focus)
    read = {
        run.name: run.work_dir and read_metrics(run.work_dir, task.wanted)
        for run in runs
    }
    computed = {
        candidate.run.name: task.metrics(candidate.inferencer.cfg, candidate.dataset)
        for candidate in candidates
        if not read[candidate.run.name]
    }
    total = len(first.dataset)
    indices = evenly_spread(total, total if computed else max_images)
    leads = []  # of the last model over the first
    for index in progress(indices):
        qualities = []
        for candidate in candidates:
            sample = candidate.predict(index)
            for metric in computed.get(candidate.run.name, ()):
                metric.process({}, [sample.to_dict()])
            qualities.append(task.quality(sample))
        leads.append((qualities[-1] - qualities[0], index))
    add_passes(candidates, indices[0])

    rows = []
    for candidate in candidates:
        name = candidate.run.name
        metrics = read[name] or {
            key: value
            for metric in computed[name]
            for key, value in metric.evaluate(len(indices)).items()
        }
        rows.append(
            dict(
                method=name,
                **{column.key: column.value(metrics) for column in task.columns},
                **_costs(candidate, candidate.input_shape(indices[0])),
                figures='computed' if name in computed else 'read from files',
            )
        )

    chosen = most_different(leads, images)
    grid = [_pictures(candidates, task, index) for index in chosen]
    titles = ['Image', 'Ground truth', *(run.name for run in runs)]
    files = {key: out / f'compare.{key}' for key in ('md', 'json', 'png')}
    draw_grid(titles, grid, task.legend(), files['png'])
    files['md'].write_text(_table(rows, [*task.columns, *_COSTS]) + '\n')
    report = dict(
        focus=focus,
        runs=[vars(run) for run in runs],
        rows=rows,
        pictured=[image_paths(first.dataset)[index] for index in chosen],
    )
    files['json'].write_text(json.dumps(report, indent=2) + '\n')
    return dict(
        rows=rows,
        markdown=str(files['md']),
        json=str(files['json']),
        picture=str(files['png']),
    )


def most_different(leads: Sequence[tuple[float, int]], number: int) -> list[int]:
    """Choose images by how far one model leads another.

    Args:
        leads (Sequence[tuple[float, int]]): (lead, image), the lead negative
            where the model is behind.
        number (int): How many images.

    Returns:
        list[int]: Images: half of them (rounded up) with the largest leads,
        largest first, then those with the smallest, smallest last.
    """
    ordered = [
        image for _, image in sorted(leads, key=lambda pair: (-pair[0], pair[1]))
    ]
    if number >= len(ordered):
        return ordered
    behind = number // 2
    return ordered[: number - behind] + ordered[len(ordered) - behind :]


def _table(rows: Sequence[dict], columns: Sequence[Column]) -> str:
    head = ['Method', *(column.title for column in columns)]
    cells = [[row['method'], *(column.cell(row) for column in columns)] for row in rows]
    return markdown_table(head, cells, padded=True)


def _costs(candidate: Candidate, input_shape: tuple[int, ...]) -> dict:
    cost = model_complexity(candidate.inferencer.model, input_shape)
    return dict(
        params_m=round(cost['params'] / 1e6, 2),
        gmacs=round(cost['macs'] / 1e9, 2),
        input_size=list(input_shape[1:]),
        seconds=round(float(np.median(candidate.seconds[WARM_UP:])), 4),
        passes=len(candidate.seconds) - WARM_UP,
    )


def _pictures(candidates: Sequence[Candidate], task, index: int) -> list[Cell]:
    """A row of the grid: image, ground truth and every prediction."""
    samples = [candidate.predict(index) for candidate in candidates]
    path = Path(samples[0].img_path)
    image = read_image(path)
    return [
        Cell(image, path.stem.removesuffix('_leftImg8bit')),
        task.draw_truth(samples[0], image),
        *(task.draw_prediction(sample, image, sample) for sample in samples),
    ]
