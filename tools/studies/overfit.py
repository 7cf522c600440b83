# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The sanity check of an instance head: can it learn eight images by heart?"""

import json
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from pvd_mm.engine.checkpoint import is_readable
from pvd_mm.engine.config import adapt_to_cpu, add_hooks, build_runner, load_config
from pvd_mm.utils.config_types import dataset_configs, type_name
from pvd_mm.utils.errors import MissingDataError
from pvd_mm.utils.files import make_folder
from pvd_mm.utils.markdown import markdown_table

from .training_log import read_log

# Neither tiny nor crowded: what is small at a few hundred pixels a side is lost.
_MIN_AREA = 1500
_MAX_OBJECTS = 6


def choose_images(annotations: dict, number: int) -> dict:
    """The first images of a COCO file that have objects, at most 6, none a
    crowd and none below 1500 pixels, and their annotations.

    Raises:
        MissingDataError: If there are fewer than ``number``.
    """
    objects = {}
    for annotation in annotations['annotations']:
        objects.setdefault(annotation['image_id'], []).append(annotation)

    def fits(image: dict) -> bool:
        own = objects.get(image['id'], [])
        return 0 < len(own) <= _MAX_OBJECTS and all(
            annotation['area'] >= _MIN_AREA and not annotation['iscrowd']
            for annotation in own
        )

    images = sorted(filter(fits, annotations['images']), key=lambda image: image['id'])[
        :number
    ]
    if len(images) < number:
        raise MissingDataError(
            f'overfit: {number} images are wanted, but only {len(images)} '
            f'have 1 to {_MAX_OBJECTS} objects, none a crowd and none below '
            f'{_MIN_AREA} pixels.'
        )
    ids = {image['id'] for image in images}
    return dict(
        annotations,
        images=images,
        annotations=[
            annotation
            for annotation in annotations['annotations']
            if annotation['image_id'] in ids
        ],
    )


def overfit_config(
    cfg: Config,
    data_root: str,
    ann_file: str,
    iters: int,
    interval: int,
    scale: tuple[int, int],
    batch_size: int,
    rois: int,
) -> Config:
    """Make a COCO config learn the images of ``ann_file`` by heart: from
    scratch, no augmentation, few RoIs, tested on what it is trained on."""
    for part in ('train', 'val', 'test'):
        loader = cfg[f'{part}_dataloader']
        loader.update(num_workers=0, persistent_workers=False)
        dataset = next(dataset_configs(loader.dataset))
        loader.dataset = dataset
        dataset.update(
            data_root=data_root, ann_file=ann_file, data_prefix=dict(img='train2017/')
        )
        for transform in dataset.pipeline:
            if type_name(transform) == 'Resize':
                transform.scale = scale
            if type_name(transform) == 'RandomFlip':
                transform.prob = 0.0
    cfg.train_dataloader.batch_size = batch_size
    cfg.train_dataloader.sampler = dict(type='InfiniteSampler', shuffle=True)
    cfg.train_dataloader.pop('batch_sampler', None)
    cfg.val_evaluator = cfg.test_evaluator = [
        dict(type='CocoMetric', ann_file=ann_file, metric=['bbox', 'segm'])
    ]
    cfg.train_cfg = dict(
        type='IterBasedTrainLoop', max_iters=iters, val_interval=interval
    )
    cfg.optim_wrapper = dict(
        type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.01)
    )
    warm_up = max(1, min(50, iters // 10))
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.01, end=warm_up, by_epoch=False),
        dict(
            type='PolyLR',
            eta_min=1e-6,
            power=0.9,
            begin=warm_up,
            end=iters,
            by_epoch=False,
        ),
    ]
    cfg.log_processor = dict(by_epoch=False)
    cfg.default_hooks.checkpoint = dict(
        type='CheckpointHook', by_epoch=False, interval=iters
    )
    cfg.default_hooks.logger.update(interval=10, log_metric_by_epoch=False)
    cfg.randomness = dict(seed=0)
    # mmengine gives out one visualizer, and one log folder, per name
    cfg.visualizer.name = cfg.work_dir
    model = cfg.model
    model.backbone.update(init_cfg=None, frozen_stages=-1, norm_eval=False)
    if 'norm_eval' in model.roi_head.get('shared_head', ()):
        model.roi_head.shared_head.norm_eval = False
    model.train_cfg.rpn_proposal.update(nms_pre=1000, max_per_img=200)
    model.train_cfg.rcnn.sampler.num = rois
    model.test_cfg.rpn.update(nms_pre=500, max_per_img=100)
    return cfg


