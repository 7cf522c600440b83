# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Which task a model is compared at."""

from pvd_mm.utils.errors import UserError

from .tasks import InstanceTask, SemanticTask


def task_of(inferencer) -> str:
    """'panoptic' of a model that joins things and stuff, else the framework of its
    config, 'mmseg' or 'mmdet'.

    Raises:
        UserError: A panoptic model of one task, whose data are of another kind.
    """
    joins = getattr(
        getattr(inferencer, 'model', None), 'with_panoptic_fusion_head', None
    )
    if joins is False:
        raise UserError(
            f'{type(inferencer.model).__name__} without a panoptic_fusion_head has no '
            'segments to compare; tools/test.py measures labels or masks alone'
        )
    return 'panoptic' if joins else inferencer.scope


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
