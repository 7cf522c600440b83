# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The RoI head for mmdet."""

from typing import NamedTuple

import torch
from mmdet.models.roi_heads import StandardRoIHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.models.utils import empty_instances
from mmdet.registry import MODELS
from mmdet.structures.bbox import bbox2roi
from mmdet.utils import InstanceList
from torch import Tensor

from pvd_mm.decoder.config import given_arguments
from pvd_mm.ops.checks import check_choice, check_integer
from pvd_mm.ops.standard_operators import are_wanted

from .class_activation import check_box_head, class_activation
from .detectors import NEEDS_ENCODER_MAPS, FeatureMaps
from .mask_head import ImageFeatures, PVDMaskHead, square_side

START_LEVELS = ('source', 'size')


class RoIFeatures(NamedTuple):
    """What was extracted for R RoIs, and what the shared head (res5 of a C4
    detector) made of it; without a shared head the same twice."""

    pooled: Tensor
    top: Tensor

    def of(self, which: Tensor | slice) -> 'RoIFeatures':
        """Those of some RoIs."""
        return RoIFeatures(self.pooled[which], self.top[which])


@MODELS.register_module()
class PVDRoIHead(StandardRoIHead):
    """mmdet's ``StandardRoIHead`` with a mask branch that decodes by votes.

    The primary mask of a RoI is the box head's classifier applied to every
    pixel of the RoI's features, see
    :func:`pvd_mm.instance.class_activation`; with ``feature_channels`` of the
    mask head an embedding of these features stands in its place. It
    starts at the level of the RoI: inside the RoI where a shared head makes
    the top map (C4), else at the level that the RoI extractor assigned (FPN).
    :class:`PVDMaskHead` decodes it from there down.

    The detector must hand out the backbone's maps, as
    :class:`pvd_mm.instance.PVDMaskRCNN` does.

    Args:
        train_classifier (bool): Whether the gradient of the mask losses
            reaches the classifier. Defaults to True.
        start_level (str): Where a RoI starts on the backbone's maps.
            'source': at the level of the map that its features are of, as
            in the paper; with an extractor that adds up those of all levels
            (``GenericRoIExtractor``), at the one of them that 'size' takes.
            'size': at the level whose pixels are nearest in
            size to the cells of its grid, among those from which
            ``mask_size`` is reached, so that votes are used at the spacing
            at which they were regressed (see :class:`PVDMaskHead`); a RoI of
            112 pixels starts at stride 16 and not 8. A C4 detector needs
            maps finer than C2 for it, for its RoIs are at 14×14 where they
            start. Defaults to 'source'.
        chunk_size (int): How many RoIs are decoded at a time outside of
            training, so that memory does not grow with their number.
            Defaults to 64.
        **kwargs: Arguments of ``StandardRoIHead``.

    Raises:
        TypeError: If the heads are of a kind that does not work together.
        ValueError: If their numbers of classes, their strides or the sides of
            their features differ, or ``start_level='size'`` has no levels to
            choose from.
    """

    def __init__(
        self,
        *args,
        train_classifier: bool = True,
        start_level: str = 'source',
        chunk_size: int = 64,
        **kwargs,
    ) -> None:
        given = given_arguments(super().__init__, args, kwargs)
        if given.get('mask_head') and not given.get('bbox_head'):
            raise TypeError(
                'PVDRoIHead needs a bbox_head: its classifier makes the primary mask'
            )
        super().__init__(*args, **kwargs)
        check_choice('start_level', start_level, START_LEVELS)
        check_integer('chunk_size', chunk_size, 1)
        self.train_classifier = train_classifier
        self.start_level = start_level
        self.chunk_size = chunk_size
        if not self.with_mask:
            return
        if not isinstance(self.mask_head, PVDMaskHead):
            raise TypeError(
                'the mask_head of a PVDRoIHead must be a '
                f'PVDMaskHead, but is a '
                f'{type(self.mask_head).__name__}'
            )
        given = self.mask_head.feature_channels
        own = getattr(self.bbox_head, 'in_channels', given)
        if given is None:
            check_box_head(self.bbox_head)
        elif given != own:
            raise ValueError(
                f'feature_channels={given} of the mask head must be those of the '
                f"RoI's features that the bbox_head is given, in_channels={own}"
            )
        if self.mask_head.num_classes != self.bbox_head.num_classes:
            raise ValueError(
                'bbox_head and mask_head must have the same num_classes, but '
                f'got {self.bbox_head.num_classes} and '
                f'{self.mask_head.num_classes}'
            )
        self._check_extractor()
        self._starts = self._start_levels()
        unused = self.mask_head.finest_level(self._starts, self.with_shared_head)
        if unused:
            raise ValueError(
                f'mask_size={self.mask_head.mask_size} is reached before the '
                f"mask head's first {unused} maps: leave them out of its "
                'in_channels (and decoder.strides), and set finest_stride='
                f'{self.mask_head.map_strides[unused]}'
            )

    @property
    def needs_encoder_maps(self) -> bool:
        """Whether the detector must hand out the backbone's maps."""
        return self.with_mask

    def _check_extractor(self) -> None:
        """Does it make features of the side that decoding starts with?"""
        side = self.mask_head.entry(self.with_shared_head)[1]
        for layer in getattr(self.mask_roi_extractor, 'roi_layers', ()):
            given = square_side('output_size of mask_roi_extractor', layer.output_size)
            if given != side:
                after = ' after the shared head' if self.with_shared_head else ''
                raise ValueError(
                    f'roi_feat_size={self.mask_head.roi_feat_size[0]} of the mask '
                    f'head{after} asks for a mask_roi_extractor with '
                    f'output_size={side}, but it has {given}'
                )

    def _start_levels(self) -> list[int]:
        """The levels that RoIs may start at; from 'source' one for each
        level of the extractor."""
        head, strides = self.mask_head, self.mask_roi_extractor.featmap_strides
        if self.with_shared_head and list(strides) != head.map_strides[-2:-1]:
            raise ValueError(
                'a shared head makes the top map inside the RoI, so the RoI '
                'extractor must work on the last but one map of the mask '
                f'head, featmap_strides={head.map_strides[-2:-1]}, but has '
                f'{list(strides)}'
            )
        if self.start_level == 'size':
            levels = head.start_levels(self.with_shared_head)
            if len(levels) < 2:
                raise ValueError(
                    "start_level='size' needs several levels from which "
                    f'mask_size={head.mask_size} is reached, but the maps of '
                    f'the strides {head.map_strides} have '
                    f'{len(levels)}: give the mask head finer maps '
                    '(in_channels, decoder.strides and finest_stride)'
                )
            return levels
        if self.with_shared_head:
            return [head.top - 1]
        return [head.level_of(stride) for stride in strides]

    def _starts_of(self, rois: Tensor, half: bool) -> int | Tensor:
        """The level that each RoI starts at, or that all start at."""
        head, inside = self.mask_head, self.with_shared_head
        if self._starts == [head.entry(inside)[0]]:
            return self._starts[0]
        if self.start_level == 'size':
            return head.levels_of_size(rois, self._starts, inside)
        # features of all levels have none of their own
        if not hasattr(self.mask_roi_extractor, 'map_roi_levels'):
            return head.levels_of_size(rois, self._starts, inside)
        # as the extractor does, which rounds RoIs where its maps are half
        levels = self.mask_roi_extractor.map_roi_levels(
            rois.half() if half else rois, len(self._starts)
        )
        return levels.new_tensor(self._starts)[levels]

    def _bbox_forward(self, x: FeatureMaps, rois: Tensor) -> dict:
        """As in ``StandardRoIHead``, but ``bbox_feats`` are
        :class:`RoIFeatures`."""
        features = self._extract(self.bbox_roi_extractor, x, rois)
        cls_score, bbox_pred = self.bbox_head(features.top)
        return dict(cls_score=cls_score, bbox_pred=bbox_pred, bbox_feats=features)

    def _extract(self, extractor, x: FeatureMaps, rois: Tensor) -> RoIFeatures:
        pooled = extractor(x[: extractor.num_inputs], rois)
        top = self.shared_head(pooled) if self.with_shared_head else pooled
        return RoIFeatures(pooled, top)

    def _mask_forward(
        self,
        x: FeatureMaps,
        rois: Tensor,
        labels: Tensor | None = None,
        features: RoIFeatures | None = None,
    ) -> dict:
        """Decode the masks of RoIs.

        Args:
            x (FeatureMaps): The maps, with those of the backbone.
            rois (Tensor): (R, 5).
            labels (Tensor, optional): Their classes, (R,). Defaults to None:
                those that the box head finds.
            features (RoIFeatures, optional): Their features. Defaults to
                None: they are extracted.

        Returns:
            dict: ``mask_preds``, the finest masks that
            :meth:`PVDMaskHead.forward` returns, and ``all_preds``, those of
            all sides.

        Raises:
            TypeError: If the detector does not hand out the backbone's maps.
        """
        if not isinstance(x, FeatureMaps):
            raise TypeError(NEEDS_ENCODER_MAPS)
        images = self.mask_head.image_features(
            x.encoder, self.with_shared_head, x.votes
        )

        def decode(which: slice) -> list[Tensor]:
            """Masks of some RoIs, of all sides."""
            return self._decode(
                x,
                images,
                rois[which],
                None if labels is None else labels[which],
                None if features is None else features.of(which),
            )

        size = self.chunk_size
        # a traced or exported graph has the same passes for any number of RoIs
        recorded = torch.jit.is_tracing() or are_wanted()
        if self.training or recorded or len(rois) <= size:
            masks = decode(slice(None))
        else:
            size = -(-len(rois) // -(-len(rois) // size))  # all about as large
            chunks = [slice(i, i + size) for i in range(0, len(rois), size)]
            masks = [torch.cat(side) for side in zip(*map(decode, chunks))]
        return dict(mask_preds=masks[0], all_preds=masks)

    def _decode(
        self,
        x: FeatureMaps,
        images: ImageFeatures,
        rois: Tensor,
        labels: Tensor | None,
        features: RoIFeatures | None,
    ) -> list[Tensor]:
        """What :meth:`_mask_forward` does for each RoI."""
        head = self.mask_head
        if features is None:
            features = self._extract(self.mask_roi_extractor, x, rois)
        if head.mask_of_label and labels is None:
            scores, _ = self.bbox_head(features.top)
            labels = scores[:, : self.bbox_head.num_classes].argmax(1)
        primary = features.top
        if head.feature_channels is None:
            primary = class_activation(
                self.bbox_head,
                features.top,
                labels if head.class_agnostic else None,
                self.train_classifier,
            )
        return head(
            primary,
            rois,
            self._starts_of(rois, half=x[0].dtype == torch.half),
            images,
            features if self.with_shared_head else None,
            labels,
        )

    def bbox_loss(self, x: FeatureMaps, sampling_results: list[SamplingResult]) -> dict:
        """As in ``StandardRoIHead``. A batch without any RoI has no ``loss_cls``
        there; here it is zero, so that every parameter has a gradient: a process
        without one would keep the others waiting."""
        results = super().bbox_loss(x, sampling_results)
        if not len(results['cls_score']):
            results['loss_bbox']['loss_cls'] = results['cls_score'].sum()
        return results

    def mask_loss(
        self,
        x: FeatureMaps,
        sampling_results: list[SamplingResult],
        bbox_feats: RoIFeatures,
        batch_gt_instances: InstanceList,
    ) -> dict:
        """The mask losses of the positive RoIs, as in
        ``StandardRoIHead``."""
        rois = bbox2roi([res.pos_priors for res in sampling_results])
        labels = torch.cat([res.pos_gt_labels for res in sampling_results])
        features = None
        if self.share_roi_extractor:
            positive = torch.cat(
                [
                    torch.cat(
                        [
                            torch.ones(len(res.pos_priors), dtype=torch.bool),
                            torch.zeros(len(res.neg_priors), dtype=torch.bool),
                        ]
                    )
                    for res in sampling_results
                ]
            )
            features = bbox_feats.of(positive.to(rois.device))
        results = self._mask_forward(x, rois, labels, features)
        losses = self.mask_head.loss_and_target(
            mask_preds=results['all_preds'],
            sampling_results=sampling_results,
            batch_gt_instances=batch_gt_instances,
            rcnn_train_cfg=self.train_cfg,
        )
        results.update(loss_mask=losses['loss_mask'])
        return results

    def predict_mask(
        self,
        x: FeatureMaps,
        batch_img_metas: list[dict],
        results_list: InstanceList,
        rescale: bool = False,
    ) -> InstanceList:
        """Add masks to detected boxes, as in ``StandardRoIHead``."""
        rois = bbox2roi([res.bboxes for res in results_list])
        if len(rois) == 0:
            return empty_instances(
                batch_img_metas,
                rois.device,
                task_type='mask',
                instance_results=results_list,
                mask_thr_binary=self.test_cfg.mask_thr_binary,
            )
        labels = torch.cat([res.labels for res in results_list])
        masks = self._mask_forward(x, rois, labels)['mask_preds']
        return self.mask_head.predict_by_feat(
            mask_preds=masks.split([len(res) for res in results_list]),
            results_list=results_list,
            batch_img_metas=batch_img_metas,
            rcnn_test_cfg=self.test_cfg,
            rescale=rescale,
        )
