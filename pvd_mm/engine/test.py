# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Testing, as ``tools/test.py`` does it."""

import copy
import os

from mmengine.config import Config

from pvd_mm.utils.config_types import dataset_configs, type_name
from pvd_mm.utils.errors import UsageError
from pvd_mm.utils.files import check_folder

from .checkpoint import read_checkpoint
from .config import (
    adapt_to_cpu,
    build_runner,
    load_config,
    name_if_shipped,
    require_file,
)
from .hooks import CheckpointFitHook


def _metrics(cfg: Config) -> list:
    """The list of the metrics of the config's test, in place."""
    evaluator = cfg.test_evaluator
    holder, key = cfg, 'test_evaluator'
    if isinstance(evaluator, dict) and 'metrics' in evaluator:
        holder, key, evaluator = evaluator, 'metrics', evaluator['metrics']
    holder[key] = (
        list(evaluator) if isinstance(evaluator, (list, tuple)) else [evaluator]
    )
    return holder[key]


def _write_predictions(cfg: Config, out: str) -> None:
    """Send predictions to ``out`` as each framework's own test.py does."""
    if 'metrics' in cfg.test_evaluator and type_name(cfg.test_evaluator) not in (
        '',
        'Evaluator',
    ):
        raise UsageError(
            f'--out does not work with {type_name(cfg.test_evaluator)}, which gives '
            'each of its metrics a part of the predictions'
        )
    metrics = _metrics(cfg)
    if cfg.get('default_scope') == 'mmdet':
        if not out.endswith(('.pkl', '.pickle')):
            raise UsageError(f'--out must be a .pkl file, got {out}')
        metrics.append(dict(type='DumpDetResults', out_file_path=out))
        return
    writer = next((m for m in metrics if type_name(m) == 'IoUMetric'), None)
    if writer is None:
        writer = dict(type='IoUMetric', format_only=True)
        metrics.append(writer)
    writer['output_dir'] = out


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
        elif cfg.get('visualizer'):
            cfg.visualizer['save_dir'] = show_dir
        else:
            raise UsageError('--show-dir needs `visualizer` in the config')
    if cfg.get('default_scope') != 'mmdet':
        hook.setdefault('interval', 1)  # mmseg's default paints every 50th


def _use_tta(cfg: Config) -> None:
    if 'mask_head' in (cfg.model.get('roi_head') or {}):
        raise UsageError(
            '--tta does not work with instance segmentation: '
            "mmdet's DetTTAModel merges boxes alone"
        )
    for key in ('tta_model', 'tta_pipeline'):
        if key not in cfg:
            raise UsageError(f'--tta needs `{key}` in the config')
    for dataset in dataset_configs(cfg.test_dataloader.dataset):
        dataset.pipeline = cfg.tta_pipeline
    model = copy.copy(cfg.tta_model)  # ** would put classes into the config's text
    model['module'] = cfg.model
    cfg.model = model


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
        UserError: On a missing config or checkpoint, one that cannot be read or is of
            another model, or settings that the config does not support.
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
    read_checkpoint(checkpoint)
    runner.register_hook(CheckpointFitHook(checkpoint))
    return runner.test()
