# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Segmentation datasets that say what is wrong with the data on disk.

mmsegmentation lists whatever images it finds. A mistyped folder, an image
without its label or a label map with foreign values shows up much later, as
an empty loader, a file error in a worker or an index error inside the loss.
The mixin below finds them where the data enters and names the file.
"""

import os.path as osp
from typing import Any

import numpy as np
from mmcv.transforms import LoadAnnotations
from mmengine import fileio
from mmseg.datasets import CityscapesDataset
from mmseg.registry import DATASETS

from pvd_mm.utils.errors import (
    LabelError,
    MissingDataError,
    existing_part,
    report,
    some,
)


class LabelCheck:
    """Pipeline step that refuses label maps with values outside the classes.

    :class:`CheckedDatasetMixin` puts one directly behind every
    ``LoadAnnotations`` of its pipeline, so the whole map is checked, before
    any crop. It compares bytes and costs well under a millisecond for a
    1024x2048 map; the values are only listed when the check fails.

    Args:
        classes (Sequence[str]): Class names; the labels ``0 ..
            len(classes) - 1`` are allowed.
        ignore_index (int): The label that is allowed besides them.
            Defaults to 255.
        owner (str): Name of the dataset class, for the messages.
        hint (str): Sentence that is added when foreign values are found.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        ignore_index: int = 255,
        owner: str = 'dataset',
        hint: str = '',
    ) -> None:
        self.num_classes = len(classes)
        self.ignore_index = ignore_index
        self.owner = owner
        self.hint = hint

    def __call__(self, results: dict) -> dict:
        """Check ``results['gt_seg_map']`` (H x W), change nothing.

        Raises:
            ValueError: The map is not two-dimensional, its size is not that
                of the image, or it holds values that are neither a class
                nor the ignore index.
        """
        label = results['gt_seg_map']
        path = results.get('seg_map_path', '<no path>')
        if label.ndim != 2:
            raise LabelError(
                f'{self.owner}: the label map {path} has the shape '
                f'{label.shape}; expected one value per pixel, (H, W). '
                'Colour-coded label images have to be converted to class '
                'indices first.'
            )
        size = results.get('ori_shape')
        if size is not None and tuple(size[:2]) != label.shape:
            raise LabelError(
                f'{self.owner}: the label map {path} has the size '
                f'{label.shape}, but its image {results.get("img_path")} has '
                f'{tuple(size[:2])} (height, width).'
            )
        foreign = (label >= self.num_classes) & (label != self.ignore_index)
        if foreign.any():
            values = np.unique(label[foreign]).tolist()
            hint = f' {self.hint}' if self.hint else ''
            raise LabelError(
                f'{self.owner}: the label map {path} holds the values '
                f'{some(values)}, which are outside the classes; allowed '
                f'are 0 to {self.num_classes - 1} ({self.num_classes} '
                f'classes) and {self.ignore_index} (ignored).{hint}'
            )
        return results

    def __repr__(self) -> str:
        return (
            f'{type(self).__name__}(num_classes={self.num_classes}, '
            f'ignore_index={self.ignore_index})'
        )


