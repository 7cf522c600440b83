# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Both tasks from one set of votes; registers in mmdet, on import: detectors,
semantic head, data sets, their loading and panoptic quality."""

from .checked_panoptic import CheckedCocoPanopticDataset, CityscapesPanopticDataset
from .detectors import MultiTaskPanopticFPN, PVDPanopticFPN
from .loading import LoadCheckedPanopticAnnotations
from .quality_metric import PanopticQualityMetric, panoptic_truth
from .segments import (
    Segment,
    ids_to_rgb,
    match_segments,
    panoptic_quality,
    rgb_to_ids,
    segments_info,
    split_prediction,
)
from .semantic_head import PVDSemanticHead

__all__ = [
    'CheckedCocoPanopticDataset',
    'CityscapesPanopticDataset',
    'LoadCheckedPanopticAnnotations',
    'MultiTaskPanopticFPN',
    'PVDPanopticFPN',
    'PVDSemanticHead',
    'PanopticQualityMetric',
    'Segment',
    'ids_to_rgb',
    'match_segments',
    'panoptic_quality',
    'panoptic_truth',
    'rgb_to_ids',
    'segments_info',
    'split_prediction',
]
