# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Are the files of a data set there? For the checked data sets of both frameworks."""

import os
import os.path as osp
from collections.abc import Callable, Iterable

from .errors import MissingDataError, raise_or_collect


class DatasetFilesMixin:
    """Checks of files, for subclasses of mmengine's ``BaseDataset``.

    Attributes:
        how_to_get (str): One sentence on where the data comes from, added to the errors
            about missing files.
    """

    how_to_get: str = ''

    def _source(self) -> str:
        return f' {self.how_to_get}' if self.how_to_get else ''

    def _is_local(self) -> bool:
        return (self.backend_args or {}).get('backend', 'local') == 'local'

    def _list_files(self, folder: str) -> Iterable[str]:
        """Names of the files in a folder; none if it does not exist."""
        return os.listdir(folder) if osp.isdir(folder) else ()

    def _check_folder(self, key: str, folder: str) -> None:
        """Refuse a folder, that of ``data_prefix[key]``, that does not exist."""
        if not osp.isdir(folder):
            self._refuse(f"data_prefix['{key}'] names the folder '{folder}'", folder)

    def _check_ann_file(self) -> None:
        """Refuse an annotation file that does not exist."""
        if not osp.isfile(self.ann_file):
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
        """Leave out the samples whose file does not exist. Every folder is listed once.

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
                listings[folder] = set(self._list_files(folder or os.curdir))
            return name in listings[folder]

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
