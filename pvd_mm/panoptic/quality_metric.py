# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Panoptic quality as a metric of mmdet's."""

import os.path as osp
from collections.abc import Sequence

import mmcv
import numpy as np
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.fileio import dump, get, join_path, load
from mmengine.logging import MMLogger, print_log
from terminaltables import AsciiTable

from pvd_mm.utils.errors import AnnotationError, MissingDataError, some

from .segments import (
    Segment,
    ids_to_rgb,
    match_segments,
    panoptic_quality,
    rgb_to_ids,
    segments_info,
    split_prediction,
)

_NAMES = ('PQ', 'SQ', 'RQ')


def _load_ids(path: str, backend_args: dict | None) -> np.ndarray:
    content = get(path, backend_args=backend_args)
    pixels = mmcv.imfrombytes(content, flag='color', channel_order='rgb')
    return rgb_to_ids(pixels)


def panoptic_truth(
    sample: dict, num_things_classes: int, backend_args: dict | None = None
) -> tuple[np.ndarray, list[Segment]]:
    """The annotated segments of a data sample.

    Args:
        sample (dict): With the dataset's ``segments_info`` and ``seg_map_path``.
        num_things_classes (int): How many classes are things, the first ones.
        backend_args (dict, optional): Of mmengine's file backend. Defaults to
            None.

    Returns:
        tuple[np.ndarray, list[Segment]]: Ids, (H, W) int32, and their segments.

    Raises:
        MissingDataError: The sample has none.
    """
    for key in ('segments_info', 'seg_map_path'):
        if sample.get(key) is None:
            raise MissingDataError(
                f'a data sample has no {key!r}, its panoptic truth; give '
                'PackDetInputs the meta_keys seg_map_path and segments_info, or '
                'PanopticQualityMetric ann_file and seg_prefix.'
            )
    # mmdet's segments_info has no iscrowd: a crowd is a thing that is none
    segments = [
        Segment(
            entry['id'],
            entry['category'],
            entry['category'] < num_things_classes and not entry['is_thing'],
        )
        for entry in sample['segments_info']
    ]
    return _load_ids(sample['seg_map_path'], backend_args), segments


