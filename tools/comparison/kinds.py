# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Which task a model is compared at."""

from .tasks import InstanceTask, SemanticTask


def task_of(inferencer) -> str:
    """'panoptic' of a model that joins things and stuff, else the framework of its
    config, 'mmseg' or 'mmdet'."""
    model = getattr(inferencer, 'model', None)
    return 'panoptic' if hasattr(model, 'panoptic_fusion_head') else inferencer.scope


def make_task(kind: str, model, meta: dict, focus: str = '', contours: bool = False):
    """The task of a model.

    Args:
        kind (str): 'mmseg', 'mmdet' or 'panoptic', see :func:`task_of`.
        model (nn.Module): The model.
        meta (dict): ``classes`` and ``palette``.
        focus (str): Of a :class:`SemanticTask`. Defaults to ''.
        contours (bool): Of an :class:`InstanceTask`. Defaults to False.
    """
    if kind == 'panoptic':
        from .panoptic import PanopticTask  # imports mmdet

        return PanopticTask(meta, model.panoptic_fusion_head.num_things_classes)
    if kind == 'mmdet':
        return InstanceTask(meta, contours)
    return SemanticTask(meta, focus)
