# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Show mim where pvd_mm is; run at Python's start-up by ``pvd_mm_mim.pth``.

mim finds a package's configs and tools by the package's metadata, and goes
wrong in two ways. onedl-mim takes the folder of the first file listed there,
which is the metadata's own folder for every package that is called like its
module. And of an editable install only the metadata is where both mims look:
openmim then finds nothing, onedl-mim walks the whole checkout, work dirs
included, and finds every config more than once.

In a process of mim, and in no other, the metadata beside this file answers
for ``pvd_mm`` first, with the package's files in front. In an editable
install this file is in the checkout, and so is that metadata.
"""

import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))


class _Finder:
    """A finder for ``importlib.metadata`` that knows one distribution."""

    @staticmethod
    def find_spec(name, path=None, target=None):
        """Find no modules."""
        return None

    @staticmethod
    def find_distributions(context=None):
        """Yield pvd_mm's distribution when it is asked for by name."""
        asked = vars(context) if context is not None else {}
        name = (asked.get('name') or '').replace('-', '_').lower()
        if name != 'pvd_mm' or 'path' in asked:
            return
        from importlib.metadata import PathDistribution
        from pathlib import Path

        class PackageFirst(PathDistribution):
            @property
            def files(self):
                return sorted(
                    super().files or [], key=lambda file: file.parts[0] != 'pvd_mm'
                )

        here = Path(_HERE)
        for info in [here / 'pvd_mm.egg-info', *here.glob('pvd_mm-*.dist-info')]:
            if info.is_dir():
                yield PackageFirst(info)


def _is_mim(word: str) -> bool:
    return os.path.splitext(os.path.basename(word))[0] in ('mim', 'mim-script')


def show() -> None:
    """Install the finder if this is a process of mim."""
    if any(map(_is_mim, sys.orig_argv[1:6])):
        sys.meta_path.insert(0, _Finder)
        if _HERE not in sys.path:  # editable; pkg_resources goes by the path
            sys.path.insert(0, _HERE)
