# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Tables and plots of a grid's results."""

import math
import statistics
from collections.abc import Sequence
from functools import partial

from pvd_mm.utils.markdown import fill_blocks, markdown_table

from .grid import Grid
from .results import results_of

_TIMES = {'time / step': 'step_seconds', 'time': 'seconds'}


def table(grid: Grid, title: str, results: Sequence[dict]) -> str:
    """A table in Markdown: mean, least and greatest over the seeds; the
    training time per step and in all as a ratio to the baseline's mean, of
    trainings that ran one at a time."""
    baseline = list(results_of(grid.trial(grid.baseline), results).values())
    times = _TIMES if _comparable_times(baseline) else {}
    rows = []
    for trial in grid.tables[title]:
        seeds = list(results_of(trial, results).values())
        rows.append(
            [
                trial.name,
                *(_metric(seeds, key) for key in grid.metrics.values()),
                *(_ratio(seeds, baseline, key) for key in times.values()),
                str(seeds[0]['steps']) if seeds else '-',
                str(len(seeds)),
            ]
        )
    return markdown_table(['Method', *grid.metrics, *times, 'steps', 'seeds'], rows)


def _percent(metrics: dict, key: str) -> float:
    """pycocotools gives shares, mmseg percent; NaN where there was nothing to
    measure, such as the pieces of objects that are all missed."""
    if metrics[key] is None:
        return math.nan
    return metrics[key] * (100 if key.startswith('coco/') else 1)


def _metric(seeds: Sequence[dict], key: str) -> str:
    measured = [
        _percent(result['metrics'], key) for result in seeds if key in result['metrics']
    ]
    if not measured:
        return 'not run'
    values = [value for value in measured if not math.isnan(value)]
    if not values:
        return '-'
    mean = f'{statistics.fmean(values):.2f}'
    if len(values) == 1:
        return mean
    return f'{mean} ({min(values):.2f} to {max(values):.2f})'


def _ratio(seeds: Sequence[dict], baseline: Sequence[dict], key: str) -> str:
    if not _comparable_times(seeds):
        return '-'
    own, base = (
        statistics.fmean(result[key] for result in results)
        for results in (seeds, baseline)
    )
    return f'{own / base:.2f}'


def _comparable_times(results: Sequence[dict]) -> bool:
    """Whether every training ran by itself."""
    return bool(results) and all(result.get('jobs') == 1 for result in results)


def markdown(grid: Grid, results: Sequence[dict]) -> str:
    """All tables, each under its title."""
    return '\n\n'.join(
        f'### {title}\n\n{table(grid, title, results)}' for title in grid.tables
    )


def update_blocks(text: str, grid: Grid, results: Sequence[dict]) -> str:
    """Make a page's tables anew; a block's name is the table's title.

    Raises:
        ValueError: If no block names a table of the grid.
    """
    return fill_blocks(
        text, {title: partial(table, grid, title, results) for title in grid.tables}
    )


def plot(grid: Grid, title: str, results: Sequence[dict], path: str) -> None:
    """Draw the first metric of a table's trials, the mean over seeds and the
    range between them, over steps, and over training time if they were
    trained one at a time."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    column, key = next(iter(grid.metrics.items()))
    trials = {
        trial.name: list(results_of(trial, results).values())
        for trial in grid.tables[title]
    }
    timed = _comparable_times([seed for seeds in trials.values() for seed in seeds])
    figure = Figure(figsize=(10 if timed else 6, 4), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, 1 + timed, sharey=True, squeeze=False)[0]
    for name, seeds in trials.items():
        if not seeds:
            continue
        steps = sorted(
            set.intersection(*({int(step) for step in seed['curve']} for seed in seeds))
        )
        values = [
            [_percent(seed['curve'][str(step)], key) for seed in seeds]
            for step in steps
        ]
        pace = statistics.fmean(seed['seconds'] / seed['steps'] for seed in seeds)
        for ax, scale in zip(axes, (1.0, pace / 60)):
            x = [step * scale for step in steps]
            (line,) = ax.plot(x, list(map(statistics.fmean, values)), 'o-', label=name)
            ax.fill_between(
                x,
                list(map(min, values)),
                list(map(max, values)),
                alpha=0.15,
                color=line.get_color(),
                linewidth=0,
            )
    for ax, label in zip(axes, ('step', 'training time (minutes)')):
        ax.set_xlabel(label)
        ax.grid(alpha=0.3)
    axes[0].set_ylabel(f'{column} (%)')
    if axes[0].lines:
        axes[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
