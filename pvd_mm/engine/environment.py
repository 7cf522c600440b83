# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What an environment lacks, and what to type. Needs no package but Python's own."""

import re
import warnings
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ['INSTALL_HINT', 'add_remedy', 'check_environment', 'root_of']

INSTALL_HINT = (
    'pvd_mm uses mmengine, mmcv and mmsegmentation or mmdet, and does not '
    'choose the package family for you. Install one of them, in the folder of '
    'pvd_mm: `pip install -r requirements/openmmlab.txt` or '
    '`pip install -r requirements/onedl.txt`, with '
    '`-c requirements/constraints-….txt` for the tested versions (see the README).'
)

#: Distributions with the same modules, by module.
_SAME_MODULES = {
    'mmengine': ('mmengine', 'onedl-mmengine'),
    'mmcv': ('mmcv', 'mmcv-lite', 'onedl-mmcv'),
    'mmseg': ('mmsegmentation', 'onedl-mmsegmentation'),
    'mmdet': ('mmdet', 'onedl-mmdetection'),
}

#: What helps where a module is missing.
_MISSING = {
    'ftfy': '`pip install ftfy regex`, which mmsegmentation 1.2.2 does not do itself',
    'mmcv': 'see the README of pvd_mm for how to install it',
    'mmcv._ext': (
        'this mmcv has no operators, as mmcv-lite has none. `pip uninstall mmcv-lite` '
        'and install mmcv (or onedl-mmcv)'
    ),
    'mmengine': INSTALL_HINT,
    'pkg_resources': '`pip install "setuptools<81"`, for mmengine',
    'regex': '`pip install ftfy regex`, which mmsegmentation 1.2.2 does not do itself',
}
_OTHER_TORCH = (
    'this mmcv was built for another torch. `pip uninstall {name}` and `pip install '
    '--no-cache-dir --no-build-isolation --no-binary {name} {name}=={version}`, which '
    'compiles it for the torch that is installed'
)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _numbers(release: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r'\d+', release)[:2]))


def check_environment() -> None:
    """Look at the versions that are installed; imports none of them.

    Warns of two package families, and of a torch that cannot use the NumPy.

    Raises:
        ImportError: If torch is older than 2.1.
    """
    torch, numpy = _version('torch'), _version('numpy')
    if torch and _numbers(torch) < (2, 1):
        raise ImportError(
            f'pvd_mm needs torch 2.1 or newer, and this is torch {torch}: '
            '`pip install "torch>=2.1"`, and an mmcv that was built for it'
        )
    if torch and numpy and _numbers(torch) < (2, 3) and _numbers(numpy) >= (2,):
        warnings.warn(
            f'torch {torch} was built for NumPy 1 and cannot use NumPy {numpy}: '
            '`pip install "numpy<2" "opencv-python<4.12" "pandas<3.1"`'
        )
    for module, names in _SAME_MODULES.items():
        both = [name for name in names if _version(name)]
        if len(both) > 1:
            warnings.warn(
                f'{" and ".join(both)} are both installed. They have the same modules, '
                f'so that {module} is that of the last one or a mixture. Make a new '
                'environment, with one family'
            )


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def root_of(error: ImportError) -> ImportError:
    """The failed import behind an ImportError: mmengine wraps it twice."""
    return [one for one in _chain(error) if isinstance(one, ImportError)][-1]


def _remedy(error: ImportError) -> str | None:
    if isinstance(error, ModuleNotFoundError):
        return _MISSING.get(error.name)
    if error.path and Path(error.path).match('mmcv/_ext*'):  # it cannot be loaded
        name = next(filter(_version, _SAME_MODULES['mmcv']), 'mmcv')
        return _OTHER_TORCH.format(name=name, version=_version(name))
    return None


def add_remedy(error: ImportError) -> None:
    """Add to an error's message what helps, where it is known; once."""
    remedy = _remedy(error)
    if remedy and not error.msg.endswith(remedy):
        error.msg = f'{error.msg}: {remedy}'
