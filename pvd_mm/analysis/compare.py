# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Compare trained segmentors: a table of figures and a grid of pictures."""

import json
import math
import os.path as osp
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.registry import init_default_scope
from mmseg.apis import init_model
from mmseg.registry import DATASETS, METRICS
from torch import nn

from pvd_mm import register_all_modules

from .complexity import model_complexity

_IGNORED = 255
_WARM_UP = 2  # passes per method that are not timed
_TIMED = 15  # passes per method that are timed, at least


@dataclass
class Run:
    """One trained method.

    Args:
        name (str): What the table calls it.
        config (str): Path of its config.
        checkpoint (str): Path of its checkpoint.
        work_dir (str, optional): Where ``mim test`` has left its figures
            (``<time>/<time>.json``). Defaults to None: they are computed.
    """

    name: str
    config: str
    checkpoint: str
    work_dir: str | None = None


@dataclass
class _Method:
    """A run, loaded, and what is collected on the way."""

    run: Run
    cfg: Config
    model: nn.Module
    dataset: object
    figures: dict | None
    metrics: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    input_shape: tuple = ()


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

    The figures of a method come from the JSON file that ``mim test`` has
    left in its work directory; where that lacks one of them (or no work
    directory is given) they are computed on the whole test data. Methods are
    run in turn on every image, in this process, so that a busy machine is
    busy for all of them; the time is the median of those passes, from the
    loaded image to the label map.

    The picture shows the images where the methods differ most: as many where
    the last method is ahead of the first, by the number of pixels labelled
    right, as where it is behind.

    Args:
        runs (Sequence[Run]): The methods, in the order of the columns. Their
            test data has to be the same.
        out_dir (str): Where ``compare.md``, ``compare.json`` and
            ``compare.png`` are written.
        images (int): Rows of the picture. Defaults to 4.
        max_images (int): How many images, evenly spread, are run when all
            figures are read from files. Defaults to 100.
        focus (str): The thin class that is reported on its own; its columns
            are empty if the data has no such class. Defaults to 'pole'.
        device (str): 'cpu', 'cuda:0', ... Defaults to 'cpu'.
        progress (Callable): Wraps the list of image indices, e.g.
            ``mmengine.track_iter_progress``. Defaults to none.

    Returns:
        dict: ``rows`` (list of dicts, see :func:`markdown`), ``markdown``,
        ``json`` and ``picture`` (paths).

    Raises:
        FileNotFoundError: A config, checkpoint or work directory is missing.
        ValueError: There is no run, two have the same name, their test data
            differ, or a checkpoint is not of its config's model.
    """
    if not runs:
        raise ValueError('compare: give at least one run.')
    names = [run.name for run in runs]
    if len(set(names)) < len(names):
        raise ValueError(f'compare: the names {names} are not distinct.')
    register_all_modules()
    methods = [_load(run, focus, device) for run in runs]
    _check_same_data(methods)
    computing = [m for m in methods if m.figures is None]
    for method in computing:
        method.metrics = _metrics(method.cfg, method.dataset, focus)
    total = len(methods[0].dataset)
    if computing or total <= max_images:
        indices = list(range(total))
    else:
        indices = np.linspace(0, total - 1, max_images).astype(int).tolist()
    leads = []  # of the last method over the first
    for index in progress(indices):
        preds, truth = [], None
        for method in methods:
            sample = _predict(method, index)
            for metric in method.metrics:
                metric.process({}, [sample.to_dict()])
            preds.append(_labels(sample.pred_sem_seg))
            truth = _labels(sample.gt_sem_seg)
        right = [(p == truth)[truth != _IGNORED] for p in (preds[0], preds[-1])]
        leads.append((int(right[1].sum()) - int(right[0].sum()), index))
    _time(methods, indices[0])

    for method in computing:
        method.figures = {}
        for metric in method.metrics:
            method.figures.update(metric.evaluate(len(indices)))
    rows = [_row(method, focus) for method in methods]

    out = Path(out_dir)
    out.mkdir(parents=True, exist_ok=True)
    chosen = most_different(leads, images)
    picture = out / 'compare.png'
    draw_grid(methods, chosen, picture)
    table = markdown(rows, focus)
    (out / 'compare.md').write_text(table + '\n')
    report = dict(
        focus=focus,
        runs=[vars(run) for run in runs],
        rows=rows,
        pictured=[
            methods[0].dataset.get_data_info(index)['img_path'] for index in chosen
        ],
    )
    (out / 'compare.json').write_text(json.dumps(report, indent=2) + '\n')
    return dict(
        rows=rows,
        markdown=str(out / 'compare.md'),
        json=str(out / 'compare.json'),
        picture=str(picture),
    )


# ---- loading ---------------------------------------------------------------


def _load(run: Run, focus: str, device: str) -> _Method:
    for what in ('config', 'checkpoint'):
        path = getattr(run, what)
        if not osp.isfile(path):
            raise FileNotFoundError(
                f"run '{run.name}': the {what} '{path}' does not exist."
            )
    cfg = Config.fromfile(run.config)
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    settings = dict(cfg.test_dataloader.dataset, lazy_init=False)
    dataset = DATASETS.build(settings)
    figures = None
    if run.work_dir is not None:
        figures = read_figures(run.work_dir)
        wanted = _keys(focus, dataset.metainfo['classes'])
        if figures is None or not wanted <= set(figures):
            figures = None
    model = init_model(cfg, None, device)
    model.dataset_meta = dataset.metainfo
    _load_weights(model, run)
    return _Method(run, cfg, model.eval(), dataset, figures)


def _load_weights(model: nn.Module, run: Run) -> None:
    content = torch.load(run.checkpoint, map_location='cpu', weights_only=True)
    weights = content.get('state_dict', content)
    there, given = model.state_dict(), dict(weights)
    missing = sorted(set(there) - set(given))
    unexpected = sorted(set(given) - set(there))
    misfit = sorted(
        key for key in set(there) & set(given) if there[key].shape != given[key].shape
    )
    if missing or unexpected or misfit:
        parts = [
            f'{what}: {", ".join(keys[:3])}'
            + (f' and {len(keys) - 3} more' if len(keys) > 3 else '')
            for what, keys in (
                ('missing', missing),
                ('not in the model', unexpected),
                ('of another shape', misfit),
            )
            if keys
        ]
        raise ValueError(
            f"run '{run.name}': the checkpoint '{run.checkpoint}' is not of "
            f"the model in '{run.config}' ({'; '.join(parts)})."
        )
    model.load_state_dict(given)


def read_figures(work_dir: str) -> dict | None:
    """Read what the last test run has left in a work directory.

    Args:
        work_dir (str): As given to ``mim test`` (``--work-dir``).

    Returns:
        dict | None: Metric name to value in percent, from the newest
        ``<time>/<time>.json`` that has an mIoU; None if there is none.

    Raises:
        FileNotFoundError: The directory does not exist.
    """
    root = Path(work_dir)
    if not root.is_dir():
        raise FileNotFoundError(f"the work directory '{root}' does not exist.")
    files = [p for p in root.glob('*/*.json') if p.stem == p.parent.name]
    for path in sorted(files, key=lambda p: p.parent.name, reverse=True):
        try:
            content = json.loads(path.read_text())
        except ValueError:
            continue
        if isinstance(content, dict) and 'mIoU' in content:
            return content
    return None


def _keys(focus: str, classes: Sequence[str]) -> set[str]:
    keys = {'mIoU', 'mBoundaryIoU'}
    if focus in classes:
        keys |= {f'IoU.{focus}', f'BoundaryIoU.{focus}'}
    return keys


def _check_same_data(methods: list[_Method]) -> None:
    first = methods[0]
    for other in methods[1:]:
        for what, a, b in (
            (
                'classes',
                list(first.dataset.metainfo['classes']),
                list(other.dataset.metainfo['classes']),
            ),
            ('number of images', len(first.dataset), len(other.dataset)),
            ('images', _image_paths(first), _image_paths(other)),
        ):
            if a != b:
                raise ValueError(
                    f"the test data of '{first.run.name}' and "
                    f"'{other.run.name}' differ in their {what}; only "
                    'methods that are tested on the same data compare.'
                )


def _image_paths(method: _Method) -> list[str]:
    data = method.dataset
    return [osp.realpath(data.get_data_info(i)['img_path']) for i in range(len(data))]


def _metrics(cfg: Config, dataset, focus: str) -> list:
    """IoU and boundary IoU, the latter as the config sets it."""
    settings = cfg.get('test_evaluator', [])
    settings = [settings] if isinstance(settings, dict) else settings
    boundary = dict(type='BoundaryIoUMetric')
    for metric in settings:
        if str(metric['type']).endswith('BoundaryIoUMetric'):
            boundary = dict(metric)
    classes = dataset.metainfo['classes']
    boundary['report_classes'] = [focus] if focus in classes else []
    boundary.pop('prefix', None)
    metrics = [METRICS.build(dict(type='IoUMetric', iou_metrics=['mIoU']))]
    metrics.append(METRICS.build(boundary))
    for metric in metrics:
        metric.dataset_meta = dataset.metainfo
    return metrics


# ---- running ---------------------------------------------------------------


def _predict(method: _Method, index: int, data=None):
    """Predict one image and note the time; the sample that comes back."""
    if data is None:
        data = pseudo_collate([method.dataset[index]])
    if not method.input_shape:
        with torch.no_grad():
            batch = method.model.data_preprocessor(data, False)
        method.input_shape = tuple(batch['inputs'].shape[1:])
    cuda = next(method.model.parameters()).is_cuda
    start = _now(cuda)
    with torch.no_grad():
        sample = method.model.test_step(data)[0]
    method.seconds.append(_now(cuda) - start)
    return sample


def _now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def most_different(leads: Sequence[tuple[int, int]], number: int) -> list[int]:
    """Choose images by how far one method leads another.

    Args:
        leads (Sequence[tuple[int, int]]): (lead, image), the lead negative
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


