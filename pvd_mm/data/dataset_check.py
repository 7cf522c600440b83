# Copyright (c) PVD-MM contributors. Apache-2.0.
"""All that is wrong with a config's data, before a long run meets it.

The rules are those of the checked data sets. A training stops at the first
violation; here the errors are collected, and what is wrong is left out.
"""

import copy
import os.path as osp
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS, MODELS, TRANSFORMS, init_default_scope
from mmengine.utils import ProgressBar, scandir
from PIL import Image

from pvd_mm.utils.dataset_classes import check_class_names, compare_classes, leaves
from pvd_mm.utils.dataset_pipeline import image_size_problem, orientation
from pvd_mm.utils.errors import UserError, collect_errors, some

SPLITS = ('train', 'val', 'test')


@dataclass
class SplitReport:
    """What is wrong with one split.

    Args:
        split (str): 'train', 'val' or 'test'.
        samples (int): How many were looked at.
        problems (list[str]): What a run would stop at, or learn wrong.
        notes (list[str]): What may be as it should.
    """

    split: str
    samples: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, problem: str) -> None:
        """Put a problem on the list, once."""
        if problem not in self.problems:
            self.problems.append(problem)


def _reduce_pipeline(dataset: BaseDataset, scope: str) -> bool:
    """Make a data set load its files, check its label maps and do nothing else; tell
    whether it loads annotations."""
    steps = [
        step
        for step in dataset.pipeline.transforms
        if type(step).__name__.startswith('Load')
    ]
    loaders = [step for step in steps if 'Annotation' in type(step).__name__]
    if loaders and scope == 'mmseg':
        from pvd_mm.semantic.checked_dataset import CheckedDatasetMixin
        from pvd_mm.semantic.label_check import LabelCheck

        if not isinstance(dataset, CheckedDatasetMixin):  # which adds its own
            classes, ignored = dataset.metainfo.get('classes'), dataset.ignore_index
            name = type(dataset).__name__
            steps.append(LabelCheck(classes, ignored, name, loader=loaders[-1]))
    dataset.pipeline = Compose(steps)
    # what cannot be loaded is to be told, not passed over for another
    dataset.test_mode = True
    return bool(loaders)


def _is_turned(path: Any) -> bool:
    """Whether a file has an EXIF orientation, by which mmcv turns the image."""
    try:
        with Image.open(path) as image:
            return orientation(image) != 1
    except Exception:  # noqa: BLE001 - remote, or a format of another reader
        return False


def _labels_without_image(dataset: BaseDataset) -> list[str]:
    """Paths of the label maps of a data set of mmseg that have no image."""
    prefix = getattr(dataset, 'data_prefix', {})
    folder, suffix = prefix.get('seg_map_path'), getattr(dataset, 'seg_map_suffix', '')
    images = prefix.get('img_path')
    if not folder or not images or not osp.isdir(folder) or dataset.ann_file:
        return []  # a list may be of a part of the folder
    labels = []
    for path in sorted(scandir(folder, suffix, recursive=True)):
        image = path.removesuffix(suffix) + dataset.img_suffix
        if not osp.exists(osp.join(images, image)):
            labels.append(osp.join(folder, path))
    return labels


