# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Detectors that segment things and stuff."""

import copy

from mmdet.evaluation.functional import INSTANCE_OFFSET
from mmdet.models.detectors import PanopticFPN
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import PixelData
from torch import Tensor

from pvd_mm.instance import EncoderMaps, FeatureMaps, PVDMaskHead

from .semantic_head import PVDSemanticHead

_VOID = 255  # what mmdet's metrics and painters of labels leave out


@MODELS.register_module()
class MultiTaskPanopticFPN(PanopticFPN):
    """mmdet's ``PanopticFPN`` that trains with what annotations there are, and
    predicts all three: panoptic segments, objects and labels.

    Modules and checkpoints are mmdet's. Either task may be missing:

    - Without ``semantic_head``, or of data without ``gt_sem_seg``, the masks
      alone are trained; without ``rpn_head`` and ``roi_head``, or of data
      without ``gt_instances.bboxes``, the labels alone. Where data lacks what
      a head needs, that head gets no gradient: distributed training asks for
      ``find_unused_parameters=True`` then, or for a model without the head.
    - ``pred_instances`` come from the RoI head, ``pred_panoptic_seg`` from the
      fusion head and ``pred_sem_seg``, (1, H, W), which is 255 where nothing
      is told, from that; without a fusion head there are no panoptic segments,
      and things that the semantic head does not tell apart are 255.

    ``test_cfg.panoptic.score_thr`` is the least score of objects that are
    fused, so that ``test_cfg.rcnn.score_thr`` can be as low as mask AP asks
    for. It is 0 where it is not given.

    Args:
        *args: Those of mmdet's ``PanopticFPN``.
        **kwargs: Those of mmdet's ``PanopticFPN``.

    Raises:
        ValueError: If there is neither a semantic nor a RoI head, a RoI head
            without an RPN or the other way round; at a training step, if
            there are no annotations, or some images of a batch lack them.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        if self.with_rpn is not self.with_roi_head or not (
            self.with_roi_head or self.with_semantic_head
        ):
            raise ValueError(
                f'{type(self).__name__} needs a semantic_head, or an rpn_head and a '
                'roi_head, or all three'
            )
        if self.with_panoptic_fusion_head and not (
            self.with_roi_head and self.with_semantic_head
        ):
            raise ValueError(
                'panoptic_fusion_head joins what a roi_head and a semantic_head '
                'find; leave it out where one of them is'
            )

    def loss(
        self, batch_inputs: Tensor, batch_data_samples: list[DetDataSample]
    ) -> dict:
        """The losses of the heads whose annotations there are.

        Args:
            batch_inputs (Tensor): Images, (N, 3, H, W).
            batch_data_samples (list[DetDataSample]): With ``gt_instances``,
                ``gt_sem_seg`` or both.

        Returns:
            dict: Losses by name.

        Raises:
            ValueError: See the class.
        """
        has_masks = self.with_roi_head and _all_or_none(
            ['bboxes' in s.gt_instances for s in batch_data_samples],
            'gt_instances.bboxes',
        )
        has_labels = self.with_semantic_head and _all_or_none(
            ['gt_sem_seg' in s for s in batch_data_samples], 'gt_sem_seg'
        )
        if not has_masks and not has_labels:
            raise ValueError(
                'no head has annotations to train with: the data samples have '
                f'{sorted(batch_data_samples[0].keys())}'
            )
        x = self.extract_feat(batch_inputs)
        losses = {}
        if has_masks:
            losses.update(self._loss_of_masks(x, batch_data_samples))
        if has_labels:
            losses.update(self.semantic_head.loss(x, batch_data_samples))
        return losses

    def _loss_of_masks(
        self, x: tuple[Tensor, ...], samples: list[DetDataSample]
    ) -> dict:
        """Those of the RPN and the RoI head, as in mmdet's two-stage detectors."""
        objects = copy.deepcopy(samples)
        for sample in objects:
            sample.gt_instances.labels.zero_()
        losses, proposals = self.rpn_head.loss_and_predict(
            x,
            objects,
            proposal_cfg=self.train_cfg.get('rpn_proposal', self.test_cfg.rpn),
        )
        losses = {
            name if 'rpn' in name else f'rpn_{name}': loss
            for name, loss in losses.items()
        }
        losses.update(self.roi_head.loss(x, proposals, samples))
        return losses

    def predict(
        self,
        batch_inputs: Tensor,
        batch_data_samples: list[DetDataSample],
        rescale: bool = True,
    ) -> list[DetDataSample]:
        """Predict all that there are heads for.

        Args:
            batch_inputs (Tensor): Images, (N, 3, H, W).
            batch_data_samples (list[DetDataSample]): What is added to.
            rescale (bool): To the size of the originals. Defaults to True.

        Returns:
            list[DetDataSample]: With ``pred_instances``, ``pred_panoptic_seg`` and
            ``pred_sem_seg``, see the class.
        """
        metas = [sample.metainfo for sample in batch_data_samples]
        x = self.extract_feat(batch_inputs)
        objects = logits = None
        if self.with_roi_head:
            proposals = self.rpn_head.predict(x, batch_data_samples, rescale=False)
            objects = self.roi_head.predict(
                x, proposals, batch_data_samples, rescale=rescale
            )
            for sample, found in zip(batch_data_samples, objects):
                sample.pred_instances = found
        if self.with_semantic_head:
            head = self.semantic_head
            # all classes, where no fusion head joins things with objects
            tells_things = not (
                self.with_panoptic_fusion_head or getattr(head, 'merge_things', True)
            )
            predict = head.predict_all if tells_things else head.predict
            logits = predict(x, metas, rescale)
        if self.with_panoptic_fusion_head:
            least = self.test_cfg.panoptic.get('score_thr', 0.0)
            kept = [found[found.scores >= least] for found in objects]
            fused = self.panoptic_fusion_head.predict(kept, logits)
            self.add_pred_to_datasample(batch_data_samples, fused)
            labels = [each.sem_seg % INSTANCE_OFFSET for each in fused]
        elif logits is not None:
            first = 0 if tells_things else head.num_things_classes
            labels = [each.argmax(0, keepdim=True) + first for each in logits]
        else:
            return batch_data_samples
        classes = self.semantic_head.num_things_classes
        classes += self.semantic_head.num_stuff_classes
        for sample, each in zip(batch_data_samples, labels):
            told = each.masked_fill(each >= classes, _VOID)
            sample.pred_sem_seg = PixelData(sem_seg=told)
        return batch_data_samples


