# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Which class makes a model of a framework a subject of the benchmarks."""

from .models import Subject


def subject_class(scope: str) -> type[Subject]:
    """The subjects of a framework, by a config's ``default_scope``."""
    if scope == 'mmdet':
        from .detectors import DetectorSubject

        return DetectorSubject
    from .segmentors import SegmentorSubject

    return SegmentorSubject
