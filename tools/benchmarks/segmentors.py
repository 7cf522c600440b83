# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What is measured of a segmentor of mmseg."""

import torch
from mmengine.config import Config
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample

from pvd_mm.utils.errors import UserError

from .base import ModelBenchmark


class SegmentorBenchmark(ModelBenchmark):
    """A segmentor: images with a label of every pixel."""

    #: Batch norm over one pooled pixel needs two images
    least_batch_size = 2

    @staticmethod
    def default_size(cfg: Config) -> tuple[int, int]:
        """The crops that the config trains on.

        Raises:
            UserError: If it does not say.
        """
        if not cfg.get('crop_size'):
            raise UserError('the first config has no crop_size; give --size')
        return tuple(cfg.crop_size)

    def load_data(self) -> None:
        """Images and label maps."""
        shape = (self.batch_size, self.channels, *self.size)
        self.images = torch.randn(shape, device=self.device)
        classes = self.model.decode_head.num_classes
        self.samples = []
        for _ in range(self.batch_size):
            labels = torch.randint(0, classes, (1, *self.size))
            sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
            self.samples.append(sample.to(self.device))

    def title(self) -> str:
        """What the measured passes hold."""
        return (
            f'{self.size[0]}×{self.size[1]}; forward: 1 image to its '
            f'logits; train: a training step, {self.batch_size} images'
        )

    def forward(self) -> None:
        """One image to its logits."""
        self.model.eval()
        with torch.no_grad():
            self.model(self.images[:1], mode='tensor')

    def losses(self) -> dict:
        """The losses of a batch."""
        return self.model(self.images, self.samples, mode='loss')
