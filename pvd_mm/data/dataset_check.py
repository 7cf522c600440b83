# Copyright (c) PVD-MM contributors. Apache-2.0.
"""All that is wrong with a config's data, before a long run meets it.

The rules are those of the checked data sets. A training stops at the first
violation; here the errors are collected, and what is wrong is left out.
"""

import os.path as osp
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose, ConcatDataset
from mmengine.registry import DATASETS, TRANSFORMS, init_default_scope
from mmengine.utils import ProgressBar, scandir

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


def _leaves(dataset: Any) -> Iterator[BaseDataset]:
    """The data sets inside mmengine's wrappers."""
    if isinstance(dataset, ConcatDataset):
        for part in dataset.datasets:
            yield from _leaves(part)
    elif isinstance(dataset, BaseDataset):
        yield dataset
    else:  # RepeatDataset, ClassBalancedDataset, MultiImageMixDataset
        yield from _leaves(dataset.dataset)


def _reduce_pipeline(dataset: BaseDataset, scope: str) -> bool:
    """Make a data set load its files, check its label maps and do nothing else; tell
    whether it loads annotations."""
    steps = [
        step
        for step in dataset.pipeline.transforms
        if type(step).__name__.startswith('Load')
    ]
    annotated = any('Annotation' in type(step).__name__ for step in steps)
    if annotated and scope == 'mmseg':
        from pvd_mm.semantic.checked_dataset import CheckedDatasetMixin
        from pvd_mm.semantic.label_check import LabelCheck

        if not isinstance(dataset, CheckedDatasetMixin):  # which adds its own
            classes, ignored = dataset.metainfo['classes'], dataset.ignore_index
            steps.append(LabelCheck(classes, ignored, type(dataset).__name__))
    dataset.pipeline = Compose(steps)
    # what cannot be loaded is to be told, not passed over for another
    dataset.test_mode = True
    return annotated


def _wrong_size(results: dict) -> str | None:
    """COCO's images have their size in the annotations, too."""
    size = tuple(results['img'].shape[:2])
    annotated = results.get('height'), results.get('width')
    if None in annotated or annotated == size:
        return None
    return (
        f'{results["img_path"]} is {size} (height, width), but '
        f'its annotations are for {annotated}'
    )


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
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        try:
            results = dataset.prepare_data(index)
            problem = _wrong_size({**info, **results})
            if problem:
                report.problems.append(problem)
            labels = results.get('gt_seg_map', results.get('gt_bboxes_labels'))
            if labels is not None:
                kept = labels[labels < len(counts)].ravel().astype(np.int64)
                counts += np.bincount(kept, minlength=len(counts))
        except UserError as error:
            report.problems.append(str(error))
        except Exception as error:  # noqa: BLE001 - whatever a reader raises
            report.problems.append(
                f'{info.get("img_path")} or its annotations cannot be read: '
                f'{type(error).__name__}: {error}'
            )
        report.samples += 1
        bar.update()
    sys.stderr.write('\n')


def check_split(cfg: Config, split: str) -> SplitReport:
    """Look at every file of a split.

    Args:
        cfg (Config): Any config of mmseg or mmdet.
        split (str): 'train', 'val' or 'test'.

    Returns:
        SplitReport: With the problems: folders, images or label maps that are not
        there, label maps without an image, files that cannot be read, label
        values outside the classes, sizes that differ, broken annotations.
        Notes are splits without annotations and classes that never occur.
    """
    report = SplitReport(split)
    with collect_errors() as messages:
        _check_datasets(cfg, report)
    report.problems[:0] = messages
    return report


def _check_datasets(cfg: Config, report: SplitReport) -> None:
    scope = cfg.get('default_scope', 'mmseg')
    init_default_scope(scope)
    try:
        options = cfg[f'{report.split}_dataloader'].dataset
        leaves = list(_leaves(DATASETS.build(dict(options))))
        for dataset in leaves:
            dataset.full_init()
    except (UserError, FileNotFoundError, ValueError) as error:
        report.problems.append(str(error))
        return
    for dataset in leaves:
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
    reports, seen = [], {}
    for split in splits:
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        key = repr(loader.dataset)
        if key in seen:
            reports.append(SplitReport(split, notes=[f'the same as {seen[key]}']))
            continue
        seen[key] = split
        reports.append(check_split(cfg, split))
    if not reports:
        raise UserError(f'the config has no data for {", ".join(splits)}')
    return reports


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
