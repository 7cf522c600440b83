# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Are the files of a data set there? For the checked data sets of both frameworks."""

import os
import os.path as osp
from collections.abc import Callable, Iterable

from .dataset_classes import check_class_names
from .errors import MissingDataError, raise_or_collect


class DatasetFilesMixin:
    """Checks of files, for subclasses of mmengine's ``BaseDataset``.

    Attributes:
        how_to_get (str): One sentence on where the data comes from, added to the errors
            about missing files.
    """

    how_to_get: str = ''

    @classmethod
    def _load_metainfo(cls, metainfo: dict | None = None) -> dict:
        """See mmengine's; refuses a string in place of the classes."""
        metainfo = super()._load_metainfo(metainfo)
        check_class_names(metainfo.get('classes'), cls.__name__)
        return metainfo

    def _join_prefix(self) -> None:
        """See mmengine's, which takes no None; here it means that there is none."""
        prefix = self.data_prefix
        self.data_prefix = {k: v for k, v in prefix.items() if v is not None}
        super()._join_prefix()

    def _source(self) -> str:
        return f' {self.how_to_get}' if self.how_to_get else ''

    def _is_local(self, path: str) -> bool:
        """Whether mmengine takes the local file system for a path; any other is that
        of its prefix, as of ``s3://``, unless ``backend_args`` name one."""
        backend = (self.backend_args or {}).get('backend')
        return '://' not in path if backend is None else backend == 'local'

    def _list_files(self, folder: str) -> Iterable[str] | None:
        """Names of the files in a folder, none if it does not exist; None if it
        cannot be listed."""
        if not self._is_local(folder):
            return None
        return os.listdir(folder) if osp.isdir(folder) else ()

    def _check_folder(self, key: str, folder: str | None) -> None:
        """Refuse a folder, that of ``data_prefix[key]``, that does not exist."""
        if folder is None or not self._is_local(folder):
            return  # object stores have no folders to look for
        if not osp.isdir(folder):
            self._refuse(f"data_prefix['{key}'] names the folder '{folder}'", folder)

    def _check_ann_file(self) -> None:
        """Refuse an annotation file that does not exist."""
        if self._is_local(self.ann_file) and not osp.isfile(self.ann_file):
            self._refuse(f"ann_file names '{self.ann_file}'", self.ann_file)

    def _refuse(self, mistake: str, path: str) -> None:
        part = osp.abspath(path)
        while not osp.isdir(part):
            part = osp.dirname(part)
        raise MissingDataError(
            f'{type(self).__name__}: {mistake}, which does not exist (of its path, '
            f'{part} exists; data_root={self.data_root!r}).{self._source()}'
        )

    def _leave_out_missing(
        self, samples: list[dict], key: str, message: Callable[[list[dict]], str]
    ) -> list[dict]:
        """Leave out the samples whose file does not exist. Every folder is listed
        once; of one that cannot be listed all files are taken to be there.

        Args:
            samples (list[dict]): The samples.
            key (str): Of the file's path in a sample.
            message (Callable): Says of the samples without a file what is missing; the
                numbers, '2 of 9', stand before it.

        Raises:
            MissingDataError: A file does not exist, and errors are not collected.
        """
        listings = {}

        def exists(path: str) -> bool:
            folder, name = osp.split(path)
            if folder not in listings:
                names = self._list_files(folder or os.curdir)
                listings[folder] = None if names is None else set(names)
            return listings[folder] is None or name in listings[folder]

        complete, missing = [], []
        for sample in samples:
            (complete if exists(sample[key]) else missing).append(sample)
        if missing:
            raise_or_collect(
                MissingDataError(
                    f'{type(self).__name__}: {len(missing)} of {len(samples)} '
                    + message(missing)
                )
            )
        return complete
