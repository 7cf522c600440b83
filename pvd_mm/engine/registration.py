# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Which wings of the package exist and which framework each one needs."""

import importlib
import importlib.util
import warnings

#: Wing -> framework that must be importable for it.
WINGS = {'pvd_mm.semantic': 'mmseg', 'pvd_mm.instance': 'mmdet'}

INSTALL_HINT = (
    'pvd_mm uses mmengine, mmcv and mmsegmentation or mmdet, and does not '
    'choose the package family for you. Install one of them: '
    '`pip install "pvd_mm[openmmlab]"` or `pip install "pvd_mm[onedl]"`, '
    'with the matching requirements/constraints-*.txt (see the README).'
)


def _framework_works(framework: str) -> bool:
    if importlib.util.find_spec(framework) is None:
        return False
    try:
        importlib.import_module(framework)
    except Exception as error:  # its own version checks raise AssertionError
        warnings.warn(
            f'{framework} is installed but cannot be imported, so what '
            f'pvd_mm has for it is not registered: '
            f'{type(error).__name__}: {error}',
            stacklevel=2,
        )
        return False
    return True


def register_wings() -> list:
    """Mend upstream faults, then import every wing that can be used.

    Returns:
        list[str]: Names of the imported wings.

    Raises:
        ModuleNotFoundError: If mmengine is not installed.
    """
    if importlib.util.find_spec('mmengine') is None:
        raise ModuleNotFoundError(f'mmengine is not installed. {INSTALL_HINT}')
    from . import compatibility as mends

    mends.apply_mends()
    of_framework = dict(
        mmseg=mends.let_class_weights_ignore_pixels,
        mmdet=mends.let_detectors_use_bfloat16,
    )
    importlib.import_module('pvd_mm.engine.hooks')
    importlib.import_module('pvd_mm.engine.optim_wrapper')
    done = []
    for wing, framework in WINGS.items():
        if importlib.util.find_spec(wing) is not None and _framework_works(framework):
            importlib.import_module(wing)
            of_framework[framework]()
            done.append(wing)
    return done