def _check_samples(
    dataset: BaseDataset, report: SplitReport, counts: np.ndarray
) -> None:
    """Load every sample; ``counts``, (K,), are raised by the pixels or boxes of each
    class."""
    sys.stderr.write(f'{report.split}, {type(dataset).__name__}\n')
    bar = ProgressBar(len(dataset), file=sys.stderr)
    turned = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        try:
            results = dataset.prepare_data(index)
            problem = image_size_problem({**info, **results})
            if problem:
                report.add(problem)
            elif _is_turned(info.get('img_path')):
                turned.append(info['img_path'])
            labels = results.get('gt_seg_map', results.get('gt_bboxes_labels'))
            if labels is not None:
                kept = labels[labels < len(counts)].ravel().astype(np.int64)
                counts += np.bincount(kept, minlength=len(counts))
        except UserError as error:
            report.add(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a reader raises
            report.add(
                f'{info.get("img_path")} or its annotations cannot be read: '
                f'{type(error).__name__}: {error}'
            )
        report.samples += 1
        bar.update()
    sys.stderr.write('\n')
    if turned:
        report.notes.append(
            f'{len(turned)} images have an EXIF orientation, by which mmcv turns them '
            'when they are loaded, but not their annotations; look whether these are '
            f'for the turned image: {some(turned)}'
        )


def check_split(cfg: Config, split: str, model: Any = None) -> SplitReport:
    """Look at every file of a split.

    Args:
        cfg (Config): Any config of mmseg or mmdet.
        split (str): 'train', 'val' or 'test'.
        model (nn.Module, optional): The config's model, whose classes are compared
            with the split's. Defaults to None.

    Returns:
        SplitReport: With the problems: folders, images or label maps that are not
        there, label maps without an image, files that cannot be read, label
        values outside the classes, sizes that differ, broken annotations, heads with
        fewer classes than the data of a training. Notes are splits without
        annotations, classes that never occur, other heads of another number of
        classes, and images with an EXIF orientation.
    """
    report = SplitReport(split)
    with collect_errors() as messages:
        _check_datasets(cfg, report, model)
    report.problems[:0] = messages
    return report


def _check_datasets(cfg: Config, report: SplitReport, model: Any) -> None:
    scope = cfg.get('default_scope', 'mmseg')
    init_default_scope(scope)
    try:
        options = cfg[f'{report.split}_dataloader'].dataset
        whole = DATASETS.build(dict(options))
        parts = list(leaves(whole))
        for dataset in parts:
            dataset.full_init()
            check_class_names(dataset.metainfo.get('classes'), type(dataset).__name__)
    except (UserError, FileNotFoundError, ValueError) as error:
        report.problems.append(str(error))
        return
    if model is not None:
        fewer, other = compare_classes(model, whole)
        # only a training computes losses of the labels
        (report.problems if report.split == 'train' else report.notes).extend(fewer)
        report.notes.extend(other)
    for dataset in parts:
        if not len(dataset):
            report.problems.append(f'{type(dataset).__name__} is empty')
            continue
        classes = dataset.metainfo.get('classes') or ()
        counts = np.zeros(len(classes), dtype=np.int64)
        labels = _labels_without_image(dataset)
        if labels:
            report.problems.append(
                f'{len(labels)} label maps have no image: {some(labels)}'
            )
        annotated = _reduce_pipeline(dataset, scope)
        _check_samples(dataset, report, counts)
        absent = [
            name for name, count in zip(classes, counts, strict=True) if not count
        ]
        if not annotated:
            report.notes.append('its pipeline loads no annotations')
        elif absent:
            report.notes.append(f'classes that never occur: {some(absent)}')


def check_dataset(cfg: Config, splits: Sequence[str] = SPLITS) -> list[SplitReport]:
    """Look at the splits of a config; one that is another's again, as test
    often is val, is looked at once.

    Args:
        cfg (Config): Any config of mmseg or mmdet.
        splits (Sequence[str]): Of 'train', 'val' and 'test'.

    Returns:
        list[SplitReport]: See :func:`check_split`.

    Raises:
        UserError: If the config has none of these splits.
    """
    TRANSFORMS.get('LoadAnnotations')  # imports the framework's transforms
    reports, seen, notes = [], {}, []
    try:
        model = _build_model(cfg)
    except Exception as error:  # noqa: BLE001 - whatever a model raises
        model = None
        notes.append(
            'the model cannot be built, so that its classes are not compared: '
            f'{type(error).__name__}: {error}'
        )
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        key = repr(loader.dataset)
        if key in seen:
            reports.append(SplitReport(split, notes=[f'the same as {seen[key]}']))
            continue
        seen[key] = split
        reports.append(check_split(cfg, split, model))
    if not reports:
        raise UserError(f'the config has no data for {", ".join(splits)}')
    reports[0].notes.extend(notes)
    return reports


def _build_model(cfg: Config) -> Any:
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    return MODELS.build(copy.deepcopy(cfg.model)) if cfg.get('model') else None


def summary(reports: Sequence[SplitReport], most: int = 50) -> str:
    """A line per split, problem and note, of each split's problems ``most``."""
    lines = []
    for report in reports:
        problems = report.problems
        lines.append(
            f'{report.split}: {report.samples} samples, {len(problems)} problems'
        )
        lines += [f'  problem: {text}' for text in problems[:most]]
        if len(problems) > most:
            lines.append(f'  … and {len(problems) - most} more')
        lines += [f'  note: {text}' for text in report.notes]
    return '\n'.join(lines)
