# Copyright (c) PVD-MM contributors. Apache-2.0.
"""mmseg's and mmdet's inferencers, with a checkpoint that is checked.

Upstream's go on with random weights where a checkpoint does not fit, and name
the classes of Cityscapes or COCO where it names none. These refuse the former
and look into the config for the latter. Import of the module needs neither
framework.
"""

import functools
import re
from collections.abc import Sequence

import numpy as np
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import pseudo_collate
from mmengine.registry import DATASETS, init_default_scope
from torch import nn

from pvd_mm.engine.checkpoint import check_fit, read_checkpoint
from pvd_mm.engine.config import load_config
from pvd_mm.utils.config_types import dataset_configs, type_name
from pvd_mm.utils.errors import UserError

__all__ = ['load_inferencer']

_VISUALIZERS = {'mmseg': 'SegLocalVisualizer', 'mmdet': 'DetLocalVisualizer'}


def load_inferencer(
    config: str,
    checkpoint: str,
    device: str | None = None,
    scale: float | None = None,
    slide: tuple[Sequence[int], Sequence[int]] | None = None,
):
    """Build the inferencer of a config's framework, with weights.

    Args:
        config (str): Path of a config, or the name of a shipped one.
        checkpoint (str): The checkpoint, a file or a URL.
        device (str, optional): 'cpu', 'cuda:0', ... Defaults to None:
            an accelerator if there is one.
        scale (float, optional): Images are resized by this factor instead of
            to the size that the config's test pipeline says. Defaults to
            None: as the config says.
        slide (tuple, optional): Size and stride, (height, width) each, of the
            window that a segmentor is slid over the resized image with, in
            its pixels. Defaults to None: as ``test_cfg`` of the config says.

    Returns:
        BaseInferencer: mmseg's ``MMSegInferencer`` or mmdet's
        ``DetInferencer``. Besides what these have, ``predict(path)`` gives
        the data sample of one image, and ``model.dataset_meta`` has the
        ``classes`` and the ``palette``, one for each class of the model.

    Raises:
        UserError: The config or the checkpoint is missing, the checkpoint
            cannot be read or is of another model, the device is not there,
            or an argument does not fit the config.
    """
    cfg = load_config(config)
    scope = cfg.get('default_scope') or 'mmseg'
    if scope not in _VISUALIZERS:
        raise UserError(
            f"the config's default_scope is '{scope}'; allowed are "
            f'{" and ".join(_VISUALIZERS)}.'
        )
    if not cfg.get('test_dataloader'):
        raise UserError(
            f'{config} has no test_dataloader, whose pipeline loads the images.'
        )
    _check_device(device)
    _set_scale(cfg, scale)
    _set_slide(cfg, slide, scope)
    # that of the config may log to a server; and not every config has one
    cfg.visualizer = dict(type=_VISUALIZERS[scope], name='predictions')
    cfg.model.pop('auxiliary_head', None)  # for training alone
    init_default_scope(scope)
    return _inferencer_class(scope)(cfg, checkpoint, device)


def _check_device(device: str | None) -> None:
    try:
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"device is '{device}', which cannot be used: {reason}"
        ) from error


def _set_scale(cfg: Config, scale: float | None) -> None:
    if scale is None:
        return
    if not 0 < scale < float('inf'):
        raise UserError(f'scale is {scale}; expected a factor above 0.')
    scale = float(scale)  # Resize refuses an int
    for dataset in dataset_configs(cfg.test_dataloader.dataset):
        pipeline = dataset.pipeline
        resizing = [step for step in pipeline if type_name(step).endswith('Resize')]
        for step in resizing:
            step.pop('scale', None)
            step.update(scale_factor=scale, keep_ratio=True)
        if not resizing:
            pipeline.insert(1, dict(type='Resize', scale_factor=scale, keep_ratio=True))


def _set_slide(cfg: Config, slide, scope: str) -> None:
    if slide is None:
        return
    if scope != 'mmseg':
        raise UserError('a sliding window is for segmentors; this is a detector.')
    (height, width), (down, right) = slide
    if not (0 < down <= height and 0 < right <= width):
        raise UserError(
            f'the sliding window is {height}x{width} with the stride '
            f'{down}x{right}; expected strides from 1 to the side of the '
            'window, so that no pixel is left out.'
        )
    cfg.model.test_cfg = dict(
        cfg.model.get('test_cfg') or {},
        mode='slide',
        crop_size=(height, width),
        stride=(down, right),
    )


