# Copyright (c) PVD-MM contributors. Apache-2.0.
"""A folder behind a file backend of mmengine that is inferred from the prefix."""

import re
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

_PREFIX = '^(store|web)://'


class _Store(LocalBackend):
    """Has the local file of a path behind its prefix."""

    def get(self, path):
        return super().get(re.sub(_PREFIX, '', path))

    def get_local_path(self, path):
        return super().get_local_path(re.sub(_PREFIX, '', path))

    def list_dir_or_file(self, path, *args, **kwargs):
        return super().list_dir_or_file(re.sub(_PREFIX, '', path), *args, **kwargs)

    def join_path(self, path, *paths):
        return '/'.join([path, *paths])


class _Web(_Store):
    list_dir_or_file = property()  # an AttributeError, as of mmengine's HTTPBackend


def remote_folder(folder: Path, lists: bool = True) -> str:
    """The address of a folder, in a backend that can list it or not."""
    register_backend('store', _Store, prefixes='store', force=True)
    register_backend('web', _Web, prefixes='web', force=True)
    return f'{"store" if lists else "web"}://{folder}'
