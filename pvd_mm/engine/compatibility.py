# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What upstream breaks and PVD-MM needs whole, one function per fault.

Every mend works in memory (no installed file is edited), does nothing where
the fault is absent, and may be called repeatedly. :func:`apply_mends` applies
them; ``pvd_mm.register_all_modules()`` and the tools call it.
"""

import functools
from importlib.metadata import PackageNotFoundError, distribution

__all__ = [
    'allow_checkpoint_classes',
    'apply_mends',
    'keep_checkpoints_safe',
    'know_installed_distributions',
    'let_class_weights_ignore_pixels',
    'let_detectors_use_bfloat16',
    'resolve_own_configs',
]

#: numpy scalar types whose dtypes mmengine's logs are made of.
_LOGGED_DTYPES = ('float64', 'float32', 'int64')


def _statistic_of_history(owner, name):
    """``getattr``, for the four statistics of a HistoryBuffer only.

    mmengine pickles ``HistoryBuffer.mean`` and its like, which the pickle
    format spells ``getattr(HistoryBuffer, 'mean')``. Allowing the builtin
    would let a checkpoint reach any attribute of anything it can name.
    """
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise AttributeError(f'a checkpoint may not look up {name!r} of {owner!r}')


def allow_checkpoint_classes() -> None:
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints.

    Fault: torch>=2.6 loads with ``weights_only=True`` by default, and
    mmengine 0.10.7's own checkpoints contain its ``HistoryBuffer`` with
    numpy arrays and scalars in the message hub, so ``mim test`` and
    ``--resume`` fail. Exactly these classes are allowed; nothing is loaded
    with ``weights_only=False``. Both module names of numpy 1 and 2 are
    allowed, so a checkpoint may move between them.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    if not hasattr(torch.serialization, 'add_safe_globals'):
        return  # torch<2.4 has no allow-list and does not need one
    core = getattr(np, '_core', None) or np.core
    allowed = [HistoryBuffer, np.ndarray, np.dtype]
    allowed += [type(np.dtype(name)) for name in _LOGGED_DTYPES]
    names = [('builtins.getattr', _statistic_of_history)]
    for prefix in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        names.append((f'{prefix}._reconstruct', core.multiarray._reconstruct))
        names.append((f'{prefix}.scalar', core.multiarray.scalar))
    allowed += [(function, name) for name, function in names]
    torch.serialization.add_safe_globals(allowed)


def keep_checkpoints_safe() -> None:
    """Stop onedl-mmengine from loading unsafely behind the user's back.

    Fault: onedl-mmengine's ``_safe_torch_load`` allow-lists the builtin
    ``getattr`` and, when a file still does not load under
    ``weights_only=True``, silently loads it with ``weights_only=False``,
    which runs whatever code the file holds. Here torch's default decides
    instead; who trusts an old file sets torch's own environment variable
    ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``.
    """
    import torch
    from mmengine.runner import checkpoint

    upstream = getattr(checkpoint, '_safe_torch_load', None)
    if upstream is None or hasattr(upstream, '_pvd_mm_mend'):
        return

    @functools.wraps(upstream)
    def safe_torch_load(file, map_location=None, weights_only=None):
        return torch.load(file, map_location=map_location, weights_only=weights_only)

    safe_torch_load._pvd_mm_mend = True
    checkpoint._safe_torch_load = safe_torch_load


def _is_distribution(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def know_installed_distributions() -> None:
    """Let configs inherit from ``mmseg::`` and ``mmdet::`` with ``onedl-*``.

    Fault: mmengine finds the package behind ``mmseg::`` by a fixed table of
    distribution names, which onedl-mmengine copied unchanged, so it says
    that mmsegmentation is not installed although onedl-mmsegmentation is.
    The table also lacks ``pvd_mm``.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    for module, project in (
        ('mmseg', 'mmsegmentation'),
        ('mmdet', 'mmdetection'),
        ('mmpretrain',) * 2,
    ):
        known = MODULE2PACKAGE.get(module, module)
        fork = f'onedl-{project}'
        if known != fork and not _is_distribution(known) and _is_distribution(fork):
            MODULE2PACKAGE[module] = fork
    MODULE2PACKAGE.setdefault('pvd_mm', 'pvd_mm')


