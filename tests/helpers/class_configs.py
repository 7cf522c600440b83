# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A config of names, said again with classes: mmengine's pure Python style, without a
default scope."""

from pathlib import Path

from mmengine import registry
from mmengine.config import Config

#: The keys of a config whose ``type`` is looked up there first: a name may be of
#: several registries.
_REGISTRIES = [
    getattr(registry, name)
    for name in dir(registry)
    if isinstance(getattr(registry, name), registry.Registry)
]


def _class_of(name, scope):
    found = (each.get(f'{scope}.{name}') for each in _REGISTRIES)
    return next((cls for cls in found if cls is not None), None)


def _text(value, scope, imports):
    if isinstance(value, dict):
        entries = [
            f'{key!r}: {_type(entry, scope, imports)}'
            if key == 'type'
            else f'{key!r}: {_text(entry, scope, imports)}'
            for key, entry in value.items()
        ]
        return '{' + ', '.join(entries) + '}'
    if isinstance(value, (list, tuple)):
        inner = ''.join(f'{_text(entry, scope, imports)}, ' for entry in value)
        return f'[{inner}]' if isinstance(value, list) else f'({inner})'
    return repr(value)


def _type(name, scope, imports):
    cls = _class_of(name, scope) if isinstance(name, str) else None
    if not isinstance(cls, type):
        return repr(name)
    assert imports.setdefault(cls.__name__, cls.__module__) == cls.__module__
    return cls.__name__


def write_twin(config: str, folder: Path) -> Path:
    """Write a config's twin, as a file that reads its base with ``read_base``.

    Args:
        config (str): The config of names.
        folder (Path): Gets the twin, under the same name, and its base.
    """
    cfg = Config.fromfile(config)
    scope, imports = cfg.default_scope, {}
    settings = dict(cfg.to_dict(), default_scope=None)
    settings.pop('custom_imports', None)
    lines = [
        f'{key} = {_text(value, scope, imports)}' for key, value in settings.items()
    ]
    assert len(imports) > 20, 'the twin has to be of classes'
    heads = [f'from {module} import {name}' for name, module in imports.items()]
    base = folder / 'base_of_classes.py'
    base.write_text('\n'.join([*heads, *lines]) + '\n')
    twin = folder / Path(config).name
    twin.write_text(
        'from mmengine.config import read_base\n\n'
        'with read_base():\n    from .base_of_classes import *\n'
    )
    return twin