def _all_or_none(there: list[bool], name: str) -> bool:
    if len(set(there)) > 1:
        raise ValueError(
            f'{sum(there)} of {len(there)} images of a batch have {name}; a batch must '
            'be of one kind of annotation'
        )
    return there[0]


@MODELS.register_module()
class PVDPanopticFPN(EncoderMaps, MultiTaskPanopticFPN):
    """Both tasks from one set of votes (the outlook of section 5).

    Votes are relations between pixels: they belong to the image and not to the
    task. They are regressed once per image, on the backbone's maps;
    :class:`.PVDSemanticHead` decodes the labels of the whole image by them, and
    :class:`pvd_mm.instance.PVDMaskHead` crops them per RoI. Each head has its own
    fusion, since C_obj differs.

    The modules that regress the votes are those of the decoder with more maps, of
    the mask head if both have as many; the other decoder has none. So each
    parameter is once in a checkpoint, and one of :class:`pvd_mm.instance.PVDMaskRCNN`
    brings them along.

    Args:
        *args: Those of mmdet's ``PanopticFPN``.
        shared_votes (bool): Whether both heads decode by one set of votes; else
            each regresses its own, as the control. With one head alone it means
            nothing. Defaults to True.
        **kwargs: Those of mmdet's ``PanopticFPN``.

    Raises:
        TypeError: If the heads are not PVD's.
        ValueError: If votes cannot be shared: the decoders differ in what they
            regress, or the mask head regresses votes inside the RoI. See also
            :class:`.MultiTaskPanopticFPN`.
    """

    def __init__(self, *args, shared_votes: bool = True, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.shared_votes = shared_votes
        self._check_heads()
        if self.shared_votes and self.with_semantic_head and self.with_roi_head:
            own, *others = self._decoders()
            for other in others:
                other.use_votes_of(own)

    def _check_heads(self) -> None:
        if self.with_semantic_head and not isinstance(
            self.semantic_head, PVDSemanticHead
        ):
            raise TypeError(
                'the semantic_head of a PVDPanopticFPN must be a PVDSemanticHead, but '
                f'is a {type(self.semantic_head).__name__}'
            )
        if not self.with_roi_head:
            return
        if not isinstance(getattr(self.roi_head, 'mask_head', None), PVDMaskHead):
            raise TypeError(
                'the roi_head of a PVDPanopticFPN must be a PVDRoIHead with a '
                'PVDMaskHead'
            )
        inside = self.roi_head.with_shared_head
        votes_from = self.roi_head.mask_head.votes_from
        if self.shared_votes and (inside or votes_from != 'image'):
            given = 'a shared_head' if inside else f'votes_from={votes_from!r}'
            raise ValueError(
                'shared_votes=True needs masks that are decoded by votes of the image: '
                f"votes_from='image' and no shared_head, but got {given}"
            )

    def _decoders(self) -> list:
        """The decoders of the heads, first the one that regresses shared votes."""
        decoders = []
        if self.with_roi_head:
            decoders.append(self.roi_head.mask_head.decoder)
        if self.with_semantic_head:
            decoders.append(self.semantic_head.decoder)
        return sorted(decoders, key=lambda decoder: -len(decoder.in_channels))

    def extract_feat(self, batch_inputs: Tensor) -> FeatureMaps:
        """Images (N, 3, H, W) to maps, and to the votes that the heads share."""
        x = super().extract_feat(batch_inputs)
        decoders = self._decoders()
        if not self.shared_votes or len(decoders) < 2:
            return x
        own = decoders[0]
        return FeatureMaps(x, x.encoder, own.votes(x.encoder[-len(own.in_channels) :]))