def _time(methods: list[_Method], index: int) -> None:
    """Add passes, in turn, until there are enough of them to time."""
    data = [pseudo_collate([m.dataset[index]]) for m in methods]
    while len(methods[0].seconds) < _WARM_UP + _TIMED:
        for method, batch in zip(methods, data, strict=True):
            _predict(method, index, batch)


def _labels(pixel_data) -> np.ndarray:
    return pixel_data.data[0].cpu().numpy()


def _row(method: _Method, focus: str) -> dict:
    cost = model_complexity(method.model, method.input_shape)

    def figure(key: str) -> float | None:
        value = method.figures.get(key)
        absent = value is None or math.isnan(value)
        return None if absent else round(float(value), 2)

    return dict(
        method=method.run.name,
        miou=figure('mIoU'),
        boundary_iou=figure('mBoundaryIoU'),
        focus_iou=figure(f'IoU.{focus}'),
        focus_boundary_iou=figure(f'BoundaryIoU.{focus}'),
        params_m=round(cost['params'] / 1e6, 2),
        gmacs=round(cost['macs'] / 1e9, 2),
        input_size=list(method.input_shape[1:]),
        seconds=round(float(np.median(method.seconds[_WARM_UP:])), 4),
        passes=len(method.seconds) - _WARM_UP,
        figures='computed' if method.metrics else 'read from files',
    )


