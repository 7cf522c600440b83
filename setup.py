# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What setup.cfg cannot say: requirements (setuptools<62.6 reads none from files
there), the ``.mim`` folder and the op's C++ extension.

mim expects configs, tools and the model index in ``pvd_mm/.mim``; a wheel has
copies there. Run from a checkout, installed or not, the package takes them from
the checkout.

The extension (pvd_mm/ops/csrc) is built where torch and a compiler are at
hand, which takes ``pip install --no-build-isolation``; elsewhere the package
is installed without it. PVD_MM_OPS=0 leaves it out, and with PVD_MM_OPS=1 an
installation that cannot build it fails.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

try:
    from setuptools.command.bdist_wheel import bdist_wheel
except ImportError:  # setuptools<70.1
    from wheel.bdist_wheel import bdist_wheel

ROOT = Path(__file__).resolve().parent


def copy_mim_parts(package: str) -> None:
    """Copy configs, tools and the model index to ``<package>/.mim``."""
    target = Path(package, '.mim')
    shutil.rmtree(target, ignore_errors=True)
    for part in ('configs', 'tools'):
        ignored = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / part, target / part, ignore=ignored)
    shutil.copy2(ROOT / 'model-index.yml', target)


class BuildPyWithMim(build_py):
    """Puts ``pvd_mm/.mim`` into a wheel."""

    def run(self):
        super().run()
        if not getattr(self, 'editable_mode', False):  # setuptools<64 has no such mode
            copy_mim_parts(os.path.join(self.build_lib, 'pvd_mm'))


class BdistWheelForMim(bdist_wheel):
    """Puts a second ``.mim`` where onedl-mim 0.5.1 looks for it.

    It takes the folder of the first file in an installed package's RECORD for the
    package. pip sorts that list, and ``pvd_mm-….dist-info/`` comes before
    ``pvd_mm/``, as with every package that is called like its module.
    """

    def write_wheelfile(self, wheelfile_base, *args, **kwargs):
        super().write_wheelfile(wheelfile_base, *args, **kwargs)
        if os.path.dirname(wheelfile_base) == self.bdist_dir:  # not an editable one
            copy_mim_parts(wheelfile_base)


WANTED = os.environ.get('PVD_MM_OPS', '')


def without_extension(reason: str) -> None:
    """Go on without the extension, or fail where it was asked for."""
    if WANTED == '1':
        raise RuntimeError(f'PVD_MM_OPS=1, but {reason}')
    print(
        f'pvd_mm: the C++ extension of pvd_mm.ops is not built: {reason}. '
        'pvd_mm works without it, slower on the CPU.',
        file=sys.stderr,
    )


def extension() -> dict:
    """What setup() has to know about the extension, if it can be built."""
    if WANTED not in ('', '0', '1'):
        raise ValueError(f'PVD_MM_OPS must be 0 or 1, but is {WANTED!r}')
    if WANTED == '0':
        without_extension('PVD_MM_OPS=0')
        return {}
    try:
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except Exception as error:
        hint = 'pip hides it unless --no-build-isolation is given'
        if 'pkg_resources' in str(error):  # torch<2.3 takes packaging from there
            hint = 'type pip install "setuptools<70" wheel, and install pvd_mm again'
        without_extension(f'torch cannot be imported ({error!r}); {hint}')
        return {}

    class BuildOps(BuildExtension):
        """Goes on without the extension where it cannot be compiled."""

        def build_extensions(self):
            try:
                if self.compiler.compiler_type == 'unix':
                    for module in self.extensions:
                        module.extra_compile_args += unix_flags(torch)
                super().build_extensions()
            except (Exception, SystemExit) as error:
                if WANTED == '1':
                    raise
                without_extension(f'it could not be compiled ({error})')
                self.extensions = []

    # The name tells which torch the library fits. It has no Python module's
    # entry point and needs nothing of torch's Python bindings.
    def files(pattern):
        folder = ROOT / 'pvd_mm/ops/csrc'
        return sorted(str(path.relative_to(ROOT)) for path in folder.glob(pattern))

    release = '_'.join(torch.__version__.split('.')[:2])
    ops = CppExtension(
        f'pvd_mm.ops._cpp_torch{release}', files('*.cpp'), depends=files('*.h')
    )
    ops.libraries = [lib for lib in ops.libraries if lib != 'torch_python']
    return dict(
        ext_modules=[ops],
        cmdclass=dict(build_ext=BuildOps.with_options(no_python_abi_suffix=True)),
    )


def unix_flags(torch) -> list:
    """Compiler flags beside torch's own; none for this very processor."""
    flags = [
        '-O3',
        '-g0',
        '-ffp-contract=fast',
        '-fno-math-errno',
        '-fno-trapping-math',
        '-fno-wrapv',
        '-fvisibility=hidden',
    ]
    compiler = os.environ.get('CXX', 'c++').split()
    version = subprocess.run(
        [*compiler, '--version'], text=True, capture_output=True, check=True
    ).stdout
    # GCC's OpenMP calls are found in the runtime that torch brings, whichever
    # it is; that is why nothing is linked here. Others stay on one thread.
    if 'clang' not in version and torch.backends.openmp.is_available():
        flags.append('-fopenmp')
    return flags


def requirements(*names: str) -> list:
    """The lines of ``requirements/<name>.txt``."""
    lines = []
    for name in names:
        text = (ROOT / f'requirements/{name}.txt').read_text(encoding='utf-8')
        lines += [line for line in text.splitlines() if not line.startswith('#')]
    return lines


parts = extension()
# Neither torch nor an mm package is required: a hard requirement would replace the
# user's torch, or install one package family over the other (mmengine and
# onedl-mmengine share their module's name).
setup(
    install_requires=requirements('runtime'),
    extras_require={
        'openmmlab': requirements('openmmlab'),
        'onedl': requirements('onedl'),
        'tests': requirements('tests', 'docs'),
        'docs': requirements('docs'),
    },
    ext_modules=parts.get('ext_modules', []),
    cmdclass={
        'build_py': BuildPyWithMim,
        'bdist_wheel': BdistWheelForMim,
        **parts.get('cmdclass', {}),
    },
)