def curve(work_dir: str, key: str = 'coco/segm_mAP') -> list[tuple[int, float]]:
    """(iteration, value) of a metric in a work directory's log; 0 where a test
    has detected nothing, which mmdet reports by leaving the metric out."""
    _, validation = read_log(work_dir)
    return [(step, validation[step].get(key, 0.0)) for step in sorted(validation)]


def overfit(
    configs: Sequence[str],
    out_dir: str,
    data_root: str,
    images: int = 8,
    iters: int = 500,
    interval: int = 50,
    scale: tuple[int, int] = (256, 256),
    batch_size: int = 2,
    rois: int = 16,
) -> list[dict]:
    """Train every config on a few images and test it on the same.

    A config that has its last checkpoint in ``out_dir`` is not trained again.

    Args:
        configs (Sequence[str]): COCO configs of detectors with masks.
        out_dir (str): Where the work directories go.
        data_root (str): COCO 2017 in its official layout.
        images (int): How many images. Defaults to 8.
        iters (int): Steps. Defaults to 500.
        interval (int): Steps between tests. Defaults to 50.
        scale (tuple[int, int]): As mmdet's ``Resize``. Defaults to
            (256, 256).
        batch_size (int): Images of a step. Defaults to 2.
        rois (int): RoIs of an image. Defaults to 16.

    Returns:
        list[dict]: ``config`` and ``curve``, (iteration, mask AP).

    Raises:
        MissingDataError: If the annotations are missing or have too few
            images that are fit for it.
        UsageError: If a config does not exist.
    """
    source = Path(data_root) / 'annotations/instances_train2017.json'
    if not source.is_file():
        raise MissingDataError(f'overfit: {source} does not exist.')
    out = make_folder(out_dir).resolve()
    chosen = choose_images(json.loads(source.read_text()), images)
    ann_file = out / f'first_{images}.json'
    ann_file.write_text(json.dumps(chosen))
    results = []
    for config in configs:
        name = Path(config).stem
        work_dir = out / name
        if not is_readable(work_dir / f'iter_{iters}.pth'):
            cfg = overfit_config(
                load_config(config, str(work_dir)),
                str(Path(data_root).resolve()),
                str(ann_file),
                iters,
                interval,
                scale,
                batch_size,
                rois,
            )
            add_hooks(cfg)
            adapt_to_cpu(cfg)
            build_runner(cfg).train()
        results.append(dict(config=name, curve=curve(str(work_dir))))
    return results


def markdown(results: Sequence[dict], goal: float = 0.6) -> str:
    """A row per config: the step that reaches ``goal``, and every value."""
    steps = [step for step, _ in results[0]['curve']]
    head = ['config', f'AP {goal} at step', *map(str, steps)]
    rows = []
    for result in results:
        reached = [step for step, value in result['curve'] if value >= goal]
        values = dict(result['curve'])
        rows.append(
            [
                result['config'],
                str(reached[0]) if reached else 'not reached',
                *(f'{values[s]:.3f}' if s in values else '-' for s in steps),
            ]
        )
    return markdown_table(head, rows)


def plot(results: Sequence[dict], path: str, goal: float = 0.6) -> None:
    """Draw the curves."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=110)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for result in results:
        points = zip(*result['curve'], strict=True)
        axes.plot(*points, marker='o', label=result['config'])
    axes.axhline(goal, color='0.6', linestyle='--', linewidth=1)
    axes.set_xlabel('step')
    axes.set_ylabel('mask AP on the training images')
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    figure.tight_layout()
    figure.savefig(path)
