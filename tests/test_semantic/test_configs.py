# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Every shipped config, and that methods are compared under one protocol."""

from pathlib import Path

import mmseg
import mmseg.models  # noqa: F401 - registers mmseg's models
import pytest
import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData
from mmseg.registry import DATASETS, METRICS, MODELS, TRANSFORMS
from mmseg.structures import SegDataSample

from pvd_mm.utils.shipped_configs import mim_root, shipped_configs

CONFIGS = [
    path
    for path in shipped_configs()
    if path.split('/')[0] in ('pvd', 'deeplabv3', 'fpn', 'pspnet')
]
DATASETS_OF = {
    'cityscapes-512x1024': 19,
    'camvid-360x480': 11,
    'camvid-180x240': 11,
    'camvid-240x320': 11,
    'street-192x256': 19,
}


def load(path):
    cfg = Config.fromfile(mim_root() / 'configs' / path)
    init_default_scope(cfg.default_scope)
    return cfg


@pytest.mark.parametrize(
    'name', ('deeplabv3_r50-d8', 'deeplabv3_r18-d8', 'pspnet_r50-d8')
)
def test_the_baseline_is_mmseg_s(name):
    """Model for model that of mmseg's own configs."""
    method = name.split('_')[0]
    folder = Path(mmseg.__file__).parent / f'.mim/configs/{method}'
    if not folder.is_dir():
        pytest.skip('this mmsegmentation came without its configs')
    theirs = Config.fromfile(folder / f'{name}_4xb2-80k_cityscapes-512x1024.py')
    ours = load(f'{method}/{name}_1xb4-90k_cityscapes-512x1024.py')
    assert ours.model.to_dict() == theirs.model.to_dict()


def test_the_shipped_configs():
    """What the README promises is there."""
    for dataset, schedule in (
        ('cityscapes-512x1024', '1xb4-90k'),
        ('camvid-360x480', '1xb8-8k'),
    ):
        for model in (
            'pvd/pvd_r50-block',
            'pvd/pvd_r50-stage',
            'pvd/pvd_r50-stage-w64',
            'pvd/pvd_r50-full',
            'pvd/pvd_r18-stage',
            'pvd/pvd_r18-full',
            'pvd/pvd_r101-stage',
            'deeplabv3/deeplabv3_r50-d8',
            'deeplabv3/deeplabv3_r18-d8',
        ):
            assert f'{model}_{schedule}_{dataset}.py' in CONFIGS


@pytest.mark.parametrize('path', CONFIGS)
def test_it_builds_and_trains(path):
    """Model, optimizer settings, transforms, data set class and metrics; one
    loss and its gradient on a small image."""
    cfg = load(path)
    dataset = path.rsplit('_', 1)[1].removesuffix('.py')
    classes = DATASETS_OF[dataset]
    size = tuple(int(side) for side in dataset.split('-')[1].split('x'))
    assert cfg.model.data_preprocessor.size == cfg.crop_size == size
    for loader in (cfg.train_dataloader, cfg.val_dataloader, cfg.test_dataloader):
        kind = DATASETS.get(loader.dataset.type)
        assert len(kind.METAINFO['classes']) == classes
        assert loader.dataset.data_root == cfg.data_root
        for transform in loader.dataset.pipeline:
            TRANSFORMS.build(transform)
    for metric in cfg.test_evaluator:
        METRICS.build(metric)
        assert set(metric.get('report_classes', ())) <= set(kind.METAINFO['classes'])
    assert cfg.param_scheduler[-1].end == cfg.train_cfg.max_iters
    torch.manual_seed(0)
    cfg.model.pretrained = None  # would be downloaded
    model = MODELS.build(cfg.model)
    assert model.num_classes == classes
    data = dict(
        inputs=torch.rand(2, 3, 33, 64),
        data_samples=[
            SegDataSample(
                gt_sem_seg=PixelData(data=torch.randint(0, classes, (1, 33, 64)))
            )
            for _ in '12'
        ],
    )
    losses = model(**data, mode='loss')
    # the middle of the encoder is supervised, one way or the other
    assert 'decode.loss_ce' in losses
    assert ('aux.loss_ce' in losses) != ('decode.loss_ce_2' in losses)
    loss, _ = model.parse_losses(losses)
    loss.backward()
    assert torch.isfinite(loss)


def test_methods_are_compared_under_one_protocol():
    """Data, schedule, optimizer and evaluation are equal; the model alone
    differs."""
    protocols = {}
    for path in CONFIGS:
        cfg = load(path).to_dict()
        protocol = path.split('_', 2)[2]  # schedule and data
        for key in ('model', 'norm_cfg'):
            cfg.pop(key)
        first = protocols.setdefault(protocol, (path, cfg))
        assert cfg == first[1], f'{path} differs from {first[0]}'
    assert len(protocols) == 5


def test_the_encoder_of_a_study_is_one():
    """The same weights, padding and normalisation; what is handed out differs."""
    own = ('finest_stride', 'out_indices', 'output_stride')
    encoders = [
        {k: v for k, v in load(path).model.backbone.items() if k not in own}
        for path in CONFIGS
        if 'efficientnet' in path
    ]
    assert len(encoders) == 6 and all(one == encoders[0] for one in encoders)


@pytest.mark.parametrize(
    'path',
    [
        'pvd/pvd_r50-block_1xb4-90k_cityscapes-512x1024.py',
        'pvd/pvd_r50-stage_1xb4-90k_cityscapes-512x1024.py',
        'pvd/pvd_r50-full_1xb4-90k_cityscapes-512x1024.py',
        'pvd/pvd_r18-full_1xb4-90k_cityscapes-512x1024.py',
        'pvd/pvd_r50-full_1xb8-8k_camvid-360x480.py',
        'pvd/pvd_r50-block_1xb8-8k_camvid-360x480.py',
        'pvd/pvd_r18-full-c32_1xb4-1200_camvid-180x240.py',
        'pvd/pvd_efficientnet-lite0-full_1xb4-2k_camvid-240x320.py',
        'pvd/pvd_efficientnet-lite0-full-e64_1xb4-2k_camvid-240x320.py',
    ],
)
def test_the_chain_does_not_diverge(path):
    """Random weights, the shipped optimizer at its full rate, no clipping."""
    cfg = load(path)
    torch.manual_seed(0)
    cfg.model.pretrained = None
    cfg.model.backbone.pop('init_cfg', None)
    assert 'clip_grad' not in cfg.optim_wrapper
    model = revert_sync_batchnorm(MODELS.build(cfg.model))
    model.init_weights()
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper)
    labels = (torch.arange(128) // 24).expand(1, 64, 128).contiguous()
    images = (labels - 3.0).expand(2, 3, 64, 128) + torch.randn(2, 3, 64, 128)
    samples = [SegDataSample(gt_sem_seg=PixelData(data=labels))] * 2
    history = []
    for _ in range(12):
        losses = model(images, samples, mode='loss')
        history.append(losses['decode.loss_ce'].item())
        optimizer.update_params(model.parse_losses(losses)[0])
    assert max(history[1:]) < history[0], history
    assert min(history[-3:]) < 0.8 * history[0], history