class CheckedDatasetMixin:
    """Boundary checks for subclasses of mmseg's ``BaseSegDataset``.

    Put it before the dataset in the bases. Whenever the file list is read it
    checks that

    - every folder of ``data_prefix`` exists,
    - there is at least one image,
    - every image has its label map (unless ``data_prefix`` has no
      ``seg_map_path``: a split without ground truth),

    and for every sample that is loaded, in a training, test or test-time
    augmentation pipeline, it runs :class:`.LabelCheck`.

    Attributes:
        how_to_get (str): One sentence on where the data comes from, added to
            the error about a missing or empty folder.
        foreign_label_hint (str): One sentence added to the error about label
            values outside the classes.
    """

    how_to_get: str = ''
    foreign_label_hint: str = ''

    @property
    def pipeline(self) -> Any:
        """The transforms of the dataset, with the label check in them."""
        return self._checked_pipeline

    @pipeline.setter
    def pipeline(self, pipeline: Any) -> None:
        # A property, so that a pipeline that is switched during training
        # is checked as well.
        self._insert_check(pipeline)
        self._checked_pipeline = pipeline

    def _insert_check(self, node: Any) -> None:
        """Put a label check behind each ``LoadAnnotations`` below ``node``."""
        steps = getattr(node, 'transforms', None)
        if isinstance(steps, list):
            checked = []
            for i, step in enumerate(steps):
                checked.append(step)
                done = isinstance((steps + [None])[i + 1], LabelCheck)
                if isinstance(step, LoadAnnotations) and not done:
                    checked.append(self._label_check())
                else:
                    self._insert_check(step)
            steps[:] = checked
        elif steps is not None:  # a wrapper around one inner pipeline
            self._insert_check(steps)
        for branch in getattr(node, 'subroutines', ()):  # TestTimeAug
            self._insert_check(branch)

    def _label_check(self) -> LabelCheck:
        return LabelCheck(
            self.metainfo['classes'],
            self.ignore_index,
            type(self).__name__,
            self.foreign_label_hint,
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

    def _source(self) -> str:
        return f' {self.how_to_get}' if self.how_to_get else ''

    def _is_local(self) -> bool:
        backend = (self.backend_args or {}).get('backend', 'local')
        return backend == 'local'

    def _check_folders(self) -> None:
        if not self._is_local():
            return  # object stores have no folders to look for
        name = type(self).__name__
        if not self.data_prefix.get('img_path'):
            raise ValueError(
                f"{name}: data_prefix needs the key 'img_path' (or "
                f'data_root has to be given); data_prefix={self.data_prefix}, '
                f'data_root={self.data_root!r}.'
            )
        for key, folder in self.data_prefix.items():
            if osp.isdir(folder):
                continue
            parent = existing_part(folder)
            raise MissingDataError(
                f"{name}: data_prefix['{key}'] names the folder '{folder}', "
                f'which does not exist (of its path, {parent} exists; '
                f'data_root={self.data_root!r}).{self._source()}'
            )
        if self.ann_file and not osp.exists(self.ann_file):
            raise MissingDataError(
                f"{name}: ann_file names '{self.ann_file}', which does not "
                f'exist (data_root={self.data_root!r}).'
            )

    def _check_files(self, samples: list[dict]) -> list[dict]:
        """Compare the sample list with the folders, one listing for each;
        give those that are whole."""
        name = type(self).__name__
        if self.ann_file:
            # without it the images come from the listing itself
            missing = self._absent(samples, 'img_path', self.img_suffix)
            if missing:
                report(
                    MissingDataError(
                        f'{name}: {len(missing)} of {len(samples)} images listed '
                        f'in {self.ann_file} do not exist: {some(missing)}.'
                    )
                )
                gone = set(missing)
                samples = [s for s in samples if s['img_path'] not in gone]
        if self.data_prefix.get('seg_map_path') is None:
            return samples
        missing = self._absent(samples, 'seg_map_path', self.seg_map_suffix)
        if missing:
            pairs = {s['seg_map_path']: s['img_path'] for s in samples}
            hint = self._missing_label_hint(missing[0])
            report(
                MissingDataError(
                    f'{name}: {len(missing)} of {len(samples)} images have no '
                    f'label map. First image: {pairs[missing[0]]}; missing: '
                    f'{some(missing)}.' + (f' {hint}' if hint else '')
                )
            )
            gone = set(missing)
            samples = [s for s in samples if s['seg_map_path'] not in gone]
        return samples

    def _absent(self, samples: list[dict], key: str, suffix: str) -> list[str]:
        folder = self.data_prefix[key]
        there = set(
            fileio.list_dir_or_file(
                folder,
                list_dir=False,
                suffix=suffix,
                recursive=True,
                backend_args=self.backend_args,
            )
        )
        there = {osp.normpath(osp.join(folder, path)) for path in there}
        return [s[key] for s in samples if osp.normpath(s[key]) not in there]

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
