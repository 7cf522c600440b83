# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Segmentors of mmseg: from the raw image to the label map, and the proof."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .files import Run
from .samples import raw
from .whole_model import WholeModel

OUTPUTS = ('labels', 'scores', 'logits')

#: What agrees, in a message.
COMPARED = 'labels'


class WholeSegmentor(WholeModel):
    """A segmentor of mmseg from the raw image to its result.

    Args:
        model (nn.Module): The trained model, one of mmseg.
        output (str): 'labels', 'scores' or 'logits'.
    """

    sides = {0: 'batch', 2: 'height', 3: 'width'}
    first_side = 'batch'

    def __init__(self, model: nn.Module, output: str = 'labels') -> None:
        super().__init__(model)
        self.output = output
        self.output_names = list(dict.fromkeys([output, 'logits']))
        self.proof_outputs = len(self.output_names) - 1

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """Images (N, 3, H, W) float, 0 to 255, to the result and the logits
        (N, out_channels, H, W); to these alone, if they are the result.

        Labels are (N, H, W) uint8, or int64 of more than 256 classes; scores
        (N, out_channels, H, W), from 0 to 1.
        """
        meta = dict(img_shape=image.shape[2:])
        logits = self.model.encode_decode(self.normalise(image), [meta])
        if self.output == 'logits':
            return (logits,)
        binary = logits.size(1) == 1
        if self.output == 'scores':
            return logits.sigmoid() if binary else logits.softmax(1), logits
        if binary:
            labels = logits.sigmoid()[:, 0] > self.model.decode_head.threshold
        else:
            labels = logits.argmax(1)
        fits = logits.size(1) <= 256
        return labels.to(torch.uint8 if fits else torch.int64), logits


class Proof(NamedTuple):
    """How a segmentor's file compares with the model that it was made from."""

    images: int
    agreement: float  # share of the pixels whose label is the same
    difference: float  # largest, of two logits
    largest: float  # logit, to compare it with
    miou: tuple[float, float] | None  # of model and file in percent, with labels

    def lines(self) -> list[str]:
        """For a terminal."""
        found = [
            f'images compared        {self.images}',
            f'labels that agree      {100 * self.agreement:.4f} %',
            f'difference of logits   {self.difference:.2g} at most, '
            f'of logits up to {self.largest:.3g}',
        ]
        if self.miou:
            model, file = self.miou
            found.append(f'mIoU on these images   model {model:.2f}, file {file:.2f}')
        return found


def wrap(inferencer, output: str | None) -> WholeSegmentor:
    """The model of an inferencer, made one that gives the size of its image; 'labels'
    unless there is another ``output``."""
    model = inferencer.model
    model.test_cfg['mode'] = 'whole'
    model.data_preprocessor.test_cfg = None  # would pad
    return WholeSegmentor(model, output or 'labels')


def metadata(inferencer, module: WholeSegmentor) -> dict[str, str]:
    """Of its file, beside that of every file."""
    return dict(output=module.output)


@torch.no_grad()
def prove(inferencer, run: Run, samples: Sequence[dict], swaps: bool) -> Proof:
    """mmseg's own prediction beside that from the file's logits, at the size of the
    images' labels; and the file's result beside its logits.

    Args:
        inferencer (BaseInferencer): That of the model.
        run (Callable): The file, see :func:`.read`.
        samples (Sequence[dict]): Of :func:`.load_samples`.
        swaps (bool): See :func:`.raw`.
    """
    model = inferencer.model
    same = pixels = 0
    difference = largest = 0.0
    areas = []
    for sample in samples:
        batch = model.data_preprocessor(sample, False)
        inputs, data_samples = batch['inputs'], batch['data_samples']
        own = model.encode_decode(inputs, [dict(img_shape=inputs.shape[2:])])
        expected = model.postprocess_result(own, data_samples)[0]
        wanted, logits = expected.pred_sem_seg.data, expected.seg_logits.data
        found = torch.from_numpy(run(raw(sample, swaps).numpy())[-1])
        difference = max(difference, (own - found).abs().max().item())
        largest = max(largest, logits.abs().max().item())
        got = model.postprocess_result(found, data_samples)[0].pred_sem_seg.data
        same += (got == wanted).sum().item()
        pixels += wanted.numel()
        if 'gt_sem_seg' in expected:
            areas.append(_areas(model, expected.gt_sem_seg.data, wanted, got))
    miou = tuple(_miou(parts) for parts in zip(*areas)) if areas else None
    return Proof(len(samples), same / pixels, difference, largest, miou)


def _areas(model, truth: Tensor, *predictions: Tensor) -> list:
    from mmseg.evaluation import IoUMetric

    number = len(model.dataset_meta['classes'])
    return [
        IoUMetric.intersect_and_union(p[0], truth[0].to(p), number, 255)
        for p in predictions
    ]


def _miou(areas: Sequence) -> float:
    intersect, union = (sum(parts) for parts in list(zip(*areas))[:2])
    return 100 * (intersect / union)[union > 0].mean().item()
