# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Training, as ``tools/train.py`` does it."""

from mmengine.config import Config
from mmengine.logging import print_log
from mmengine.runner import Runner

from .checkpoint import latest_checkpoint, read_checkpoint
from .config import (
    adapt_to_cpu,
    add_hooks,
    build_runner,
    enable_amp,
    enable_auto_scale_lr,
    load_config,
    require_file,
    require_pretrained,
)
from .hooks import CheckpointFitHook


def _checkpoint_to_resume(cfg: Config, resume: str | None) -> str | None:
    """The checkpoint that ``--resume``, else ``resume`` of the config, means; None
    where the work dir has none yet."""
    own = cfg.get('resume')  # mmengine's FlexibleRunner takes a file there
    named = resume or (own if isinstance(own, str) else cfg.get('load_from'))
    if named and named != 'auto':
        require_file(named, 'Checkpoint to resume from')
        return named
    checkpoint = latest_checkpoint(cfg.work_dir)
    print_log(
        f'Resuming from {checkpoint}.'
        if checkpoint
        else f'No checkpoint to resume from in {cfg.work_dir}: training starts anew.',
        logger='current',
    )
    return checkpoint


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
        resume (str, optional): 'auto' for the newest whole checkpoint of the work
            dir, or a file. Defaults to None: as the config says, which by itself
            starts anew.
        amp (bool): See :func:`~pvd_mm.engine.config.enable_amp`.
        auto_scale_lr (bool): See :func:`~pvd_mm.engine.config.enable_auto_scale_lr`.
        cfg_options (dict, optional): Overrides.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        Runner: The runner, after training.

    Raises:
        UserError: On a missing config or checkpoint, one that cannot be read or is of
            another model, or settings that the config does not support.
    """
    cfg = load_config(config, work_dir, cfg_options, launcher)
    if amp:
        enable_amp(cfg)
    if auto_scale_lr:
        enable_auto_scale_lr(cfg)
    checkpoint = None
    if resume or cfg.get('resume'):
        checkpoint = _checkpoint_to_resume(cfg, resume)
        cfg.resume = checkpoint is not None
    if checkpoint:
        cfg.load_from = checkpoint
    elif cfg.get('load_from'):
        require_file(cfg.load_from, 'load_from of the config')
    require_pretrained(cfg.get('model'))
    add_hooks(cfg)
    adapt_to_cpu(cfg)
    runner = build_runner(cfg)
    if cfg.get('load_from'):
        read_checkpoint(cfg.load_from)
    if checkpoint:
        runner.register_hook(CheckpointFitHook(checkpoint))
    runner.train()
    return runner
