# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Segmentation datasets that say what is wrong with the data on disk.

mmsegmentation lists whatever images it finds. A mistyped folder, an image
without its label or a label map with foreign values shows up much later, as
an empty loader, a file error in a worker or an index error inside the loss.
The mixin below finds them where the data enters and names the file.
"""

import os.path as osp
from collections.abc import Callable, Iterable
from typing import Any

from mmcv.transforms import LoadAnnotations
from mmengine import fileio
from mmseg.datasets import CityscapesDataset
from mmseg.registry import DATASETS

from pvd_mm.utils.dataset_files import DatasetFilesMixin
from pvd_mm.utils.dataset_pipeline import PipelineCheckMixin
from pvd_mm.utils.errors import LabelError, MissingDataError, some

from .label_check import LabelCheck


class CheckedDatasetMixin(DatasetFilesMixin, PipelineCheckMixin):
    """Boundary checks for subclasses of mmseg's ``BaseSegDataset``.

    Put it before the dataset in the bases. It refuses ``classes`` that are a
    string, and whenever the file list is read it checks that

    - every folder of ``data_prefix`` exists,
    - there is at least one image,
    - every image has its label map (unless ``data_prefix`` has no
      ``seg_map_path``, or None: a split without ground truth),

    and for every sample that is loaded, in a training, test or test-time
    augmentation pipeline, it runs :class:`.LabelCheck`.

    Attributes:
        how_to_get (str): One sentence on where the data comes from, added to
            the errors about missing files.
        foreign_label_hint (str): One sentence added to the error about label
            values outside the classes.
    """

    foreign_label_hint: str = ''

    def _check_behind(self, step: Callable) -> Callable | None:
        if not isinstance(step, LoadAnnotations):
            return None
        return LabelCheck(
            self.metainfo.get('classes'),
            self.ignore_index,
            type(self).__name__,
            self.foreign_label_hint,
            step,
        )

    def load_data_list(self) -> list[dict]:
        """List the samples, see ``BaseSegDataset.load_data_list``.

        Raises:
            FileNotFoundError: A folder of ``data_prefix`` or the
                ``ann_file`` does not exist, the image folder holds no image,
                or an image has no label map (or, with an ``ann_file``, a
                listed image does not exist).
        """
        self._check_folders()
        samples = super().load_data_list()
        if not samples:
            raise MissingDataError(
                f"{type(self).__name__}: data_prefix['img_path'] = "
                f"'{self.data_prefix.get('img_path')}' holds no image that "
                f"ends in '{self.img_suffix}'"
                + (f' and is listed in {self.ann_file}' if self.ann_file else '')
                + f'.{self._source()}'
            )
        return self._check_files(samples)

    def _check_folders(self) -> None:
        if not self.data_prefix.get('img_path'):
            raise ValueError(
                f"{type(self).__name__}: data_prefix needs the key 'img_path' (or "
                f'data_root has to be given); data_prefix={self.data_prefix}, '
                f'data_root={self.data_root!r}.'
            )
        for key, folder in self.data_prefix.items():
            self._check_folder(key, folder)
        if self.ann_file and not osp.isdir(self.ann_file):  # as mmseg reads one
            self._check_ann_file()

    def _list_files(self, folder: str) -> Iterable[str] | None:
        if self._is_local(folder):
            return super()._list_files(folder)
        try:
            return list(
                fileio.list_dir_or_file(
                    folder, list_dir=False, backend_args=self.backend_args
                )
            )
        except (AttributeError, NotImplementedError):  # mmengine's HTTP backend
            return None

    def _check_files(self, samples: list[dict]) -> list[dict]:
        """Compare the samples with the folders; give those that are complete."""

        def images(missing: list[dict]) -> str:
            paths = [sample['img_path'] for sample in missing]
            return f'images listed in {self.ann_file} do not exist: {some(paths)}.'

        def label_maps(missing: list[dict]) -> str:
            paths = [sample['seg_map_path'] for sample in missing]
            hint = self._missing_label_hint(paths[0])
            return (
                f'images have no label map. First image: {missing[0]["img_path"]}; '
                f'missing: {some(paths)}.' + (f' {hint}' if hint else '')
            )

        if self.ann_file:  # without it the images come from the listing itself
            samples = self._leave_out_missing(samples, 'img_path', images)
        if self.data_prefix.get('seg_map_path') is not None:
            samples = self._leave_out_missing(samples, 'seg_map_path', label_maps)
        return samples

    def prepare_data(self, idx: int) -> Any:
        """Load one sample, see ``BaseDataset.prepare_data``.

        Raises:
            LabelError: The label map is broken, or there is none although the
                pipeline asks for it.
        """
        try:
            return super().prepare_data(idx)
        except KeyError as error:
            if error.args != ('seg_map_path',):
                raise
            raise LabelError(
                f'{type(self).__name__}: data_prefix has no seg_map_path, so that '
                'the images have no label maps, which the pipeline asks for '
                '(LoadAnnotations).'
            ) from error

    def _missing_label_hint(self, path: str) -> str | None:
        """Say why the label map ``path`` may be missing, if it is known."""
        return None


_TRAIN_IDS = (
    'The files *_gtFine_labelIds.png hold raw Cityscapes label ids (0 to 33); '
    'training needs train ids (0 to 18, 255 ignored): make them with '
    '`python tools/dataset_converters/cityscapes.py FOLDER`, FOLDER being the one '
    'that holds gtFine.'
)


@DATASETS.register_module()
class CheckedCityscapesDataset(CheckedDatasetMixin, CityscapesDataset):
    """mmseg's ``CityscapesDataset`` with the checks of the mixin.

    Layout, arguments, classes and palette are those of the original. Serves
    the built-in street sample as well, which has the same layout.
    """

    how_to_get = (
        'Cityscapes comes from https://www.cityscapes-dataset.com; a built-in '
        'sample of the same layout is drawn by `python tools/make_sample.py '
        '--out FOLDER`.'
    )
    foreign_label_hint = _TRAIN_IDS

    def _missing_label_hint(self, path: str) -> str | None:
        raw = path.replace('_labelTrainIds.png', '_labelIds.png')
        if raw != path and fileio.exists(raw, backend_args=self.backend_args):
            return f'{raw} is there. {_TRAIN_IDS}'
        return None
