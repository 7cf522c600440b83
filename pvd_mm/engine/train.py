# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Training, as ``tools/train.py`` does it."""

from pathlib import Path

from mmengine.runner import Runner, find_latest_checkpoint

from .checkpoint import check_checkpoint
from .config import (
    adapt_to_cpu,
    add_hooks,
    build_runner,
    enable_amp,
    enable_auto_scale_lr,
    load_config,
    require_file,
)


def train(
    config: str,
    work_dir: str | None = None,
    resume: str | None = None,
    amp: bool = False,
    auto_scale_lr: bool = False,
    cfg_options: dict | None = None,
    launcher: str = 'none',
) -> Runner:
    """Train a model.

    Args:
        config (str): See :func:`~pvd_mm.engine.config.resolve_config`.
        work_dir (str, optional): See :func:`~pvd_mm.engine.config.load_config`.
        resume (str, optional): 'auto' for the latest checkpoint of the work
            dir, or a file. Defaults to None: start anew.
        amp (bool): See :func:`~pvd_mm.engine.config.enable_amp`.
        auto_scale_lr (bool): See :func:`~pvd_mm.engine.config.enable_auto_scale_lr`.
        cfg_options (dict, optional): Overrides.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        Runner: The runner, after training.

    Raises:
        UsageError: On a missing config or checkpoint, one of another
            model, or settings that the config does not support.
    """
    cfg = load_config(config, work_dir, cfg_options, launcher)
    if amp:
        enable_amp(cfg)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    checkpoint = None
    if resume:
        cfg.resume = True
        if resume == 'auto':
            cfg.load_from = None
            if (Path(cfg.work_dir) / 'last_checkpoint').is_file():
                checkpoint = find_latest_checkpoint(cfg.work_dir)
        else:
            checkpoint = cfg.load_from = resume
        if checkpoint:
            require_file(checkpoint, 'Checkpoint to resume from')
    elif cfg.get('load_from'):
        require_file(cfg.load_from, 'load_from of the config')
    add_hooks(cfg)
    adapt_to_cpu(cfg)
    runner = build_runner(cfg)
    if checkpoint:
        check_checkpoint(runner.model, checkpoint)
    runner.train()
    return runner