def resolve_own_configs() -> None:
    """Let a user's config inherit ours with ``_base_ = 'pvd_mm::…'``.

    Fault: mmengine refuses ``package::`` of packages outside its table,
    looks for their configs where the distribution (not the module) is
    installed, and stamps ``_scope_`` on inherited dicts, which for a plugin
    names a registry that does not exist: our classes live in mmseg's and
    mmdet's registries. So a ``pvd_mm::`` base is found here, and is read as
    if it were a local file.

    Raises (from ``Config.fromfile``):
        FileNotFoundError: If there is no such config; lists near matches.
    """
    from mmengine.config import Config
    from mmengine.hub import hub

    from pvd_mm.utils.shipped_configs import find_shipped, missing_config_message

    upstream = Config._get_cfg_path
    if hasattr(upstream, '_pvd_mm_mend'):
        return

    def own_path(name: str) -> str:
        path = find_shipped(name, primitives=True)
        if path is None:
            raise FileNotFoundError(missing_config_message(name, primitives=True))
        return str(path)

    @functools.wraps(upstream)
    def get_cfg_path(cfg_path, filename):
        if cfg_path.startswith('pvd_mm::'):
            return own_path(cfg_path.partition('::')[2]), None
        return upstream(cfg_path, filename)

    get_cfg_path._pvd_mm_mend = True
    Config._get_cfg_path = staticmethod(get_cfg_path)

    upstream_get_config = hub.get_config

    @functools.wraps(upstream_get_config)
    def get_config(cfg_path, pretrained=False):
        if cfg_path.startswith('pvd_mm::') and not pretrained:
            return Config.fromfile(own_path(cfg_path.partition('::')[2]))
        return upstream_get_config(cfg_path, pretrained)

    import mmengine.hub as public

    hub.get_config = public.get_config = get_config


def let_class_weights_ignore_pixels() -> None:
    """Let mmseg weight classes where some pixels are to be ignored.

    Fault: to average a loss with ``class_weight``, mmseg 1.2.2 looks up the
    weight of every label, also of 255, the one to be ignored, for which there
    is none: an IndexError. Ignored pixels weigh nothing here.

    It needs mmseg; it is applied when ``pvd_mm.semantic`` is registered.
    """
    from mmseg.models.losses import cross_entropy_loss

    upstream = cross_entropy_loss.cross_entropy
    if hasattr(upstream, '_pvd_mm_mend'):
        return

    @functools.wraps(upstream)
    def cross_entropy(
        pred,
        label,
        weight=None,
        class_weight=None,
        reduction='mean',
        avg_factor=None,
        ignore_index=-100,
        avg_non_ignore=False,
    ):
        if class_weight is not None and avg_factor is None and reduction == 'mean':
            avg_factor = class_weight[label[label != ignore_index]].sum()
        return upstream(
            pred,
            label,
            weight,
            class_weight,
            reduction,
            avg_factor,
            ignore_index,
            avg_non_ignore,
        )

    cross_entropy._pvd_mm_mend = True
    cross_entropy_loss.cross_entropy = cross_entropy


def let_detectors_use_bfloat16() -> None:
    """Let mmdet's two-stage detectors train under bfloat16 autocast.

    Fault: mmcv 2.1.0's RoIAlign, and its NMS on a CPU, refuse bfloat16; and
    mmdet 3.3.0 rounds RoIs to the dtype of the maps, which with bfloat16
    means to multiples of 8 pixels from 1024 on. Both are done in float32.

    It needs mmdet; it is applied when ``pvd_mm.instance`` is registered.
    """
    import torch
    from mmcv.ops.nms import NMSop, SoftNMSop
    from mmdet.models.roi_heads import roi_extractors

    def in_float(x):
        return x.float() if x.dtype == torch.bfloat16 else x

    def mend(owner, wrap):
        upstream = owner.forward
        if not hasattr(upstream, '_pvd_mm_mend'):
            mended = functools.wraps(upstream)(wrap(upstream))
            mended._pvd_mm_mend = True
            is_function = issubclass(owner, torch.autograd.Function)
            owner.forward = staticmethod(mended) if is_function else mended

    for op in (NMSop, SoftNMSop):
        mend(
            op,
            lambda upstream: (
                lambda ctx, boxes, scores, *others: upstream(
                    ctx, in_float(boxes), in_float(scores), *others
                )
            ),
        )
    for extractor in (
        roi_extractors.SingleRoIExtractor,
        roi_extractors.GenericRoIExtractor,
    ):
        mend(
            extractor,
            lambda upstream: (
                lambda self, feats, *args, **kwargs: upstream(
                    self, tuple(map(in_float, feats)), *args, **kwargs
                )
            ),
        )


def apply_mends() -> None:
    """Apply every mend of this module that needs neither mmseg nor mmdet."""
    allow_checkpoint_classes()
    keep_checkpoints_safe()
    know_installed_distributions()
    resolve_own_configs()
