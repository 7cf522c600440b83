# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What setup.cfg cannot say: the ``.mim`` folder, editable installs, and the
op's C++ extension.

mim and mmengine expect configs, tools and the model index in
``pvd_mm/.mim``: copies in a wheel, links in an editable install.

The extension (pvd_mm/ops/csrc) is built where torch and a compiler are at
hand, which takes ``pip install --no-build-isolation``; elsewhere the package
is installed without it. PVD_MM_OPS=0 leaves it out, and with PVD_MM_OPS=1 an
installation that cannot build it fails.
"""

import base64
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.editable_wheel import editable_wheel

ROOT = Path(__file__).resolve().parent
MIM_PARTS = ('configs', 'tools', 'model-index.yml')

# Python runs it at start-up; see pvd_mm_mim.py.
START_UP = ('pvd_mm_mim.pth', 'import pvd_mm_mim; pvd_mm_mim.show()\n')


def link_or_copy(source: Path, target: Path) -> None:
    """Link ``target`` to ``source``; copy where links are not allowed."""
    if target.is_symlink() or target.is_file():
        target.unlink()
    elif target.is_dir():
        shutil.rmtree(target)
    try:
        target.symlink_to(os.path.relpath(source, target.parent))
    except OSError:
        (shutil.copytree if source.is_dir() else shutil.copy2)(source, target)


class BuildPyWithMim(build_py):
    """Put ``pvd_mm/.mim`` into the wheel, or link it in the checkout."""

    def run(self):
        super().run()
        parts = [ROOT / part for part in MIM_PARTS if (ROOT / part).exists()]
        if getattr(self, 'editable_mode', False):
            (ROOT / 'pvd_mm' / '.mim').mkdir(exist_ok=True)
            for part in parts:
                link_or_copy(part, ROOT / 'pvd_mm' / '.mim' / part.name)
            return
        target = Path(self.build_lib) / 'pvd_mm' / '.mim'
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for part in parts:
            if part.is_dir():
                shutil.copytree(
                    part,
                    target / part.name,
                    ignore=shutil.ignore_patterns('__pycache__', '*.pyc'),
                )
            else:
                shutil.copy2(part, target / part.name)
        Path(self.build_lib, START_UP[0]).write_text(START_UP[1])


class EditableWheelForMim(editable_wheel):
    """Add the start-up file, which editable wheels have no other way for."""

    def run(self):
        super().run()
        wheel = max(
            Path(self.dist_dir).glob('pvd_mm-*.whl'),
            key=lambda path: path.stat().st_mtime_ns,
        )
        rewritten = wheel.with_suffix('.tmp')
        with (
            zipfile.ZipFile(wheel) as old,
            zipfile.ZipFile(rewritten, 'w', zipfile.ZIP_DEFLATED) as new,
        ):
            for item in old.infolist():
                data = old.read(item)
                if item.filename.endswith('.dist-info/RECORD'):
                    data += record(*START_UP).encode()
                new.writestr(item, data)
            new.writestr(*START_UP)
            # The checkout's own metadata, for pvd_mm_mim.py; setuptools
            # leaves some there with build isolation only.
            info = ROOT / 'pvd_mm.egg-info'
            info.mkdir(exist_ok=True)
            metadata = next(
                name for name in old.namelist() if name.endswith('.dist-info/METADATA')
            )
            (info / 'PKG-INFO').write_bytes(old.read(metadata))
            (info / 'top_level.txt').write_text('pvd_mm\npvd_mm_mim\n')
            (info / 'SOURCES.txt').write_text('pvd_mm/__init__.py\n')
        rewritten.replace(wheel)


def record(name: str, text: str) -> str:
    """A line of a wheel's RECORD."""
    digest = (
        base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
        .rstrip(b'=')
        .decode()
    )
    return f'{name},sha256={digest},{len(text.encode())}\n'


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
        without_extension(
            f'torch cannot be imported ({error!r}); pip hides '
            'it unless --no-build-isolation is given'
        )
        return {}

    class BuildOps(BuildExtension):
        """Goes on without the extension where it cannot be compiled."""

        def build_extensions(self):
            try:
                if self.compiler.compiler_type == 'unix':
                    for one in self.extensions:
                        one.extra_compile_args += unix_flags(torch)
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


parts = extension()
setup(
    ext_modules=parts.get('ext_modules', []),
    cmdclass={
        'build_py': BuildPyWithMim,
        'editable_wheel': EditableWheelForMim,
        **parts.get('cmdclass', {}),
    },
)
