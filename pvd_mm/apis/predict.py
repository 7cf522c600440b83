# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Predict images with a trained model: label maps, instances or panoptic segments,
and overlays."""

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from pvd_mm.utils.errors import UserError, some
from pvd_mm.utils.files import check_out_dir, make_folder, write_text

from .images import UnreadableImage, find_images, read_image, result_names
from .inferencers import load_inferencer


def predict(
    config: str,
    checkpoint: str,
    images: Sequence[str],
    out_dir: str,
    force: bool = False,
    device: str | None = None,
    scale: float | None = None,
    slide: tuple[Sequence[int], Sequence[int]] | None = None,
    score_thr: float = 0.3,
    opacity: float = 0.5,
    progress: Callable[[Iterable], Iterable] = iter,
) -> dict:
    """Predict images with a segmentor or a detector.

    What is written into ``out_dir``, NAME being the path of an image below
    the folder that all images are in:

    =================== ====================================================
    overlays/NAME.jpg   the image with its prediction painted on it
    labels/NAME.png     segmentors: (H, W) uint8, the class of every pixel
    labels.json         segmentors: ``classes``, ``palette`` and ``images``
                        (``file_name``, ``labels``, ``overlay``)
    instances.json      detectors: COCO's format with ``score``; bounding
                        boxes are (x, y, width, height), masks compressed
                        run lengths. ``category_id`` is the class's number
                        counted from 1, ``categories`` has the names
    panoptic/NAME.png   panoptic models, in place of it: the segments' ids as
                        COCO has them, R + 256·G + 256²·B, 0 for void
    panoptic.json       panoptic models: their ``segments_info`` in COCO's
                        panoptic format, categories as above
    =================== ====================================================

    Args:
        config (str): Path of a config, or the name of a shipped one.
        checkpoint (str): Its checkpoint.
        images (Sequence[str]): Files, folders and patterns, see
            :func:`pvd_mm.apis.images.find_images`.
        out_dir (str): The folder of the results.
        force (bool): Whether results in ``out_dir`` may be replaced. What is
            there besides them stays. Defaults to False.
        device, scale, slide: See
            :func:`pvd_mm.apis.inferencers.load_inferencer`.
        score_thr (float): Detectors: the lowest score that is painted; the
            file has all detections. Defaults to 0.3.
        opacity (float): Segmentors: that of the painted classes, from 0 to 1.
            Defaults to 0.5.
        progress (Callable): Wraps the list of images, e.g.
            ``mmengine.track_iter_progress``. Defaults to none.

    Returns:
        dict: ``done`` (list of images), ``unreadable`` (image to what is
        wrong with it) and ``results`` (path of the JSON file).

    Raises:
        UserError: There are no images, ``out_dir`` holds something, a result
            would replace an image, or what
            :func:`~pvd_mm.apis.inferencers.load_inferencer` raises.
    """
    for name, value in (('score_thr', score_thr), ('opacity', opacity)):
        if not 0 <= value <= 1:
            raise UserError(f'{name} is {value}; expected a number from 0 to 1.')
    out = check_out_dir(out_dir, force)
    paths = find_images(images, without=out_dir)
    names = result_names(paths)
    _spare_images(out, paths, names)
    inferencer = load_inferencer(config, checkpoint, device, scale, slide)
    writer = _writer_of(inferencer)(inferencer, out, score_thr, opacity)
    done, unreadable = [], {}
    try:
        for path, name in progress(list(zip(paths, names))):
            try:
                image = read_image(path)
            except UnreadableImage as error:
                unreadable[str(path)] = str(error)
                continue
            writer.write(path, name, image, inferencer.predict(str(path)))
            done.append(str(path))
    finally:  # an interruption must not lose hours of detections
        results = writer.finish()
    return dict(done=done, unreadable=unreadable, results=str(results))


def _spare_images(out: Path, paths: Sequence[Path], names: Sequence[Path]) -> None:
    results = {
        out / folder / f'{name}{suffix}'
        for name in names
        for folder, suffix in (
            ('overlays', '.jpg'),
            ('labels', '.png'),
            ('panoptic', '.png'),
        )
    }
    replaced = [str(path) for path in paths if path in results]
    if replaced:
        raise UserError(
            f'results in {out} would replace the images {some(replaced)}; choose '
            'another output folder.'
        )


class _Writer:
    """Writes the overlays, and collects what goes into the JSON file."""

    json_name: str

    def __init__(self, inferencer, out: Path, score_thr: float, opacity: float):
        self.out = out
        self.model = inferencer.model
        self.meta = inferencer.model.dataset_meta
        self.visualizer = inferencer.visualizer
        self.options = self.painting(score_thr, opacity)
        self.content = self.start()

    def painting(self, score_thr: float, opacity: float) -> dict:
        """Options of the visualizer's ``add_datasample``."""
        raise NotImplementedError

    def start(self) -> dict:
        """The JSON file before the first image."""
        raise NotImplementedError

    def add(self, path: Path, name: Path, sample) -> None:
        """Write or note the prediction of an image."""
        raise NotImplementedError

    def write(self, path: Path, name: Path, image: np.ndarray, sample) -> None:
        """Write all of an image; ``image`` is (H, W, 3), RGB."""
        self.add(path, name, sample)
        self.visualizer.add_datasample(
            'prediction',
            image,
            sample,
            draw_gt=False,
            out_file=str(self.out / 'overlays' / f'{name}.jpg'),
            **self.options,
        )

    def finish(self) -> Path:
        """Write the JSON file, whole or not at all."""
        path = self.out / self.json_name
        write_text(path, json.dumps(self.content))
        return path


