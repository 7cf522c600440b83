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

# Python runs this at start-up of an environment with an editable install.
FINDER = '''\
"""Show mim where the editable pvd_mm is: in its checkout.

openmim and onedl-mim look for configs and tools beside the distribution's
metadata. Does nothing in any other program.
"""
import os
import sys

CHECKOUT = {checkout!r}


class PVDMMFinder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        return None

    @staticmethod
    def find_distributions(context=None):
        asked = vars(context) if context is not None else {{}}
        name = (asked.get('name') or '').replace('-', '_').lower()
        if name != 'pvd_mm' or 'path' in asked:
            return
        import pathlib
        from importlib.metadata import PathDistribution

        class Checkout(PathDistribution):
            @property
            def files(self):  # onedl-mim takes the first one's folder
                return sorted(super().files or [],
                              key=lambda file: file.parts[0] != 'pvd_mm')

        info = pathlib.Path(CHECKOUT, 'pvd_mm.egg-info')
        if info.is_dir():
            yield Checkout(info)


def names_mim(word):
    return os.path.splitext(os.path.basename(word))[0] in ('mim', 'mim-script')


if any(map(names_mim, sys.orig_argv[1:6])):
    sys.meta_path.insert(0, PVDMMFinder)
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path.insert(
        sys.path.index(here) if here in sys.path else len(sys.path), CHECKOUT)
'''


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


class EditableWheelForMim(editable_wheel):
    """Let both mims find an editable install's ``.mim``.

    An editable install leaves only metadata in site-packages, and that is
    where openmim (by pkg_resources) looks for the package; onedl-mim walks
    the whole checkout instead, work dirs included, and finds every config
    twice. A start-up file of the environment shows both the checkout's
    metadata first, in mim's own processes only.
    """

    def run(self):
        super().run()
        wheel = max(Path(self.dist_dir).glob('pvd_mm-*.whl'),
                    key=lambda path: path.stat().st_mtime_ns)
        files = {
            '_pvd_mm_editable.py': FINDER.format(checkout=str(ROOT)),
            '_pvd_mm_editable.pth': 'import _pvd_mm_editable\n',
        }
        rewritten = wheel.with_suffix('.tmp')
        with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(
                rewritten, 'w', zipfile.ZIP_DEFLATED) as new:
            for item in old.infolist():
                data = old.read(item)
                if item.filename.endswith('.dist-info/RECORD'):
                    data += ''.join(
                        record(name, text)
                        for name, text in files.items()).encode()
                new.writestr(item, data)
            for name, text in files.items():
                new.writestr(name, text)
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
