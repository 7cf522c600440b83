# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Testing, as ``tools/test.py`` does it."""

import os

from mmengine.config import Config, ConfigDict

from pvd_mm.utils.errors import UsageError
from pvd_mm.utils.files import check_folder

from .checkpoint import check_checkpoint
from .config import (
    adapt_to_cpu,
    build_runner,
    load_config,
    name_if_shipped,
    require_file,
)


def _metrics(cfg: Config) -> list:
    evaluator = cfg.test_evaluator
    return list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]


def _write_predictions(cfg: Config, out: str) -> None:
    """Send predictions to ``out`` as each framework's own test.py does."""
    if cfg.get('default_scope') == 'mmdet':
        if not out.endswith(('.pkl', '.pickle')):
            raise UsageError(f'--out must be a .pkl file, got {out}')
        cfg.test_evaluator = _metrics(cfg) + [
            dict(type='DumpDetResults', out_file_path=out)
        ]
        return
    metrics = _metrics(cfg)
    target = next((m for m in metrics if m.get('type') == 'IoUMetric'), metrics[0])
    target['output_dir'] = out
    target['keep_results'] = True


def _show_predictions(
    cfg: Config, show: bool, show_dir: str | None, wait_time: float
) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise UsageError(
            '--show and --show-dir need default_hooks='
            "dict(visualization=dict(type='…"
            "VisualizationHook')) in the config"
        )
    hook['draw'] = True
    if show:
        hook['show'] = True
        hook['wait_time'] = wait_time
    if show_dir:
        if cfg.get('default_scope') == 'mmdet':
            hook['test_out_dir'] = show_dir
        else:
            cfg.visualizer['save_dir'] = show_dir
    if cfg.get('default_scope') != 'mmdet':
        hook.setdefault('interval', 1)  # mmseg's default paints every 50th


def _use_tta(cfg: Config) -> None:
    if 'mask_head' in cfg.model.get('roi_head', {}):
        raise UsageError(
            '--tta does not work with instance segmentation: '
            "mmdet's DetTTAModel merges boxes alone"
        )
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise UsageError(f'--tta needs `{key}` in the config')
    dataset = cfg.test_dataloader.dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    dataset.pipeline = cfg.tta_pipeline
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)


def test(
    config: str,
    checkpoint: str,
    work_dir: str | None = None,
    out: str | None = None,
    show: bool = False,
    show_dir: str | None = None,
    wait_time: float = 2.0,
    tta: bool = False,
    cfg_options: dict | None = None,
    launcher: str = 'none',
) -> dict:
    """Test a checkpoint.

    Args:
        config (str): See :func:`~pvd_mm.engine.config.resolve_config`.
        checkpoint (str): The checkpoint file or URL.
        work_dir (str, optional): See :func:`~pvd_mm.engine.config.load_config`.
        out (str, optional): Where to save predictions: a folder with mmseg,
            a .pkl file with mmdet.
        show (bool): Show painted images in a window.
        show_dir (str, optional): Save painted images there.
        wait_time (float): Seconds that each image is shown.
        tta (bool): Test-time augmentation, as the config describes it.
        cfg_options (dict, optional): Overrides.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        dict: The metrics.

    Raises:
        UsageError: On a missing config or checkpoint, one of another
            model, or settings that the config does not support.
    """
    require_file(checkpoint, 'Checkpoint')
    cfg = load_config(config, work_dir, cfg_options, launcher)
    cfg.load_from = checkpoint
    cfg.resume = False
    for folder in filter(None, (show_dir, out and os.path.dirname(out))):
        check_folder(folder)
    if show or show_dir:
        _show_predictions(cfg, show, show_dir, wait_time)
    if tta:
        _use_tta(cfg)
    if out:
        _write_predictions(cfg, out)
    overrides = dict(cfg_options or {}, **({'--tta': True} if tta else {}))
    cfg.custom_hooks = [
        *(cfg.get('custom_hooks') or []),
        dict(
            type='RecordHook',
            config=config,
            overrides=overrides,
            shipped=name_if_shipped(config),
        ),
    ]
    adapt_to_cpu(cfg)
    runner = build_runner(cfg)
    check_checkpoint(runner.model, checkpoint)
    return runner.test()
