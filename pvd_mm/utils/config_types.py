# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What a config's ``type`` means, however it is written: ``'Resize'``,
``'mmseg.Resize'``, the class itself, or mmengine's lazy import of it."""

from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

#: What the module of a class, or the scope of a name, begins with, and the framework.
_FRAMEWORKS = {
    'mmseg': 'mmseg',
    'mmdet': 'mmdet',
    'pvd_mm.semantic': 'mmseg',
    'pvd_mm.instance': 'mmdet',
    'pvd_mm.panoptic': 'mmdet',
}


def type_name(config: Any) -> str:
    """The name of the class that a config is of.

    Args:
        config (Any): A config with ``type``, or a ``type`` itself; an object that
            stands in a config ready-made is of its own class.

    Returns:
        str: The name without scope or module; '' where there is no ``type``.
    """
    value = config.get('type') if isinstance(config, Mapping) else config
    if value is None:
        return ''
    if isinstance(value, (type, FunctionType)):
        return value.__name__
    if isinstance(value, str):
        return value.rpartition('.')[2]
    if hasattr(type(value), 'build') and hasattr(type(value), 'module'):
        return str(value)  # mmengine's LazyObject and LazyAttr
    return type(value).__name__


def dataset_configs(dataset: dict) -> Iterator[dict]:
    """The configs of the data sets inside wrappers such as ``RepeatDataset`` and
    ``ConcatDataset``; of a data set without wrapper, that one."""
    inner = dataset.get('datasets', dataset.get('dataset'))
    if isinstance(inner, Mapping):
        inner = [inner]
    if not inner:
        yield dataset
    for part in inner or ():
        yield from dataset_configs(part)


def _framework_of_type(value: Any) -> str | None:
    if hasattr(type(value), 'build') and hasattr(type(value), 'module'):
        value = value.build()
    if isinstance(value, str):
        names = [value]
    else:
        names = [f'{kind.__module__}.' for kind in getattr(value, '__mro__', ())]
    for name in names:
        for start, framework in _FRAMEWORKS.items():
            if name.startswith(f'{start}.'):
                return framework
    return None


def framework_of(cfg: Mapping) -> str | None:
    """The framework that a config is for.

    Args:
        cfg (Config): Any config.

    Returns:
        str | None: Its ``default_scope``; where it has none, 'mmseg' or 'mmdet' by the
        class of its model or of its data, as configs of classes need no scope. None
        where these do not tell.
    """
    if cfg.get('default_scope'):
        return cfg['default_scope']
    loaders = (cfg.get(f'{split}_dataloader') for split in ('train', 'val', 'test'))
    parts = [loader.get('dataset') for loader in loaders if loader]
    parts = [part for whole in parts if whole for part in dataset_configs(whole)]
    types = [part.get('type') for part in (cfg.get('model') or {}, *parts)]
    return next(filter(None, map(_framework_of_type, types)), None)
