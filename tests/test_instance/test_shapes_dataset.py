# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The built-in shapes sample as mmdet reads it, through its config."""

import contextlib
import io

import pytest
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from helpers.commands import ROOT

pytest.importorskip('mmdet')

import torch
from mmdet.registry import DATASETS, METRICS
from mmdet.utils import register_all_modules

import pvd_mm
from pvd_mm.data.samples import SHAPES_CLASSES, make_shapes_sample, shapes_scene
from pvd_mm.instance.shapes_dataset import ShapesDataset
from pvd_mm.utils.errors import MissingDataError

CONFIG = ROOT / 'configs/_base_/datasets/shapes.py'


@pytest.fixture(scope='module')
def config(tmp_path_factory):
    """The config, on a sample in which the scenes 8 and 19 are empty."""
    register_all_modules(init_default_scope=False)
    pvd_mm.register_all_modules()
    root = str(tmp_path_factory.mktemp('shapes'))
    make_shapes_sample(root, 20, 10)
    cfg = Config.fromfile(CONFIG)
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        assert loader.dataset.data_root == 'data/shapes/'
        loader.dataset.data_root = root
    for metric in cfg.val_evaluator:
        metric.ann_file = metric.ann_file.replace('data/shapes', root)
    return cfg


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmdet')


def build(options):
    with contextlib.redirect_stdout(io.StringIO()):
        return DATASETS.build(options)


def test_classes_are_those_of_the_sample():
    assert ShapesDataset.METAINFO['classes'] == SHAPES_CLASSES
    assert len(ShapesDataset.METAINFO['palette']) == len(SHAPES_CLASSES)


@pytest.mark.parametrize('split, count', [('train', 18), ('val', 10)])
def test_reads_what_was_drawn(config, split, count):
    dataset = build(config[f'{split}_dataloader'].dataset)
    assert isinstance(dataset, ShapesDataset)
    # empty images are tested, not trained on
    assert len(dataset) == count
    seen = 0
    for sample in dataset:
        assert sample['inputs'].shape == (3, 192, 256)
        packed = sample['data_samples']
        image, objects = shapes_scene(split, (packed.img_id - 1) % 1_000_000)
        image = torch.from_numpy(image[..., ::-1].copy()).permute(2, 0, 1)
        if packed.get('flip'):
            image = image.flip(-1)
        assert torch.equal(sample['inputs'], image)
        for instances, crowd in (
            (packed.gt_instances, False),
            (packed.ignored_instances, True),
        ):
            drawn = [shape for shape in objects if shape.crowd is crowd]
            assert instances.labels.tolist() == [
                SHAPES_CLASSES.index(shape.category) for shape in drawn
            ]
            for mask, shape in zip(instances.masks.masks, drawn, strict=True):
                flipped = shape.visible[:, ::-1]
                expected = flipped if packed.get('flip') else shape.visible
                assert (mask == expected).all()
                seen += 1
    assert seen > 2 * count


def test_its_metrics_call_the_truth_perfect(config):
    dataset = build(config.val_dataloader.dataset)
    for options in config.val_evaluator:
        metric = METRICS.build(options)
        metric.dataset_meta = dataset.metainfo
        for sample in dataset:
            truth = sample['data_samples'].gt_instances
            masks = torch.from_numpy(truth.masks.masks).bool()
            prediction = InstanceData(
                bboxes=truth.bboxes.tensor
                if hasattr(truth.bboxes, 'tensor')
                else truth.bboxes,
                labels=truth.labels,
                scores=torch.ones(len(truth)),
                masks=masks,
            )
            done = sample['data_samples'].new()
            done.pred_instances = prediction
            metric.process({}, [done.to_dict()])
        with contextlib.redirect_stdout(io.StringIO()):
            figures = metric.evaluate(len(dataset))
        best = [v for k, v in figures.items() if k.endswith(('mAP', 'mAP_75'))]
        assert best and min(best) == 1, figures


def test_says_how_to_get_it(config, tmp_path):
    options = dict(config.val_dataloader.dataset, data_root=str(tmp_path))
    with pytest.raises(MissingDataError, match='make_sample.py --kind shapes'):
        build(options)