@METRICS.register_module()
class PanopticQualityMetric(BaseMetric):
    """Panoptic quality, which needs no package.

    PQ, SQ and RQ (Kirillov et al., "Panoptic Segmentation", CVPR 2019) over
    all classes, things and stuff, with void and crowds as
    :func:`.match_segments` has them. Results and files are those of mmdet's
    ``CocoPanopticMetric``, which needs ``panopticapi``, in no registry:
    ``coco_panoptic/PQ``, ``SQ``, ``RQ``, with ``_th`` of things and ``_st`` of
    stuff, from 0 to 100, each a mean over the classes that are in the truth or
    predicted; NaN where there are none.

    torchmetrics' ``PanopticQuality`` does not do: it knows no crowds, and it
    takes the pixels that a prediction leaves void out of the union and out of
    what is missed, which the paper and COCO do not.

    Args:
        ann_file (str, optional): Truth in COCO's panoptic format. Defaults to
            None: the ``segments_info`` and the ``seg_map_path`` of the data
            samples, which ``PackDetInputs`` must have among its
            ``meta_keys``.
        seg_prefix (str, optional): With ``ann_file``, the folder of its PNGs.
            Defaults to None.
        classwise (bool): Also return the figures of every class, as
            ``PQ_<class>``. They are printed in any case. Defaults to False.
        format_only (bool): Write the results and evaluate nothing. Defaults
            to False.
        outfile_prefix (str, optional): Write ``<prefix>.panoptic.json`` and
            the PNGs in ``<prefix>.panoptic/``, in COCO's panoptic format; with
            several nodes on a disk that they share. Categories are those of
            ``ann_file``, else labels. Defaults to None.
        backend_args (dict, optional): Of mmengine's file backend. Defaults to
            None.
        collect_device (str): See mmengine's ``BaseMetric``. Defaults to
            'cpu'.
        prefix (str, optional): In place of ``coco_panoptic``. Defaults to
            None.

    Raises:
        ValueError: ``format_only`` is given without ``outfile_prefix``, or
            one of ``ann_file`` and ``seg_prefix`` without the other.
    """

    default_prefix = 'coco_panoptic'

    def __init__(
        self,
        ann_file: str | None = None,
        seg_prefix: str | None = None,
        classwise: bool = False,
        format_only: bool = False,
        outfile_prefix: str | None = None,
        backend_args: dict | None = None,
        collect_device: str = 'cpu',
        prefix: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        name = type(self).__name__
        if format_only and not outfile_prefix:
            raise ValueError(f'{name}: format_only needs an outfile_prefix.')
        if not format_only and (ann_file is None) is not (seg_prefix is None):
            raise ValueError(
                f'{name}: ann_file and seg_prefix go together, but got '
                f'ann_file={ann_file!r} and seg_prefix={seg_prefix!r}.'
            )
        self.seg_prefix = seg_prefix
        self.classwise = classwise
        self.format_only = format_only
        self.outfile_prefix = outfile_prefix
        self.backend_args = backend_args
        self._truth = self._categories = None
        if ann_file is not None:
            data = load(ann_file, backend_args=backend_args)
            self._categories = {c['name']: c['id'] for c in data['categories']}
            self._truth = {a['image_id']: a for a in data.get('annotations', ())}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Match the segments of some images, see mmengine's ``BaseMetric``.

        Args:
            data_batch (dict): Not used.
            data_samples (Sequence[dict]): With ``pred_panoptic_seg``, whose
                ``sem_seg``, (1, H, W), is label + instance ·
                ``INSTANCE_OFFSET``.

        Raises:
            MissingDataError: There is no truth for an image.
            AnnotationError: A category is no class of the data set.
        """
        classes = self.dataset_meta['classes']
        for sample in data_samples:
            predicted = sample['pred_panoptic_seg']
            ids, segments = split_prediction(
                predicted['sem_seg'][0].cpu().numpy(),
                len(classes),
                predicted.get('ignore_index'),
            )
            written = None
            if self.outfile_prefix:
                written = self._write(sample, ids, segments)
            stats = None
            if not self.format_only:
                truth = self._truth_of(sample)
                stats = match_segments(*truth, ids, segments, len(classes))
            self.results.append((stats, written))

    def _write(self, sample: dict, ids: np.ndarray, segments: list[Segment]) -> dict:
        """Write the PNG of an image; its entry in the JSON."""
        file_name = osp.splitext(osp.basename(sample['img_path']))[0] + '.png'
        path = osp.join(f'{self.outfile_prefix}.panoptic', file_name)
        mmcv.imwrite(ids_to_rgb(ids)[..., ::-1], path)
        return dict(
            image_id=sample['img_id'],
            file_name=file_name,
            segments_info=segments_info(ids, segments, self._category_of),
        )

    def _category_of(self, label: int) -> int:
        if self._categories is None:
            return label
        name = self.dataset_meta['classes'][label]
        if name not in self._categories:
            raise AnnotationError(
                f'{type(self).__name__}: ann_file has no category for {name!r}; '
                f'there are {some(list(self._categories))}.'
            )
        return self._categories[name]

    def _truth_of(self, sample: dict) -> tuple[np.ndarray, list[Segment]]:
        if self._truth is None:
            things = len(self.dataset_meta['thing_classes'])
            return panoptic_truth(sample, things, self.backend_args)
        path, segments = self._truth_in_file(sample)
        return _load_ids(path, self.backend_args), segments

    def _truth_in_file(self, sample: dict) -> tuple[str, list[Segment]]:
        entry = self._truth.get(sample['img_id'])
        if entry is None:
            raise MissingDataError(
                f'{type(self).__name__}: ann_file has no annotation of the image '
                f'{sample["img_id"]} ({sample["img_path"]}).'
            )
        classes = range(len(self.dataset_meta['classes']))
        labels = {self._category_of(label): label for label in classes}
        for info in entry['segments_info']:
            if info['category_id'] not in labels:
                raise AnnotationError(
                    f'{type(self).__name__}: segment {info["id"]} of the image '
                    f'{sample["img_id"]} has the category {info["category_id"]}, '
                    'which is no class of the data set.'
                )
        segments = [
            Segment(s['id'], labels[s['category_id']], bool(s.get('iscrowd')))
            for s in entry['segments_info']
        ]
        return join_path(self.seg_prefix, entry['file_name']), segments

    def compute_metrics(self, results: list) -> dict[str, float]:
        """Sum up and print the figures.

        Args:
            results (list): Of each image the counts and what was written.

        Returns:
            dict[str, float]: See the class; empty with ``format_only``.

        Raises:
            ValueError: No image was evaluated.
        """
        if not results:
            raise ValueError(f'{type(self).__name__}: no image was evaluated.')
        if self.outfile_prefix:
            path = f'{self.outfile_prefix}.panoptic.json'
            dump(dict(annotations=[written for _, written in results]), path)
            print_log(f'results are saved in {path}', 'current')
        if self.format_only:
            return {}
        quality = panoptic_quality(sum(stats for stats, _ in results))
        classes = self.dataset_meta['classes']
        things = len(self.dataset_meta['thing_classes'])
        rows = dict(All=quality, Things=quality[:things], Stuff=quality[things:])
        metrics, table = {}, [['', *_NAMES, 'classes']]
        for (group, part), suffix in zip(rows.items(), ('', '_th', '_st')):
            there = part[~np.isnan(part[:, 0])]
            means = there.mean(0) if len(there) else np.full(3, np.nan)
            table.append([group, *(f'{mean:.2f}' for mean in means), len(there)])
            metrics.update(zip((name + suffix for name in _NAMES), means.tolist()))
        for name, figures in zip(classes, quality):
            table.append([name, *(f'{figure:.2f}' for figure in figures), ''])
            if self.classwise:
                keys = (f'{figure}_{name}' for figure in _NAMES)
                metrics.update(zip(keys, figures.tolist()))
        print_log(
            f'Panoptic quality:\n{AsciiTable(table).table}',
            MMLogger.get_current_instance(),
        )
        return metrics
