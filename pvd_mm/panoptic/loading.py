# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Loading the PNGs of COCO's panoptic format."""

import mmcv
import numpy as np
from mmdet.datasets.transforms import LoadAnnotations, LoadPanopticAnnotations
from mmdet.registry import TRANSFORMS
from mmdet.structures.mask import BitmapMasks
from mmengine.fileio import get

from pvd_mm.utils.errors import AnnotationError, some

from .segments import VOID, rgb_to_ids

_IGNORED = 255


@TRANSFORMS.register_module()
class LoadCheckedPanopticAnnotations(LoadPanopticAnnotations):
    """mmdet's ``LoadPanopticAnnotations`` that compares the PNG with the list of its
    segments, and needs no ``panopticapi``, which no registry has.

    It loads the same: ``gt_bboxes``, ``gt_bboxes_labels`` and ``gt_masks`` of the
    things that are no crowds, and ``gt_seg_map``, (H, W) uint8, things with labels
    from 0 on, stuff behind them, 255 for void. Only masks or only labels are loaded
    with ``with_seg=False``, or with ``with_bbox``, ``with_label`` and ``with_mask``
    False.

    Args:
        with_bbox (bool): Load boxes. Defaults to True.
        with_label (bool): Load their labels. Defaults to True.
        with_mask (bool): Load masks. Defaults to True.
        with_seg (bool): Load the label map. Defaults to True.
        box_type (str): Of the boxes. Defaults to 'hbox'.
        imdecode_backend (str): That decodes the PNG. Defaults to 'cv2'.
        backend_args (dict, optional): Of mmengine's file backend. Defaults to None.

    Raises:
        AnnotationError: When an image is loaded: the PNG is of another size, or one of
            the two has a segment that the other lacks.
    """

    def __init__(
        self,
        with_bbox: bool = True,
        with_label: bool = True,
        with_mask: bool = True,
        with_seg: bool = True,
        box_type: str = 'hbox',
        imdecode_backend: str = 'cv2',
        backend_args: dict | None = None,
    ) -> None:
        # its parent's, for its own asks for the package
        LoadAnnotations.__init__(
            self,
            with_bbox=with_bbox,
            with_label=with_label,
            with_mask=with_mask,
            with_seg=with_seg,
            with_keypoints=False,
            box_type=box_type,
            imdecode_backend=imdecode_backend,
            backend_args=backend_args,
        )

    def _load_masks_and_semantic_segs(self, results: dict) -> None:
        """Add ``gt_masks`` and ``gt_seg_map`` to ``results``."""
        path = results.get('seg_map_path')
        if path is None:  # a list of test images
            return
        pixels = mmcv.imfrombytes(
            get(path, backend_args=self.backend_args),
            flag='color',
            channel_order='rgb',
            backend=self.imdecode_backend,
        )
        if pixels is None:
            raise AnnotationError(f'{path} is no image.')
        ids, segments = rgb_to_ids(pixels), results['segments_info']
        size = results['height'], results['width']
        if ids.shape != size:
            raise AnnotationError(
                f'{path} is {ids.shape} (height, width), but its image is {size}.'
            )
        values, places = np.unique(ids, return_inverse=True)
        places = places.reshape(ids.shape)
        there = {int(value): place for place, value in enumerate(values)}
        listed = {segment['id'] for segment in segments}
        for name, absent in (
            ('ids that the list of segments lacks', set(there) - listed - {VOID}),
            ('not the ids of the listed segments', listed - set(there)),
        ):
            if absent:
                raise AnnotationError(
                    f'{path}, of the image {results["img_path"]}, has {name}: '
                    f'{some(sorted(absent))}.'
                )
        if self.with_mask:
            masks = [
                (places == there[segment['id']]).astype(np.uint8)
                for segment in segments
                if segment['is_thing']
            ]
            results['gt_masks'] = BitmapMasks(masks, *size)
        if self.with_seg:
            labels = np.full(len(values), _IGNORED, np.uint8)
            for segment in segments:
                labels[there[segment['id']]] = segment['category']
            results['gt_seg_map'] = labels[places]