def markdown(rows: Sequence[dict], focus: str = 'pole') -> str:
    """Format the rows of :func:`compare` as a Markdown table.

    Args:
        rows (Sequence[dict]): Per method: ``method``, ``miou``,
            ``boundary_iou``, ``focus_iou``, ``focus_boundary_iou`` (percent
            or None), ``params_m`` (millions), ``gmacs``, ``seconds`` (per
            image).
        focus (str): Name of the class in the focus columns.

    Returns:
        str: The table, without a line break at its end.
    """
    columns = (
        ('Method', 'method', '{}'),
        ('mIoU', 'miou', '{:.2f}'),
        ('Boundary IoU', 'boundary_iou', '{:.2f}'),
        (f'IoU {focus}', 'focus_iou', '{:.2f}'),
        (f'Boundary IoU {focus}', 'focus_boundary_iou', '{:.2f}'),
        ('Params (M)', 'params_m', '{:.2f}'),
        ('GMACs', 'gmacs', '{:.2f}'),
        ('s / image', 'seconds', '{:.3f}'),
    )
    cells = [[title for title, _, _ in columns]]
    for row in rows:
        cells.append(
            [
                '-' if row[key] is None else form.format(row[key])
                for _, key, form in columns
            ]
        )
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = []
    for i, line in enumerate(cells):
        padded = [
            cell.ljust(w) if j == 0 else cell.rjust(w)
            for j, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        lines.append('| ' + ' | '.join(padded) + ' |')
        if i == 0:
            rule = ['-' * widths[0]] + ['-' * (w - 1) + ':' for w in widths[1:]]
            lines.append('| ' + ' | '.join(rule) + ' |')
    return '\n'.join(lines)


# ---- drawing ---------------------------------------------------------------


def draw_grid(methods: Sequence[_Method], indices: Sequence[int], path: Path) -> None:
    """Draw image, ground truth and every prediction, a row per image.

    Args:
        methods (Sequence[_Method]): The loaded methods.
        indices (Sequence[int]): The images of their data set.
        path (Path): The PNG file.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    meta = methods[0].dataset.metainfo
    classes = meta['classes']
    palette = np.zeros((256, 3), np.uint8)
    palette[: len(classes)] = meta['palette']

    grid, shown = [], np.zeros(256, bool)
    for index in indices:
        row, truth, image_path = [], None, ''
        for method in methods:
            sample = _predict(method, index)
            pred, truth = _labels(sample.pred_sem_seg), _labels(sample.gt_sem_seg)
            image_path = sample.img_path
            known = truth != _IGNORED
            score = 100 * (pred == truth)[known].mean() if known.any() else 0
            shown[np.unique(pred)] = True
            row.append((palette[pred], f'{score:.1f} % of pixels right'))
        shown[np.unique(truth)] = True
        image = cv2.imread(image_path, cv2.IMREAD_COLOR)[..., ::-1]
        name = osp.splitext(osp.basename(image_path))[0]
        name = name.removesuffix('_leftImg8bit')
        grid.append([(image, name), (palette[truth], ''), *row])

    titles = ['Image', 'Ground truth', *(m.run.name for m in methods)]
    height, width = grid[0][0][0].shape[:2]
    cell = 4.0
    line = cell * height / width + 0.32
    per_row = max(1, int(len(titles) * cell / 1.75))
    named = [i for i in range(len(classes)) if shown[i]]
    entries = [(classes[i], palette[i] / 255) for i in named]
    if shown[_IGNORED]:
        entries.append(('unlabelled', palette[_IGNORED] / 255))
    foot = 0.3 * math.ceil(len(entries) / per_row) + 0.25
    head = 0.42
    total = (len(titles) * cell, len(grid) * line + head + foot)
    figure = Figure(figsize=total, dpi=120)
    FigureCanvasAgg(figure)
    for r, row in enumerate(grid):
        for c, (picture, caption) in enumerate(row):
            bottom = total[1] - head - (r + 1) * line + 0.3
            axes = figure.add_axes(
                (
                    (c + 0.01) / len(titles),
                    bottom / total[1],
                    0.98 / len(titles),
                    (line - 0.32) / total[1],
                )
            )
            axes.imshow(picture, interpolation='nearest', aspect='auto')
            axes.set_xticks([])
            axes.set_yticks([])
            axes.set_xlabel(caption, fontsize=10, labelpad=3)
            if r == 0:
                axes.set_title(titles[c], fontsize=14, pad=6)
    figure.legend(
        handles=[
            Patch(facecolor=color, edgecolor='0.4', label=name)
            for name, color in entries
        ],
        loc='lower center',
        ncol=min(per_row, len(entries)),
        fontsize=10,
        frameon=False,
        handlelength=1.2,
        columnspacing=1.2,
    )
    figure.savefig(path)
