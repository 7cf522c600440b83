# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Patches for what upstream breaks and pvd_mm needs, one function per fault.

Every patch works in memory (no installed file is edited), does nothing where the
fault is absent, and may be applied repeatedly. Each names the version in which the
fault was seen and says when the patch can go. Private names of upstream stand in
this module alone. ``pvd_mm.engine.registration`` applies each patch when the module
it is for has been imported.
"""

import functools
import os
import warnings
from collections import deque
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec

from pvd_mm.utils.files import write_bytes

__all__ = [
    'add_package_names',
    'add_registry_locations',
    'align_any_layout',
    'allow_checkpoint_classes',
    'checkpoint_without_reentry',
    'evaluate_all_annotations',
    'forbid_unsafe_loading',
    'hide_known_warnings',
    'ignore_pixels_in_class_weights',
    'predict_binary_labels',
    'resolve_own_bases',
    'resolve_own_hub_configs',
    'support_bfloat16_in_detectors',
    'write_whole_checkpoints',
]

#: numpy scalar types whose dtypes mmengine's logs are made of.
_LOGGED_DTYPES = ('float64', 'float32', 'int64')

#: Our modules that register in mmengine's own registries, by registry.
OWN_MODULES = {
    'HOOKS': ('pvd_mm.engine.hooks', 'pvd_mm.engine.records'),
    'OPTIM_WRAPPERS': ('pvd_mm.engine.optim_wrapper',),
    'MODELS': ('pvd_mm.decoder',),
}

#: What upstream says in every run, to its own authors: message (a regular
#: expression) and the modules that say it; and messages in its log.
_KNOWN_WARNINGS = (
    (r'``build_\w+`` would be deprecated soon', r'mm(seg|det)\.'),
    (r'Default ``avg_non_ignore`` is False', r'mmseg\.models\.losses\.'),
    (r'The draw is False', r'mmseg\.engine\.hooks\.'),
    (r'faster_coco_eval is not installed', r'mmdet\.'),  # onedl-mmdetection 3.5.1
)
_KNOWN_LOG_MESSAGES = (
    'The prefix is not set in metric class',
    '"FileClient" will be deprecated in future',
    '"HardDiskBackend" is the alias of "LocalBackend"',
    'Could not import OneDL',  # onedl-mmsegmentation 1.4.2, onedl-mmdetection 3.5.1
)


def _statistic_of_history(owner, name):
    """``getattr``, for the four statistics of a HistoryBuffer only.

    mmengine pickles ``HistoryBuffer.mean`` and its like, which the pickle
    format spells ``getattr(HistoryBuffer, 'mean')``. Allowing the builtin
    would let a checkpoint reach any attribute of anything it can name.
    """
    from mmengine.logging import HistoryBuffer

    if owner is HistoryBuffer and name in ('min', 'max', 'mean', 'current'):
        return getattr(owner, name)
    raise AttributeError(f'a checkpoint may not look up {name!r} of {owner!r}')


def allow_checkpoint_classes() -> None:
    """Let ``torch.load(weights_only=True)`` read mmengine's checkpoints.

    Fault: torch>=2.6 loads with ``weights_only=True`` by default, and
    mmengine 0.10.7's own checkpoints contain its ``HistoryBuffer`` with
    numpy arrays and scalars in the message hub, so tests and ``--resume``
    fail. Exactly these classes are allowed; nothing is loaded with
    ``weights_only=False``. Both module names of numpy 1 and 2 are allowed, so
    a checkpoint may move between them.

    Unnecessary once mmengine allows these classes itself.
    """
    import numpy as np
    import torch
    from mmengine.logging import HistoryBuffer

    if not hasattr(torch.serialization, 'get_unsafe_globals_in_checkpoint'):
        return  # torch<2.6 loads them; its allow-list, if any, takes no names
    core = getattr(np, '_core', None) or np.core
    allowed = [HistoryBuffer, np.ndarray, np.dtype]
    allowed += [type(np.dtype(name)) for name in _LOGGED_DTYPES]
    names = [('builtins.getattr', _statistic_of_history)]
    for prefix in ('numpy.core.multiarray', 'numpy._core.multiarray'):
        names.append((f'{prefix}._reconstruct', core.multiarray._reconstruct))
        names.append((f'{prefix}.scalar', core.multiarray.scalar))
    allowed += [(function, name) for name, function in names]
    torch.serialization.add_safe_globals(allowed)


def _replace(owner, name: str, wrap, as_static: bool = False) -> None:
    """Set ``owner.name`` to ``wrap(owner.name)``, once; an upstream that has no
    such name any more stays as it is."""
    upstream = getattr(owner, name, None)
    if upstream is not None and not hasattr(upstream, '_pvd_mm_patch'):
        patched = functools.wraps(upstream)(wrap(upstream))
        patched._pvd_mm_patch = True
        setattr(owner, name, staticmethod(patched) if as_static else patched)


def forbid_unsafe_loading() -> None:
    """Stop onedl-mmengine from loading unsafely behind the user's back.

    Fault: onedl-mmengine 0.10.12's ``_safe_torch_load`` allow-lists the
    builtin ``getattr`` and, when a file still does not load under
    ``weights_only=True``, silently loads it with ``weights_only=False``,
    which runs whatever code the file holds. Here torch's default decides
    instead; who trusts an old file sets torch's own environment variable
    ``TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD=1``.

    mmengine 0.10.7 has no such function. Unnecessary once the fork's does not
    fall back.
    """
    import torch
    from mmengine.runner import checkpoint

    def wrap(upstream):
        def safe_torch_load(file, map_location=None, weights_only=None):
            return torch.load(
                file, map_location=map_location, weights_only=weights_only
            )

        return safe_torch_load

    _replace(checkpoint, '_safe_torch_load', wrap)


def checkpoint_without_reentry() -> None:
    """Let ``activation_checkpointing`` of mmengine's Runner train any module.

    Fault: mmengine 0.10.7 checkpoints a module by torch's reentrant
    implementation, which sees tensors only if they are arguments or results
    by themselves. A module with a list of maps among them, or after an image,
    which needs no gradient, goes untrained without a word; and modules can't
    be called by keywords. torch recommends the other implementation, which
    has none of these limits.

    Unnecessary once mmengine passes ``use_reentrant=False``.
    """
    from mmengine.runner import activation_checkpointing
    from torch.utils.checkpoint import checkpoint

    def wrap(upstream):
        return lambda forward: functools.wraps(forward)(
            functools.partial(checkpoint, forward, use_reentrant=False)
        )

    _replace(activation_checkpointing, 'wrap_forward', wrap)


def _is_distribution(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def add_package_names() -> None:
    """Let configs inherit from ``mmseg::`` and ``mmdet::`` with ``onedl-*``.

    Fault: mmengine finds the package behind ``mmseg::`` by a fixed table of
    distribution names, which onedl-mmengine 0.10.12 copied unchanged, so it
    says that mmsegmentation is not installed although onedl-mmsegmentation
    is. The table also lacks ``pvd_mm``.

    Unnecessary once the fork's table has the fork's names.
    """
    from mmengine.config.utils import MODULE2PACKAGE

    for module, project in (
        ('mmseg', 'mmsegmentation'),
        ('mmdet', 'mmdetection'),
        ('mmpretrain', 'mmpretrain'),
    ):
        known = MODULE2PACKAGE.get(module, module)
        fork = f'onedl-{project}'
        if known != fork and not _is_distribution(known) and _is_distribution(fork):
            MODULE2PACKAGE[module] = fork
    MODULE2PACKAGE.setdefault('pvd_mm', 'pvd_mm')


def own_modules(registry: str) -> tuple[str, ...]:
    """Our modules that register in one of mmengine's own registries; the decoder only
    where mmcv is installed, which it needs."""
    return tuple(
        name
        for name in OWN_MODULES[registry]
        if name != 'pvd_mm.decoder' or find_spec('mmcv')
    )


def add_registry_locations() -> None:
    """Let mmengine's own registries import our modules when they are first asked.

    Fault: a registry imports its ``locations`` when it is asked for a name, which can
    be given when it is made alone; and those of mmengine itself (0.10.7) have none, so
    that a name is unknown until somebody happens to import its module. Can go when a
    registry takes further locations. Where the private attributes are gone, ours are
    registered with mmengine's own modules only (``pvd_mm.engine.registration``).
    """
    from mmengine import registry

    for name in OWN_MODULES:
        modules = own_modules(name)
        owner = getattr(registry, name)
        locations = getattr(owner, '_locations', None)
        if isinstance(locations, list) and not set(modules) <= set(locations):
            # a new list: that of no locations is one for all registries
            owner._locations = [*locations, *modules]
            owner._imported = False


def _own_path(config: str) -> str:
    """The file of a config ``pvd_mm::…``."""
    from pvd_mm.utils.shipped_configs import find_shipped, missing_config_message

    name = config.partition('::')[2]
    path = find_shipped(name, primitives=True)
    if path is None:
        raise FileNotFoundError(missing_config_message(name, primitives=True))
    return str(path)


def resolve_own_bases() -> None:
    """Let a user's config inherit ours with ``_base_ = 'pvd_mm::…'``.

    Fault: mmengine 0.10.7 refuses ``package::`` of packages outside its
    table, looks for their configs where the distribution (not the module) is
    installed, and stamps ``_scope_`` on inherited dicts, which for a plugin
    names a registry that does not exist: our classes live in mmseg's and
    mmdet's registries. So a ``pvd_mm::`` base is read as if it were a local
    file.

    Unnecessary once mmengine lets a package say where its configs are, and
    which scope they have.

    Raises (from ``Config.fromfile``):
        FileNotFoundError: If there is no such config; lists near matches.
    """
    from mmengine.config import Config

    def wrap(upstream):
        def get_cfg_path(cfg_path, filename):
            if cfg_path.startswith('pvd_mm::'):
                return _own_path(cfg_path), None
            return upstream(cfg_path, filename)

        return get_cfg_path

    _replace(Config, '_get_cfg_path', wrap, as_static=True)


def resolve_own_hub_configs() -> None:
    """Let ``mmengine.hub.get_config`` read ``'pvd_mm::…'``.

    For the fault of :func:`resolve_own_bases`.
    """
    import mmengine.hub as public
    from mmengine.config import Config
    from mmengine.hub import hub

    def wrap(upstream):
        def get_config(cfg_path, pretrained=False):
            if cfg_path.startswith('pvd_mm::') and not pretrained:
                return Config.fromfile(_own_path(cfg_path))
            return upstream(cfg_path, pretrained)

        return get_config

    _replace(hub, 'get_config', wrap)
    public.get_config = hub.get_config


def ignore_pixels_in_class_weights() -> None:
    """Let mmseg weight classes where some pixels are to be ignored.

    Fault: to average a loss with ``class_weight``, mmseg 1.2.2 looks up the
    weight of every label, also of 255, the one to be ignored, for which there
    is none: an IndexError. Ignored pixels weigh nothing here.

    Unnecessary once mmseg looks up the weights of labelled pixels alone.
    """
    from mmseg.models.losses import cross_entropy_loss

    def wrap(upstream):
        def cross_entropy(
            pred,
            label,
            weight=None,
            class_weight=None,
            reduction='mean',
            avg_factor=None,
            ignore_index=-100,
            avg_non_ignore=False,
        ):
            if class_weight is not None and avg_factor is None and reduction == 'mean':
                avg_factor = class_weight[label[label != ignore_index]].sum()
            return upstream(
                pred,
                label,
                weight,
                class_weight,
                reduction,
                avg_factor,
                ignore_index,
                avg_non_ignore,
            )

        return cross_entropy

    _replace(cross_entropy_loss, 'cross_entropy', wrap)


def predict_binary_labels() -> None:
    """Let mmseg predict with one output channel as it does with two.

    Faults: with ``out_channels=1`` mmseg 1.2.2 predicts labels as floats, which
    neither its own visualizer nor anything else that looks up a class by its
    label can use. And its ``SegTTAModel`` takes the sigmoid of what
    is a probability already, which is above 0.5 then, so that every pixel is
    class 1.

    Unnecessary once mmseg predicts integers, and averages probabilities.
    """
    from mmseg.models.segmentors import BaseSegmentor, SegTTAModel

    def as_integers(samples):
        for sample in samples:
            labels = sample.pred_sem_seg.data
            if labels.is_floating_point():
                sample.pred_sem_seg.data = labels.long()
        return samples

    def wrap_postprocess(upstream):
        return lambda self, *args, **kwargs: as_integers(
            upstream(self, *args, **kwargs)
        )

    def wrap_merge(upstream):
        def merge_preds(self, data_samples_list):
            for sample in sum(map(list, data_samples_list), []):
                scores = sample.seg_logits.data
                if len(scores) == 1 and ((scores >= 0) & (scores <= 1)).all():
                    sample.seg_logits.data = scores.logit()
            return as_integers(upstream(self, data_samples_list))

        return merge_preds

    _replace(BaseSegmentor, 'postprocess_result', wrap_postprocess)
    _replace(SegTTAModel, 'merge_preds', wrap_merge)


def support_bfloat16_in_detectors() -> None:
    """Let mmdet's two-stage detectors train under bfloat16 autocast.

    Fault: mmcv 2.1.0's RoIAlign, and its NMS on a CPU, refuse bfloat16; and
    mmdet 3.3.0 rounds RoIs to the dtype of the maps, which with bfloat16
    means to multiples of 8 pixels from 1024 on. Both are done in float32.

    Unnecessary once mmcv's ops take bfloat16 and mmdet keeps RoIs in float32.
    """
    import torch
    from mmcv.ops.nms import NMSop, SoftNMSop
    from mmdet.models.roi_heads import roi_extractors

    def in_float(x):
        return x.float() if x.dtype == torch.bfloat16 else x

    def wrap_nms(upstream):
        return lambda ctx, boxes, scores, *others: upstream(
            ctx, in_float(boxes), in_float(scores), *others
        )

    def wrap_extractor(upstream):
        return lambda self, feats, *args, **kwargs: upstream(
            self, tuple(map(in_float, feats)), *args, **kwargs
        )

    for op in (NMSop, SoftNMSop):
        _replace(op, 'forward', wrap_nms, as_static=True)
    for name in ('SingleRoIExtractor', 'GenericRoIExtractor'):
        _replace(getattr(roi_extractors, name), 'forward', wrap_extractor)


def evaluate_all_annotations() -> None:
    """Let mmdet's ``CocoMetric`` evaluate the annotations that its dataset reads.

    Fault: mmdet 3.3.0's ``CocoDataset`` takes an annotation without ``iscrowd`` for
    no crowd, leaves out what is no polygon, and does not look at annotation ids; its
    metric hands all of them to pycocotools, which stops at the first validation (or
    takes four numbers for a box, and the id 0 for no object at all). Here
    :func:`~pvd_mm.utils.coco.prepare_for_evaluation` fills them in. And pycocotools
    2.0 takes an id that is a string for a list of its letters.

    Unnecessary once the metric reads annotations as the dataset does.
    """
    from mmdet.datasets.api_wrappers import COCO
    from mmdet.evaluation.metrics import CocoMetric
    from mmengine import fileio

    from pvd_mm.utils.coco import prepare_for_evaluation

    def wrap_init(upstream):
        def init(self, *args, **kwargs):
            upstream(self, *args, **kwargs)
            coco = getattr(self, '_coco_api', None)
            if coco and prepare_for_evaluation(coco.dataset, 'segm' in self.metrics):
                coco.createIndex()
                coco.img_ann_map, coco.cat_img_map = coco.imgToAnns, coco.catToImgs

        return init

    def wrap_conversion(upstream):
        def gt_to_coco_json(self, gt_dicts, outfile_prefix):
            path = upstream(self, gt_dicts, outfile_prefix)
            data = fileio.load(path)
            prepare_for_evaluation(data, 'segm' in self.metrics)
            fileio.dump(data, path)
            return path

        return gt_to_coco_json

    def wrap_lookup(upstream):
        return lambda self, ids=(): upstream(
            self, [ids] if isinstance(ids, str) else ids
        )

    _replace(COCO, 'loadCats', wrap_lookup)
    _replace(CocoMetric, '__init__', wrap_init)
    _replace(CocoMetric, 'gt_to_coco_json', wrap_conversion)


def align_any_layout() -> None:
    """Let RoIAlign read maps of any memory layout.

    Fault: mmcv 2.1.0's RoIAlign takes its tensors for contiguous ones. Of a map
    in channels_last memory format, or cut out of a larger one, it crops other
    pixels than those of the RoI, without a word.

    Unnecessary once mmcv makes them contiguous, as it does in the backward pass.
    """
    from mmcv.ops.roi_align import RoIAlignFunction

    def wrap(upstream):
        return lambda ctx, input, rois, *others: upstream(
            ctx, input.contiguous(), rois.contiguous(), *others
        )

    _replace(RoIAlignFunction, 'forward', wrap, as_static=True)


def hide_known_warnings() -> None:
    """Leave out what mmengine 0.10.7, mmseg 1.2.2 and mmdet 3.3.0 say in every run
    of a config that has no fault: that they will drop functions which they use
    themselves. All other warnings are shown.

    Beside that, mmseg and mmdet of the fork print four times in a process that an
    optional package is not installed; they mean to log it for debugging.

    For programs, not for the library: those of ``tools`` that build a model call it,
    registration does not. Unnecessary once upstream is silent.
    """
    from mmengine import logging

    for message, module in _KNOWN_WARNINGS:
        warnings.filterwarnings('ignore', message, UserWarning, module)

    def is_known(message) -> bool:
        return str(message).startswith(_KNOWN_LOG_MESSAGES)

    def wrap_filter(upstream):
        return lambda self, record: not is_known(record.msg) and upstream(self, record)

    def wrap_print(upstream):
        return lambda msg, *args, **kwargs: (
            None if is_known(msg) else upstream(msg, *args, **kwargs)
        )

    _replace(logging.MMLogger, 'filter', wrap_filter)
    _replace(logging, 'print_log', wrap_print)


def write_whole_checkpoints() -> None:
    """Let mmengine write checkpoints, and what else it writes to a disk, whole or not
    at all, and remove the old ones afterwards.

    Fault: mmengine 0.10.7 writes a file in place, so that a process that is killed,
    or a full disk, leaves a part of it under its name; and to keep
    ``max_keep_ckpts``, or the best one, it removes a checkpoint before its successor
    is written. Here a file is written beside its name, synced and renamed; links and
    what is no regular file are written through, and other backends than the local one
    stay as they are.

    For programs: :func:`~pvd_mm.engine.config.build_runner` calls it, registration
    does not. Unnecessary once mmengine does so.
    """
    from mmengine.fileio import LocalBackend
    from mmengine.hooks import CheckpointHook

    def wrap_put(upstream):
        def put(self, obj, filepath):
            if os.path.exists(filepath) and not os.path.isfile(filepath):
                return upstream(self, obj, filepath)
            return write_bytes(os.path.realpath(filepath), obj)

        return put

    def wrap_step(upstream):
        def save(self, runner, *args, **kwargs):
            number = self.max_keep_ckpts
            if number > 0:  # until it is written, none is too many
                self.max_keep_ckpts = float('inf')
                self.keep_ckpt_ids = deque(self.keep_ckpt_ids)
            try:
                upstream(self, runner, *args, **kwargs)
            finally:
                self.max_keep_ckpts = number
            while 0 < number < len(self.keep_ckpt_ids):
                name = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
                _remove(self, self.file_backend.join_path(self.out_dir, name))

        return save

    def wrap_best(upstream):
        def save(self, runner, metrics):
            if not self.save_best:
                return
            old = _best_checkpoints(self)
            _set_best_checkpoints(self, dict.fromkeys(old))
            try:
                upstream(self, runner, metrics)
            finally:
                new = _best_checkpoints(self)
                best = {key: new[key] or old.get(key) for key in new}
                _set_best_checkpoints(self, best)
            for path in set(filter(None, old.values())) - set(best.values()):
                _remove(self, path)

        return save

    _replace(LocalBackend, 'put', wrap_put)
    _replace(CheckpointHook, '_save_checkpoint_with_step', wrap_step)
    _replace(CheckpointHook, '_save_best_checkpoint', wrap_best)


def _best_checkpoints(hook) -> dict:
    """The paths that a CheckpointHook keeps, by indicator; '' is that of its only
    one."""
    paths = dict(getattr(hook, 'best_ckpt_path_dict', {}))
    return paths or {'': getattr(hook, 'best_ckpt_path', None)}


def _set_best_checkpoints(hook, paths: dict) -> None:
    if '' in paths:
        hook.best_ckpt_path = paths['']
    else:
        hook.best_ckpt_path_dict = paths


def _remove(hook, path: str) -> None:
    """Remove a checkpoint by a CheckpointHook's backend, as upstream does."""
    from mmengine.dist import is_main_process

    if is_main_process():
        if hook.file_backend.isfile(path):
            hook.file_backend.remove(path)
        elif hook.file_backend.isdir(path):
            hook.file_backend.rmtree(path)
