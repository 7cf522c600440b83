# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What is measured of a two-stage detector of mmdet.

What a detector finds depends on its weights, and what it costs on what it
finds. So that random weights do, and all models do the same work, every
stage runs, but the next one gets boxes that were drawn beforehand.
"""

import copy
import math
from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from pvd_mm.apis.complexity import run_mask_branch
from pvd_mm.utils.errors import UserError

from .base import ModelBenchmark


class DetectorBenchmark(ModelBenchmark):
    """A Mask R-CNN, or a panoptic model of it and a semantic head, or of one of them:
    images with objects, proposals and RoIs.

    Args:
        *args: Those of :class:`.ModelBenchmark`.
        rois (int): RoIs of the mask branch. Defaults to 100, the most that
            COCO's detectors find in an image.
        objects (int): Annotated objects of an image. Defaults to 8, about
            COCO's mean.
    """

    kinds = ('mask', 'forward', 'train')

    def __init__(self, *args, rois: int = 100, objects: int = 8) -> None:
        super().__init__(*args)
        self.rois = rois
        self.objects = objects

    @staticmethod
    def default_size(cfg: Config) -> tuple[int, int]:
        """What mmdet resizes COCO's images to, at most."""
        return (800, 1333)

    @property
    def has_masks(self) -> bool:
        """Whether there is a two-stage detector with masks."""
        return getattr(getattr(self.model, 'roi_head', None), 'with_mask', False)

    @property
    def has_labels(self) -> bool:
        """Whether there is a semantic head."""
        return getattr(self.model, 'with_semantic_head', False)

    def load_data(self) -> None:
        """Images, annotations, boxes, and the maps of the first image.

        Raises:
            UserError: If the model has not what is measured.
        """
        if not self.has_masks and ('mask' in self.kinds or not self.has_labels):
            raise UserError(
                f'{self.name} has no mask branch: '
                + (
                    'measure with --only forward train'
                    if self.has_labels
                    else 'two-stage detectors with masks are measured, and panoptic '
                    'models'
                )
            )
        # not torch's generator: what it gives depends on the model before
        random = torch.Generator().manual_seed(0)
        classes = self.model.roi_head.bbox_head.num_classes if self.has_masks else 1
        shape = (self.channels, *self.size)
        images, samples, self.train_proposals = [], [], []
        for _ in range(self.batch_size):
            images.append(
                torch.randint(0, 256, shape, generator=random, dtype=torch.uint8)
            )
            boxes = random_boxes(self.objects, self.size, random)
            samples.append(
                self._sample(
                    boxes, torch.randint(0, classes, (self.objects,), generator=random)
                )
            )
            if not self.has_masks:
                continue
            count = self.model.train_cfg.rpn_proposal.max_per_img
            near = around(boxes, count // 2, self.size, random)
            far = random_boxes(count - count // 2, self.size, random)
            self.train_proposals.append(self._boxes(torch.cat([near, far])))
        data = self.model.data_preprocessor(
            dict(inputs=images, data_samples=samples), True
        )
        self.images, self.samples = data['inputs'], data['data_samples']
        self.metas = [self.samples[0].metainfo]
        if not self.has_masks:
            return
        proposals = self.model.test_cfg.rpn.max_per_img
        self.proposals = self._boxes(random_boxes(proposals, self.size, random))
        self.detections = self._boxes(random_boxes(self.rois, self.size, random))
        self.detections.labels = torch.randint(
            0, classes, (self.rois,), generator=random
        ).to(self.device)
        self.model.eval()
        with torch.no_grad():
            self.maps = self.model.extract_feat(self.images[:1])

    def _sample(self, boxes: Tensor, labels: Tensor) -> DetDataSample:
        height, width = self.size
        y, x = np.ogrid[:height, :width]
        masks = []
        for x1, y1, x2, y2 in boxes.tolist():  # an ellipse in the box
            masks.append(
                ((x - (x1 + x2) / 2) * 2 / (x2 - x1)) ** 2
                + ((y - (y1 + y2) / 2) * 2 / (y2 - y1)) ** 2
                <= 1
            )
        truth = InstanceData(
            bboxes=boxes,
            labels=labels,
            masks=BitmapMasks(np.array(masks, np.uint8), height, width),
        )
        # what a semantic head is trained with; others do not look at it
        truth_map = torch.zeros(1, height, width, dtype=torch.uint8)
        return DetDataSample(
            gt_instances=truth,
            gt_sem_seg=PixelData(sem_seg=truth_map),
            metainfo=dict(
                img_shape=self.size, ori_shape=self.size, scale_factor=(1.0, 1.0)
            ),
        )

    def _boxes(self, boxes: Tensor) -> InstanceData:
        boxes = boxes.to(self.device)
        return InstanceData(bboxes=boxes, scores=boxes.new_ones(len(boxes)))

    def title(self) -> str:
        """What the measured passes hold."""
        if not self.has_masks:
            return (
                f'{self.size[0]}×{self.size[1]}; forward: the logits of 1 image; '
                f'train: a training step, {self.batch_size} image(s)'
            )
        sampler = self.model.train_cfg.rcnn.sampler
        return (
            f'{self.size[0]}×{self.size[1]}; mask: the mask branch, from the '
            f"backbone's and neck's maps of 1 image and {self.rois} RoIs to "
            'mask logits, with RoI extraction, the shared '
            'head if there is one and, for PVD, the votes of the whole '
            'image; forward: 1 image to masks, through the RPN, '
            f'{len(self.proposals)} proposals through the box branch, '
            f'{self.rois} RoIs through the mask branch, and their masks '
            'pasted into the image; with a semantic head, its logits of the image as '
            'well; train: a training step, '
            f'{self.batch_size} image(s) of {self.objects} objects, with '
            f'{sampler.num} RoIs each, of which up to '
            f'{round(sampler.num * sampler.pos_fraction)} go through the '
            'mask branch'
        )

    def mask(self) -> None:
        """The mask branch alone, of one image."""
        self.model.eval()
        rois = bbox2roi([self.detections.bboxes])
        with torch.no_grad():
            run_mask_branch(self.model.roi_head, self.maps, rois)

    def forward(self) -> None:
        """As the detector's ``predict``, with boxes of ours in between."""
        model = self.model
        model.eval()
        with torch.no_grad():
            maps = model.extract_feat(self.images[:1])
            if self.has_masks:
                self._find_objects(maps)
            if self.has_labels:
                model.semantic_head.predict(maps, self.metas, rescale=True)

    def _find_objects(self, maps: Sequence[Tensor]) -> None:
        head = self.model.roi_head
        self.model.rpn_head.predict(maps, self.samples[:1], rescale=False)
        head.predict_bbox(maps, self.metas, [self.proposals], head.test_cfg)
        head.predict_mask(maps, self.metas, [self.detections.clone()], rescale=True)

    def losses(self) -> dict:
        """As the detector's ``loss``, with proposals of ours: the box
        assigner finds as many objects among them as a trained RPN's has."""
        maps = self.model.extract_feat(self.images)
        losses = self._losses_of_objects(maps) if self.has_masks else {}
        if self.has_labels:
            losses.update(self.model.semantic_head.loss(maps, self.samples))
        return losses

    def _losses_of_objects(self, maps: Sequence[Tensor]) -> dict:
        model = self.model
        objects = copy.deepcopy(self.samples)
        for sample in objects:
            sample.gt_instances.labels.zero_()
        losses, _ = model.rpn_head.loss_and_predict(
            maps, objects, proposal_cfg=model.train_cfg.rpn_proposal
        )
        losses = {f'rpn_{name}': loss for name, loss in losses.items()}
        proposals = [boxes.clone() for boxes in self.train_proposals]
        losses.update(model.roi_head.loss(maps, proposals, self.samples))
        return losses


def random_boxes(count: int, size: tuple[int, int], random: torch.Generator) -> Tensor:
    """Boxes (x1, y1, x2, y2) inside an image: from 2 % of its shorter side to
    90 %, as many small as large ones (about COCO's thirds), aspect ratios
    from 1:2 to 2:1."""
    height, width = size
    u = torch.rand(count, 4, generator=random)
    side = min(size) * torch.exp(math.log(0.02) + u[:, 0] * math.log(0.9 / 0.02))
    stretch = torch.exp((u[:, 1] - 0.5) * math.log(2))
    w = (side * stretch).clamp(max=width - 1)
    h = (side / stretch).clamp(max=height - 1)
    x1, y1 = u[:, 2] * (width - w), u[:, 3] * (height - h)
    return torch.stack([x1, y1, x1 + w, y1 + h], 1)


def around(
    boxes: Tensor, count: int, size: tuple[int, int], random: torch.Generator
) -> Tensor:
    """Boxes around given ones, moved by up to a tenth of their size."""
    boxes = boxes[torch.arange(count) % len(boxes)]
    sides = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    boxes = boxes + sides * (torch.rand(count, 4, generator=random) - 0.5) / 5
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor(size[::-1] * 2))
