# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Does a chain of votes stay stable? The size of every decoded map, and of the
loss's gradient by it, step by step of a real training.

A step multiplies by its votes, so that a chain of L steps can grow or shrink
as the L-th power of one: forwards the maps from y_L to y_0, backwards the
gradients from y_0 to y_L.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from mmengine.hooks import Hook
from torch import Tensor

from pvd_mm.decoder import PixelVotingDecoder
from pvd_mm.engine.config import adapt_to_cpu, add_hooks, build_runner, load_config
from pvd_mm.utils.errors import UserError
from pvd_mm.utils.markdown import markdown_table


@dataclass
class LevelNorms:
    """The norms of a training.

    Args:
        name (str): Its name in plots and tables.
        decoded (list[list[float]]): For each step of training the root mean
            square of y_0 … y_L.
        gradients (list[list[float]]): The same of the gradients by them.
    """

    name: str
    decoded: list = field(default_factory=list)
    gradients: list = field(default_factory=list)

    @property
    def diverged(self) -> bool:
        """Has anything become infinite or not a number?"""
        return not all(
            math.isfinite(value)
            for rows in (self.decoded, self.gradients)
            for row in rows
            for value in row
        )


def _rms(x: Tensor) -> float:
    return x.detach().float().square().mean().sqrt().item()


class LevelNormsHook(Hook):
    """Fills a :class:`LevelNorms`."""

    def __init__(self, norms: LevelNorms) -> None:
        self.norms = norms

    def before_train(self, runner) -> None:
        """Start to listen."""
        decoder = next(
            (m for m in runner.model.modules() if isinstance(m, PixelVotingDecoder)),
            None,
        )
        if decoder is None:
            raise UserError(f'{self.norms.name} has no PixelVotingDecoder')
        self.handle = decoder.register_forward_hook(self._record)

    def after_train(self, runner) -> None:
        """Stop."""
        self.handle.remove()

    def _record(self, decoder, maps, decoded: Sequence[Tensor]) -> None:
        if not decoder.training:
            return
        row = [0.0] * len(decoded)
        self.norms.decoded.append([_rms(y) for y in decoded])
        self.norms.gradients.append(row)

        def note(level: int, gradient: Tensor) -> None:
            row[level] = _rms(gradient)

        for level, y in enumerate(decoded):
            y.register_hook(partial(note, level))


def record_level_norms(
    name: str,
    config: str,
    work_dir: str,
    steps: int = 100,
    cfg_options: dict | None = None,
) -> LevelNorms:
    """Train for some steps and record.

    Args:
        name (str): See :class:`LevelNorms`.
        config (str): A semantic config with a PVD head.
        work_dir (str): Where the training logs.
        steps (int): Steps of training. Defaults to 100.
        cfg_options (dict, optional): Overrides.

    Returns:
        LevelNorms: A row for each step; the last one is where it diverged, if
        mmengine or torch ended the training for that.

    Raises:
        UserError: If the model has no :class:`.PixelVotingDecoder` that is
            called as a whole, as the semantic head does.
        UsageError: If there is no such config.
    """
    cfg = load_config(config, work_dir, cfg_options)
    if cfg.get('default_scope') == 'mmdet':
        raise UserError(
            f'{config} is of mmdet; level norms are recorded of semantic configs'
        )
    # one name, one logger in mmengine
    cfg.visualizer.name = work_dir
    cfg.train_cfg.max_iters = steps
    cfg.val_dataloader = cfg.val_cfg = cfg.val_evaluator = None
    cfg.default_hooks.checkpoint = None
    cfg.setdefault('randomness', dict(seed=0))
    norms = LevelNorms(name)
    add_hooks(cfg)
    adapt_to_cpu(cfg)
    runner = build_runner(cfg)
    runner.register_hook(LevelNormsHook(norms))
    runner.train()
    return norms


def table(recorded: Sequence[LevelNorms]) -> str:
    """For each training in Markdown: y_0 and y_L in the last step, how large
    y_0 ever was, and how the gradient grows from y_0 to y_L."""
    head = [
        'training',
        'steps',
        'rms y_0',
        'rms y_L',
        'largest y_0',
        'gradient y_L / y_0',
    ]
    rows = []
    for norms in recorded:
        decoded, gradient = norms.decoded[-1], norms.gradients[-1]
        ratio = gradient[-1] / gradient[0] if gradient[0] else math.nan
        cells = [norms.name, str(len(decoded) - 1)]
        cells += [
            f'{value:.3g}'
            for value in (
                decoded[0],
                decoded[-1],
                max(row[0] for row in norms.decoded),
                ratio,
            )
        ]
        rows.append(cells)
    return markdown_table(head, rows)


def plot(recorded: Sequence[LevelNorms], path: str) -> None:
    """A column of two panels for each training: y_l above, gradients below,
    a line for each level."""
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(recorded) + 1, 5), dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(recorded), sharex=True, sharey='row', squeeze=False)
    for column, norms in zip(panels.T, recorded, strict=True):
        for ax, rows in zip(column, (norms.decoded, norms.gradients), strict=True):
            levels = len(rows[0])
            for level in range(levels):
                label = {0: 'y_0', levels - 1: 'y_L'}.get(level)
                ax.plot(
                    [row[level] or math.nan for row in rows],
                    label=label,
                    color=colormaps['viridis'](level / (levels - 1)),
                    linewidth=1,
                )
            ax.set_yscale('log')
            ax.grid(alpha=0.3)
        column[0].set_title(f'{norms.name} ({levels - 1} steps)', fontsize=9)
        column[1].set_xlabel('step of training')
    panels[0, 0].set_ylabel('rms of y_l')
    panels[1, 0].set_ylabel('rms of its gradient')
    panels[0, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path)
