# Copyright (c) PVD-MM contributors. Apache-2.0.
"""What metrics of label maps have in common."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric


def share_of_diagonal(ratio: float, shape: Sequence[int]) -> int:
    """A ratio of the diagonal of an image (H, W), in whole pixels."""
    return round(ratio * float(np.hypot(*shape)))


class LabelMapMetric(BaseMetric):
    """A metric that counts something in every pair of label maps.

    Args:
        report_classes (Sequence[str]): Classes whose own figures are among the
            returned metrics.
        ignore_index (int): Label of the ignored pixels.
        collect_device (str): 'cpu' or 'gpu', where distributed results are
            collected.
        prefix (str, optional): Prefix of the metric names.

    Raises:
        ValueError: A class of ``report_classes`` is not in the data set, a
            prediction and its ground truth differ in size, or a map holds
            values outside the classes.
        KeyError: A sample has no ``pred_sem_seg`` or no ``gt_sem_seg``.
    """

    def __init__(
        self,
        report_classes: Sequence[str],
        ignore_index: int,
        collect_device: str,
        prefix: str | None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix)
        if isinstance(report_classes, str):
            report_classes = (report_classes,)
        self.report_classes = tuple(report_classes)
        self.ignore_index = ignore_index

    @property
    def _own_name(self) -> str:
        return type(self).__name__

    @abstractmethod
    def measure(
        self, pred: np.ndarray, truth: np.ndarray, num_classes: int
    ) -> np.ndarray:
        """Count what is of interest in one image.

        Args:
            pred (np.ndarray): Predicted labels, whole numbers, (H, W).
            truth (np.ndarray): Ground truth labels, whole numbers, (H, W).
            num_classes (int): Number of classes K, at most 254.

        Returns:
            np.ndarray: Of a size that is the same for all images.
        """

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Add a batch.

        Args:
            data_batch (Any): Not used.
            data_samples (Sequence[dict]): Each with ``pred_sem_seg`` and
                ``gt_sem_seg``, whose ``data`` has the shape (1, H, W) or
                (H, W).
        """
        number = len(self._classes())
        for sample in data_samples:
            pred = self._label_map(sample, 'pred_sem_seg')
            truth = self._label_map(sample, 'gt_sem_seg')
            self.results.append(self.measure(pred, truth, number))

    def classes_of(self, results: Sequence) -> tuple[str, ...]:
        """The names of the classes that results are of.

        Raises:
            ValueError: There are no results, or no names.
        """
        if not results:
            raise ValueError(
                f'{self._own_name}: no image was evaluated; process() has '
                'to be called before the metrics are computed.'
            )
        return self._classes()

    def _classes(self) -> tuple[str, ...]:
        meta = self.dataset_meta or {}
        if 'classes' not in meta:
            raise ValueError(
                f"{self._own_name}: dataset_meta has no 'classes'; the "
                'data set has to name them.'
            )
        classes = tuple(meta['classes'])
        unknown = [c for c in self.report_classes if c not in classes]
        if unknown:
            raise ValueError(
                f'report_classes names {unknown}, but the classes of the '
                f'data set are {list(classes)}.'
            )
        return classes

    def _label_map(self, sample: dict, key: str) -> np.ndarray:
        if key not in sample:
            raise KeyError(
                f'{self._own_name}: the sample {sample.get("img_path", "")} '
                f"has no '{key}'; the test pipeline needs LoadAnnotations "
                'and the model has to be a segmentor.'
            )
        data = sample[key]['data']
        if isinstance(data, torch.Tensor):
            data = data.detach().cpu().numpy()
        if data.ndim == 3 and data.shape[0] == 1:
            data = data[0]
        return data

    def checked(
        self, pred: np.ndarray, truth: np.ndarray, num_classes: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Check the label maps of one image.

        Args:
            pred (np.ndarray): See :meth:`measure`.
            truth (np.ndarray): See :meth:`measure`.
            num_classes (int): See :meth:`measure`.

        Returns:
            tuple[np.ndarray, np.ndarray, np.ndarray]: (H, W) each: prediction
            and ground truth, uint8, 0 where they are ignored, and the bool map
            of the ignored pixels.

        Raises:
            ValueError: See the class.
        """
        if pred.ndim != 2 or pred.shape != truth.shape:
            raise ValueError(
                f'{self._own_name}: the prediction has the shape '
                f'{pred.shape} and the ground truth {truth.shape}; expected '
                'the same (H, W) or (1, H, W).'
            )
        if num_classes > 254:
            raise ValueError(
                f'{self._own_name}: {num_classes} classes; at most 254 fit.'
            )
        ignored = truth == self.ignore_index
        maps = []
        for name, values in (('prediction', pred), ('ground truth', truth)):
            if not np.issubdtype(values.dtype, np.integer):
                # a head with one output channel predicts floats
                with np.errstate(invalid='ignore'):
                    whole = values.astype(np.int64)
                if (whole != values).any():
                    raise ValueError(
                        f'{self._own_name}: the {name} holds {values.dtype}, such as '
                        f'{np.unique(values[whole != values]).tolist()[:5]}; expected '
                        'whole numbers, the labels of classes.'
                    )
                values = whole
            foreign = ((values < 0) | (values >= num_classes)) & ~ignored
            if foreign.any():
                raise ValueError(
                    f'{self._own_name}: the {name} holds the values '
                    f'{np.unique(values[foreign]).tolist()[:5]}; allowed are '
                    f'0 to {num_classes - 1}, and in the ground truth '
                    f'{self.ignore_index} (ignored).'
                )
            maps.append(np.where(ignored, 0, values).astype(np.uint8))
        return (*maps, ignored)
