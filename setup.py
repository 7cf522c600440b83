# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What setup.cfg cannot say: the ``.mim`` folder and editable installs.

mim and mmengine expect configs, tools and the model index in
``pvd_mm/.mim``: copies in a wheel, links in an editable install. The C++
extension will be declared here.
"""

import base64
import hashlib
import os
import shutil
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
                    part, target / part.name,
                    ignore=shutil.ignore_patterns('__pycache__', '*.pyc'))
            else:
                shutil.copy2(part, target / part.name)
        Path(self.build_lib, START_UP[0]).write_text(START_UP[1])


class EditableWheelForMim(editable_wheel):
    """Add the start-up file, which editable wheels have no other way for."""

    def run(self):
        super().run()
        wheel = max(Path(self.dist_dir).glob('pvd_mm-*.whl'),
                    key=lambda path: path.stat().st_mtime_ns)
        rewritten = wheel.with_suffix('.tmp')
        with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(
                rewritten, 'w', zipfile.ZIP_DEFLATED) as new:
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
            metadata = next(name for name in old.namelist()
                            if name.endswith('.dist-info/METADATA'))
            (info / 'PKG-INFO').write_bytes(old.read(metadata))
            (info / 'top_level.txt').write_text('pvd_mm\npvd_mm_mim\n')
            (info / 'SOURCES.txt').write_text('pvd_mm/__init__.py\n')
        rewritten.replace(wheel)


def record(name: str, text: str) -> str:
    """A line of a wheel's RECORD."""
    digest = base64.urlsafe_b64encode(
        hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()
    return f'{name},sha256={digest},{len(text.encode())}\n'


setup(cmdclass={
    'build_py': BuildPyWithMim,
    'editable_wheel': EditableWheelForMim,
})
