# Copyright (c) PVD-MM contributors. Apache-2.0.
"""setuptools as the build backend, and what to type where it cannot build.

With ``--no-build-isolation`` pip takes what the environment has. ``python -m venv``
puts no ``wheel`` there, and none of setuptools either from Python 3.12 on; openmim's
requirements put setuptools 60.2 there, which knows no editable wheels (64 does). From
70.1 on setuptools needs no ``wheel``.
"""

from importlib.util import find_spec


def _stop(lack: str, packages: str) -> None:
    raise SystemExit(
        f'pvd_mm cannot be built with --no-build-isolation here: {lack}. Type\n'
        f'    pip install {packages}\n'
        'and the same command again; or leave --no-build-isolation out, and pvd_mm is '
        'installed without its C++ extension.'
    )


if not find_spec('setuptools'):
    _stop('setuptools is not installed', '"setuptools>=70.1,<81"')

from setuptools import __version__, build_meta  # noqa: E402
from setuptools.build_meta import *  # noqa: E402, F403

if not find_spec('setuptools.command.bdist_wheel') and not find_spec('wheel'):
    _stop(f'setuptools {__version__} needs wheel, which is not installed', 'wheel')


if not hasattr(build_meta, 'build_editable'):

    def build_editable(*args, **kwargs):
        """Say what an editable installation needs."""
        _stop(
            f'an editable installation needs setuptools 64, and this is {__version__}',
            # torch<2.3 imports what setuptools 70 has no more
            '"setuptools>=64,<70" wheel',
        )
