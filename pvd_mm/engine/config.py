# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Configs: finding, loading and adapting them, and the runner they ask for.

mmseg and mmdet configs alike; ``default_scope`` tells them apart, which
:func:`load_config` adds where a config of classes has none.
"""

import logging
import os
import re
import subprocess
from collections.abc import Collection
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import is_distributed
from mmengine.logging import print_log
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from pvd_mm.utils.config_types import framework_of, type_name
from pvd_mm.utils.errors import UsageError
from pvd_mm.utils.files import check_folder
from pvd_mm.utils.shipped_configs import find_shipped, missing_config_message

from .checkpoint import name_broken_files
from .compatibility import write_whole_checkpoints
from .environment import root_of
from .registration import register_all_modules


def _log(message: str, level: int = logging.WARNING) -> None:
    print_log(message, logger='current', level=level)


def resolve_config(name: str) -> str:
    """Find a config by path, or by the name of a shipped one.

    Args:
        name (str): A path, or the name of a shipped config with or without
            its folder and its ``.py``.

    Returns:
        str: Path of an existing file.

    Raises:
        UsageError: If there is none; lists the near matches.
    """
    if Path(name).is_file():
        return name
    shipped = find_shipped(name)
    if shipped is None:
        raise UsageError(missing_config_message(name))
    return str(shipped)


def load_config(
    name: str,
    work_dir: str | None = None,
    cfg_options: dict | None = None,
    launcher: str = 'none',
) -> Config:
    """Load a config and put the command line's choices into it.

    Args:
        name (str): See :func:`resolve_config`.
        work_dir (str, optional): Where to write. Defaults to the config's
            own ``work_dir``, else to ``work_dirs/<config name>``.
        cfg_options (dict, optional): Overrides, dotted key to value.
        launcher (str): 'none', 'pytorch', 'slurm' or 'mpi'.

    Returns:
        Config: The config.

    Raises:
        UsageError: If the config, or one that it inherits, does not exist, or a
            package or a module that it needs cannot be imported.
    """
    path = resolve_config(name)
    try:
        register_all_modules()
        cfg = Config.fromfile(path)
    except FileNotFoundError as error:
        raise UsageError(f'{path}: {error}') from error
    except ImportError as error:  # also of a module of the config's custom_imports
        raise UsageError(f'{path}: {root_of(error)}') from error
    cfg.launcher = launcher
    if cfg_options:
        cfg.merge_from_dict(cfg_options)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        cfg.work_dir = str(Path('work_dirs') / Path(path).stem)
    framework = framework_of(cfg)
    if framework:  # what is added to the config by name has to be found
        cfg.default_scope = framework
    return cfg


def name_if_shipped(name: str) -> str | None:
    """Tell whether a config is a shipped one, or a copy that says the same.

    Args:
        name (str): See :func:`resolve_config`.

    Returns:
        str | None: Its name, without folder and ``.py``.
    """
    path = Path(resolve_config(name))
    shipped = find_shipped(path.name)
    if shipped is None:
        return None
    same = path.samefile(shipped) or (
        Config.fromfile(path).to_dict() == Config.fromfile(shipped).to_dict()
    )
    return path.stem if same else None


def enable_amp(cfg: Config) -> None:
    """Switch mixed precision on: AMP, or bfloat16 autocast on a CPU.

    Raises:
        UsageError: If the config has an optimiser wrapper of another kind, or none.
    """
    if not cfg.get('optim_wrapper'):
        raise UsageError('--amp needs `optim_wrapper` in the config')
    kind = type_name(cfg.optim_wrapper) or 'OptimWrapper'
    if kind in ('AmpOptimWrapper', 'CPUAmpOptimWrapper'):
        _log('AMP training is already enabled in your config.')
    elif kind == 'OptimWrapper':
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    else:
        raise UsageError(
            '--amp works with the optimizer wrapper '
            f'"OptimWrapper", but the config has "{kind}"'
        )


def enable_auto_scale_lr(cfg: Config) -> None:
    """Scale the learning rate by the real total batch size.

    Raises:
        UsageError: If the config does not give its base batch size.
    """
    if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
        raise UsageError(
            '--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) '
            'in the config'
        )
    cfg.auto_scale_lr.enable = True


def _replace_type(node, old: Collection[str], new: str) -> int:
    """Replace every ``type`` of the names ``old`` below ``node``; count them."""
    if isinstance(node, dict):
        changed = int(type_name(node) in old)
        if changed:
            node['type'] = new
        return changed + sum(_replace_type(v, old, new) for v in node.values())
    if isinstance(node, (list, tuple)):
        return sum(_replace_type(v, old, new) for v in node)
    return 0


def _start_gloo(launcher: str) -> None:
    """Start the process group on machines without an accelerator.

    mmengine's ``init_dist`` selects a CUDA device whatever the backend is;
    the Runner leaves a group that exists alone.
    """
    env = os.environ
    if launcher == 'slurm':
        env['RANK'], env['WORLD_SIZE'] = (env['SLURM_PROCID'], env['SLURM_NTASKS'])
        env['LOCAL_RANK'] = env.get('SLURM_LOCALID', '0')
        if 'MASTER_ADDR' not in env:
            env['MASTER_ADDR'] = subprocess.check_output(
                ['scontrol', 'show', 'hostname', env['SLURM_NODELIST']], text=True
            ).split()[0]
    elif launcher == 'mpi':
        env['RANK'] = env['OMPI_COMM_WORLD_RANK']
        env['WORLD_SIZE'] = env['OMPI_COMM_WORLD_SIZE']
        env['LOCAL_RANK'] = env['OMPI_COMM_WORLD_LOCAL_RANK']
        env.setdefault('MASTER_ADDR', '127.0.0.1')
    env.setdefault('MASTER_PORT', '29500')
    torch.distributed.init_process_group('gloo')


def adapt_to_cpu(cfg: Config) -> None:
    """Make a config that was written for GPUs run on a CPU.

    Does nothing where mmengine finds an accelerator. Mixed precision becomes
    bfloat16 autocast. Under a launcher the processes talk by gloo,
    ``SyncBN`` becomes ``BN`` (torch's refuses CPU tensors once a process
    group exists; alone, mmengine reverts it itself), and the data-parallel
    wrapper is given no device ids.
    """
    if get_device() != 'cpu':
        return
    wrapper = cfg.get('optim_wrapper')
    if wrapper and type_name(wrapper) == 'AmpOptimWrapper':
        _log('No accelerator: mixed precision runs as bfloat16 autocast on the CPU.')
        wrapper.type = 'CPUAmpOptimWrapper'
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
    if cfg.get('launcher', 'none') == 'none':
        return
    if not is_distributed():
        _start_gloo(cfg.launcher)
    changed = _replace_type(cfg.model, ('SyncBN', 'MMSyncBN', 'SyncBatchNorm'), 'BN')
    if changed or cfg.get('sync_bn'):
        cfg.sync_bn = None
        _log(
            f'No accelerator: {changed} SyncBN settings of the model become '
            'BN, so every process normalises over its own batch.'
        )
    if cfg.get('model_wrapper_cfg') is None:
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),
        )
    cfg.model_wrapper_cfg.setdefault('device_ids', None)


def add_hooks(cfg: Config) -> None:
    """Add the hooks that every training has here, unless the config does."""
    hooks = list(cfg.get('custom_hooks') or [])
    present = set(map(type_name, hooks))
    cfg.custom_hooks = hooks + [
        dict(type=name)
        for name in ('ClassCheckHook', 'ReproducibleResumeHook', 'LoadReportHook')
        if name not in present
    ]


def build_runner(cfg: Config) -> Runner:
    """Build the runner that the config asks for. It writes checkpoints whole, and
    names those that it cannot read.

    Raises:
        BlockedPathError: If the work dir cannot be a folder.
    """
    check_folder(cfg.work_dir)
    write_whole_checkpoints()
    name_broken_files()
    if 'runner_type' in cfg:
        return RUNNERS.build(cfg)
    return Runner.from_cfg(cfg)


def require_file(path: str, what: str) -> None:
    """Check that a checkpoint is there; an address is taken as it is.

    Args:
        path (str): A path or URL.
        what (str): What the message calls it.

    Raises:
        UsageError: If there is no such file; names the checkpoints beside it.
    """
    file = Path(path).expanduser()
    if re.match(r'\w[\w+.-]*://', path) or file.is_file():
        return
    near = sorted(map(str, file.parent.glob('*.pth')))
    hint = f' There are: {", ".join(near[:5])}' if near else ''
    raise UsageError(f'{what} not found: {path}.{hint}')


def require_pretrained(settings) -> None:
    """Check that the weights are there that parts of a model start with, which
    mmengine looks for only when all else is built and the data are read.

    Args:
        settings (dict or list): A config's ``model``, or a part of it.

    Raises:
        UsageError: If a file that an ``init_cfg`` names is not there.
    """
    if isinstance(settings, dict):
        if type_name(settings) == 'Pretrained' and settings.get('checkpoint'):
            require_file(settings['checkpoint'], 'weights that the model starts with')
        settings = settings.values()
    elif not isinstance(settings, (list, tuple)):
        return
    for part in settings:
        require_pretrained(part)