class _Checked:
    """In front of an inferencer: checks the weights, knows the classes."""

    def __init__(self, cfg: Config, checkpoint: str, device: str | None) -> None:
        self._checkpoint_path = checkpoint
        super().__init__(cfg, device=device)
        # mmseg's takes the classes of Cityscapes until its own visualize()
        self.visualizer.dataset_meta = self.model.dataset_meta

    def _load_weights_to_model(self, model, checkpoint, cfg) -> None:
        checkpoint = read_checkpoint(self._checkpoint_path)
        check_fit(model, checkpoint, self._checkpoint_path)
        weights = checkpoint.get('state_dict', checkpoint)
        meta = _dataset_meta(model, checkpoint.get('meta') or {}, cfg)
        super()._load_weights_to_model(
            model,
            dict(
                meta=dict(dataset_meta=meta),
                state_dict={
                    key: value
                    for key, value in weights.items()
                    if 'auxiliary_head' not in key
                },
            ),
            cfg,
        )
        model.dataset_meta = meta

    def _init_pipeline(self, cfg: Config):
        # an image has no annotations; mmdet's inferencer would load them
        pipeline = [
            step.copy()  # upstream's make theirs of these
            for step in _test_data(cfg).pipeline
            if not re.fullmatch(r'Load\w*Annotations', type_name(step))
        ]
        loaders = [step for step in pipeline if type_name(step) == 'LoadImageFromFile']
        if not loaders:
            raise UserError('the test pipeline of the config has no LoadImageFromFile.')
        for step in loaders:
            step['type'] = 'LoadImageFromFile'  # mmseg's knows no class
        data = dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))
        return super()._init_pipeline(ConfigDict(data))

    def _init_collate(self, cfg: Config):
        if 'collate_fn' in cfg.test_dataloader:
            return super()._init_collate(cfg)
        return pseudo_collate  # upstream finds it too, after a warning

    def prepare(self, path: str) -> dict:
        """Load one image: what the model's ``data_preprocessor`` takes."""
        return self.collate_fn([self.pipeline(path)])

    def predict(self, path: str):
        """The data sample of one image file, with predictions."""
        return self.forward(self.prepare(path))[0]


def _test_data(cfg: Config) -> ConfigDict:
    """The test data's config; of several data sets the first one's."""
    return next(dataset_configs(cfg.test_dataloader.dataset))


@functools.cache
def _inferencer_class(scope: str) -> type:
    if scope == 'mmdet':
        from mmdet.apis import DetInferencer as upstream
    else:
        from mmseg.apis import MMSegInferencer as upstream
    return type(f'Checked{upstream.__name__}', (_Checked, upstream), {})


def _number_of_classes(model: nn.Module) -> int | None:
    # the first of a panoptic model knows all classes
    for name in (
        'panoptic_fusion_head',
        'decode_head',
        'roi_head.bbox_head',
        'bbox_head',
    ):
        try:
            head = model.get_submodule(name)
        except AttributeError:
            continue
        head = head[-1] if isinstance(head, nn.ModuleList) else head
        return getattr(head, 'num_classes', None)
    return None


def _dataset_meta(model: nn.Module, meta: dict, cfg: Config) -> dict:
    """Classes and palette: those of the checkpoint, else of the config's test
    data, else numbers; a palette is taken where the classes are the same."""
    number = _number_of_classes(model)
    old = {key.lower(): meta[key] for key in ('CLASSES', 'PALETTE') if key in meta}
    lazy = dict(_test_data(cfg), lazy_init=True)  # reads no data
    sources = [meta.get('dataset_meta') or {}, old, DATASETS.build(lazy).metainfo]
    sources = [{k.lower(): value for k, value in source.items()} for source in sources]
    named = [
        source
        for source in sources
        if source.get('classes') and number in (None, len(source['classes']))
    ]
    if named:
        classes = tuple(named[0]['classes'])
    elif number:
        classes = tuple(map(str, range(number)))
    else:
        raise UserError('neither the checkpoint nor the config names the classes.')
    for source in named:
        palette = source.get('palette')
        same = tuple(source['classes']) == classes
        if same and isinstance(palette, (list, tuple)) and len(palette) >= len(classes):
            break
    else:  # as upstream's random ones
        random = np.random.RandomState(42)
        palette = random.randint(0, 255, (len(classes), 3)).tolist()
    # mmdet's visualizer takes tuples alone
    return dict(classes=classes, palette=[tuple(map(int, color)) for color in palette])