class _LabelWriter(_Writer):
    json_name = 'labels.json'

    def painting(self, score_thr: float, opacity: float) -> dict:
        self.visualizer.alpha = opacity
        return dict(with_labels=False)

    def start(self) -> dict:
        if len(self.meta['classes']) > 256:
            raise UserError(
                f'the model has {len(self.meta["classes"])} classes; a label map '
                'of uint8 holds at most 256.'
            )
        return dict(self.meta, images=[])

    def labels_of(self, sample) -> Tensor:
        """The predicted labels, (1, H, W)."""
        return sample.pred_sem_seg.data

    def add(self, path: Path, name: Path, sample) -> None:
        labels = self.labels_of(sample)[0].cpu().numpy().astype(np.uint8)
        file = self.out / 'labels' / f'{name}.png'
        make_folder(file.parent)
        Image.fromarray(labels).save(file)
        self.content['images'].append(
            dict(
                file_name=str(path),
                labels=f'labels/{name}.png',
                overlay=f'overlays/{name}.jpg',
            )
        )


class _PanopticLabelWriter(_LabelWriter):
    """Of a panoptic model of labels alone; 255 is what it does not tell apart."""

    def painting(self, score_thr: float, opacity: float) -> dict:
        self.visualizer.alpha = opacity
        return {}

    def labels_of(self, sample) -> Tensor:
        return sample.pred_sem_seg.sem_seg


class _InstanceWriter(_Writer):
    json_name = 'instances.json'

    def painting(self, score_thr: float, opacity: float) -> dict:
        return dict(pred_score_thr=score_thr)

    def start(self) -> dict:
        categories = [
            dict(id=i, name=name) for i, name in enumerate(self.meta['classes'], 1)
        ]
        return dict(images=[], annotations=[], categories=categories)

    def add(self, path: Path, name: Path, sample) -> None:
        from mmdet.structures.mask import encode_mask_results
        from pycocotools.mask import area

        height, width = sample.ori_shape[:2]
        image_id = len(self.content['images']) + 1
        self.content['images'].append(
            dict(id=image_id, file_name=str(path), height=height, width=width)
        )
        pred = sample.pred_instances.cpu().numpy()
        masks = encode_mask_results(pred.masks) if 'masks' in pred else []
        annotations = self.content['annotations']
        for i, (box, label, score) in enumerate(
            zip(pred.bboxes.tolist(), pred.labels.tolist(), pred.scores.tolist())
        ):
            left, top, right, bottom = box
            annotation = dict(
                id=len(annotations) + 1,
                image_id=image_id,
                category_id=label + 1,
                bbox=[round(v, 2) for v in (left, top, right - left, bottom - top)],
                area=round((right - left) * (bottom - top), 2),
                iscrowd=0,
                score=round(score, 5),
            )
            if masks:
                rle = masks[i]
                annotation['area'] = int(area(rle))
                annotation['segmentation'] = dict(rle, counts=rle['counts'].decode())
            annotations.append(annotation)


class _PanopticWriter(_Writer):
    json_name = 'panoptic.json'

    def painting(self, score_thr: float, opacity: float) -> dict:
        self.visualizer.alpha = opacity
        return {}

    def start(self) -> dict:
        things = self.model.panoptic_fusion_head.num_things_classes
        categories = [
            dict(id=i, name=name, isthing=int(i <= things))
            for i, name in enumerate(self.meta['classes'], 1)
        ]
        return dict(images=[], annotations=[], categories=categories)

    def write(self, path: Path, name: Path, image: np.ndarray, sample) -> None:
        self.add(path, name, sample)
        # the segments alone; mmdet's visualizer fails where there are none
        shown = type(sample)(metainfo=sample.metainfo)
        if self.content['annotations'][-1]['segments_info']:
            shown.pred_panoptic_seg = sample.pred_panoptic_seg
        self.visualizer.add_datasample(
            'prediction',
            image,
            shown,
            draw_gt=False,
            out_file=str(self.out / 'overlays' / f'{name}.jpg'),
        )

    def add(self, path: Path, name: Path, sample) -> None:
        from pvd_mm.panoptic.segments import (
            ids_to_rgb,
            segments_info,
            split_prediction,
        )

        predicted = sample.pred_panoptic_seg
        ids, segments = split_prediction(
            predicted.sem_seg[0].cpu().numpy(),
            len(self.meta['classes']),
            predicted.get('ignore_index'),
        )
        image_id = len(self.content['images']) + 1
        file = self.out / 'panoptic' / f'{name}.png'
        make_folder(file.parent)
        Image.fromarray(ids_to_rgb(ids)).save(file)
        height, width = ids.shape
        self.content['images'].append(
            dict(id=image_id, file_name=str(path), height=height, width=width)
        )
        self.content['annotations'].append(
            dict(
                image_id=image_id,
                file_name=f'{name}.png',
                segments_info=segments_info(ids, segments, lambda label: label + 1),
            )
        )


def _writer_of(inferencer) -> type[_Writer]:
    """The writer for what the model predicts."""
    if inferencer.scope == 'mmseg':
        return _LabelWriter
    if hasattr(inferencer.model, 'panoptic_fusion_head'):
        return _PanopticWriter
    if hasattr(inferencer.model, 'roi_head') or not getattr(
        inferencer.model, 'with_semantic_head', False
    ):
        return _InstanceWriter
    return _PanopticLabelWriter
