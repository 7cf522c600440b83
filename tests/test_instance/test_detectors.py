# Copyright (c) PVD-MM contributors. Apache-2.0.
"""Whole detectors on whatever a batch may bring, alone and in two
processes."""

import copy
import pickle
import socket
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from mmdet.models.detectors import FastRCNN, TwoStageDetector
from mmdet.registry import MODELS
from mmengine.runner import turn_on_activation_checkpointing

from helpers.commands import run
from helpers.small_detectors import (
    BOXES,
    BY_SIZE,
    PVD,
    batch,
    detector,
    losses,
    model_config,
    predict,
    sample,
    total,
)
from pvd_mm.instance import EncoderMaps, FeatureMaps

SIZE = (96, 96)
BATCHES = {
    'one image': [sample(SIZE, BOXES)],
    'of different sizes': [sample((64, 128), BOXES[:1]), sample((97, 61), BOXES[:1])],
    'an image without annotations': [sample(SIZE, BOXES), sample(SIZE, [])],
    'no annotations': [sample(SIZE, []), sample(SIZE, [])],
    'crowds beside': [sample(SIZE, BOXES[1:], ignore=BOXES[:1])],
    'crowds alone': [sample(SIZE, [], ignore=BOXES[:1])],
    'on the border': [sample(SIZE, [[0, 0, 96, 96], [90, 0, 96, 96], [0, 95, 96, 96]])],
    'outside': [sample(SIZE, [[100, 100, 140, 150], [-20, -20, 10, 10]])],
    'a tiny image': [sample((33, 35), [[1, 1, 30, 30]])],
}


@pytest.fixture(
    scope='module',
    ids=lambda param: '-'.join(param),
    params=[(name, start) for name in PVD for start in ('source', 'size')],
)
def model(request):
    name, start = request.param
    return detector(name, **(BY_SIZE[name] if start == 'size' else {}))


@pytest.mark.parametrize('proposals', (True, False))
@pytest.mark.parametrize('kind', BATCHES)
def test_any_batch(model, kind, proposals):
    """Finite losses, and a gradient for every parameter: a process without
    one would keep the others waiting."""
    # a least size that no box reaches
    least = 0 if proposals else 10000
    model.train_cfg.rpn_proposal.min_bbox_size = least
    model.test_cfg.rpn.min_bbox_size = least
    model.train().zero_grad()
    result = losses(model, batch(*(s.clone() for s in BATCHES[kind])))
    loss = total(result)
    assert loss.isfinite()
    annotated = any(len(s.gt_instances) for s in BATCHES[kind])
    assert bool(result['loss_mask'] > 0) is annotated
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
    assert all(b.isfinite().all() for b in model.buffers())
    data = batch(*(s.clone() for s in BATCHES[kind]))
    for given, found in zip(data['data_samples'], predict(model, data)):
        found = found.pred_instances
        assert found.masks.shape == (len(found), *given.ori_shape)
        assert bool(len(found)) is proposals
    data = model.data_preprocessor(data, training=False)
    with torch.no_grad():
        scores, boxes, masks = model(**data, mode='tensor')[0]
    assert len(scores) == len(boxes) == len(masks)
    assert masks.shape[2:] == (56, 56) and masks.isfinite().all()


@pytest.mark.parametrize('name', PVD)
def test_masks_have_the_size_of_the_original_image(name):
    data = batch(sample((96, 80), BOXES, scale=2.0))
    found = predict(detector(name), data)[0].pred_instances
    assert found.masks.shape[1:] == (48, 40)
    assert found.bboxes[:, 2].max() <= 40


@pytest.mark.parametrize('name,encoder', [(PVD[0], 4), (PVD[1], 7)])
def test_what_the_roi_head_is_given(name, encoder):
    """mmdet's maps as in the baseline, the backbone's beside them."""
    model = detector(name)
    baseline = detector(name.removeprefix('pvd-'))
    missing, strange = baseline.load_state_dict(model.state_dict(), False)
    assert all('mask_head' in key for key in missing + strange)
    image = torch.randn(1, 3, 96, 64)
    maps = model.eval().extract_feat(image)
    assert isinstance(maps, FeatureMaps) and isinstance(model, EncoderMaps)
    assert len(maps.encoder) == encoder
    expected = baseline.eval().extract_feat(image)
    assert len(maps) == len(expected)
    for ours, theirs in zip(maps, expected):
        torch.testing.assert_close(ours, theirs)


def test_a_detector_of_one_s_own():
    """Another class, another backbone; votes between C2 and C5 alone."""

    class Mine(EncoderMaps, TwoStageDetector):
        pass

    channels = [8, 8, 24, 80]
    model = detector(
        PVD[1],
        **{
            'type': Mine,
            'backbone': dict(
                _delete_=True,
                type='MobileNetV2',
                widen_factor=0.25,
                out_indices=(1, 2, 4, 6),
            ),
            'neck.in_channels': channels,
            'roi_head.mask_head.in_channels': channels,
            'roi_head.mask_head.decoder.strides': [2, 2, 2],
            'roi_head.mask_head.finest_stride': 4,
        },
    )
    loss = total(losses(model))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is not None for p in model.roi_head.parameters())
    for given, found in zip(batch()['data_samples'], predict(model)):
        found = found.pred_instances
        assert len(found) and found.masks.shape[1:] == given.ori_shape


CHANNELS = [8, 16, 32, 64]
FPN = dict(type='FPN', in_channels=CHANNELS, out_channels=16, num_outs=5)
MAPPER = dict(type='ChannelMapper', in_channels=CHANNELS, out_channels=16, num_outs=5)


@pytest.mark.parametrize(
    'neck, number',
    [
        (MAPPER, 4),
        ([FPN, dict(type='BFP', in_channels=16, num_levels=5)], 4),
        (dict(MAPPER, in_channels=CHANNELS[1:]), 3),
        ([dict(MAPPER, in_channels=CHANNELS[1:])], 3),
    ],
)
@pytest.mark.parametrize('granularity', ('stage', 'block'))
def test_necks(neck, number, granularity):
    """The maps of the last stages, as of mmdet's own ResNet."""
    changes = {'neck': neck, 'backbone.granularity': granularity}
    if isinstance(neck, dict):
        changes['neck'] = dict(neck, _delete_=True)
    strides = [4, 8, 16, 32, 64, 128][4 - number :]
    levels = {
        'rpn_head.anchor_generator.strides': strides[:5],
        'roi_head.bbox_roi_extractor.featmap_strides': strides[:number],
    }
    if granularity == 'block':
        of_blocks = [c for c in CHANNELS for _ in range(2)]
        changes['roi_head.mask_head.in_channels'] = [3, 8, 8, *of_blocks]
        changes['roi_head.mask_head.decoder.strides'] = [2, 2, 1, *[1, 2] * 3, 1]
    model = detector(PVD[1], **changes, **levels)
    original = MODELS.build(
        dict(type='ResNet', depth=18, base_channels=8, stem_channels=8)
    )
    original.load_state_dict(model.backbone.state_dict())
    image = torch.randn(1, 3, 96, 64)
    model.eval()
    original.eval()
    with torch.no_grad():
        expected = model.neck(original(image)[-number:])
        maps = model.extract_feat(image)
    assert len(maps) == len(expected) == 5
    for ours, theirs in zip(maps, expected):
        assert torch.equal(ours, theirs)
    loss = total(losses(model.train()))
    loss.backward()
    assert loss.isfinite()


def test_a_detector_without_a_rpn():
    """Its RoI head says how many maps it takes."""

    class Mine(EncoderMaps, FastRCNN):
        pass

    cfg = model_config(PVD[0], type=Mine)
    for key in ('rpn', 'rpn_proposal'):
        cfg.train_cfg.pop(key)
    cfg.pop('rpn_head')
    model = MODELS.build(cfg)
    maps = model.extract_feat(torch.randn(1, 3, 64, 64))
    assert [tuple(z.shape) for z in maps] == [(1, 32, 4, 4)]
    assert [z.size(1) for z in maps.encoder] == [8, 8, 16, 32]


def test_feature_maps_are_copied_and_pickled():
    """With the backbone's maps, and what is one tensor stays one."""
    z = torch.randn(1, 3, 4, 4)
    maps = FeatureMaps([z], [z, z + 1])
    for again in (
        copy.copy(maps),
        copy.deepcopy(maps),
        pickle.loads(pickle.dumps(maps)),
        pickle.loads(pickle.dumps(maps, 2)),
    ):
        assert type(again) is FeatureMaps
        assert len(again) == 1 and len(again.encoder) == 2
        assert torch.equal(again[0], z) and torch.equal(again.encoder[1], z + 1)
        assert again[0] is again.encoder[0]
    assert copy.deepcopy(maps)[0] is not z


@pytest.mark.parametrize('name', PVD)
def test_channels_last(name):
    """Another layout in memory, the same numbers."""
    model = detector(name)
    expected = predict(model, batch(sample(SIZE, BOXES)))[0].pred_instances
    model = model.to(memory_format=torch.channels_last)
    found = predict(model, batch(sample(SIZE, BOXES)))[0].pred_instances
    torch.testing.assert_close(found.bboxes, expected.bboxes, atol=1e-3, rtol=0)
    assert (found.masks != expected.masks).float().mean() < 1e-3


@pytest.mark.parametrize('name', PVD)
def test_whole_detectors_are_copied_and_pickled(name):
    model = detector(name)
    data = batch(sample(SIZE, BOXES))
    expected = predict(model, copy.deepcopy(data))[0].pred_instances
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        found = predict(again, copy.deepcopy(data))[0].pred_instances
        assert torch.equal(found.bboxes, expected.bboxes)
        assert torch.equal(found.masks, expected.masks)


@pytest.mark.parametrize(
    'part', ['roi_head.mask_head', 'roi_head.mask_head.decoder', 'backbone', 'neck']
)
def test_checkpointed_parts_are_trained(part):
    """mmengine's ``activation_checkpointing`` changes no loss and no gradient."""
    gradients = []
    for checkpointed in (False, True):
        model = detector(PVD[1])
        for step in model.roi_head.mask_head.decoder.steps:
            torch.nn.init.normal_(step.association.conv_votes.weight)
        if checkpointed:
            turn_on_activation_checkpointing(model, part)
        torch.manual_seed(0)
        total(losses(model, batch(sample(SIZE, BOXES)))).backward()
        gradients.append({n: p.grad for n, p in model.named_parameters()})
    torch.testing.assert_close(*gradients)


def worker(rank, port):
    """Some steps of training; there is nothing in the images of the second
    process, nor in anyone's at the second step."""
    import torch.distributed as dist
    from mmengine.model import MMDistributedDataParallel
    from mmengine.optim import OptimWrapper

    dist.init_process_group(
        'gloo', init_method=f'tcp://127.0.0.1:{port}', rank=rank, world_size=2
    )
    for name in PVD:
        model = MMDistributedDataParallel(detector(name), find_unused_parameters=False)
        optimizer = OptimWrapper(torch.optim.SGD(model.parameters(), lr=0.01))
        found = []
        for step in range(3):
            empty = rank == 1 or step == 1
            result = model.train_step(
                batch(sample(SIZE, [] if empty else BOXES)), optimizer
            )
            found.append(result['loss_mask'].item() > 0)
        for parameter in model.parameters():
            both = [torch.empty_like(parameter) for _ in range(2)]
            dist.all_gather(both, parameter.detach())
            assert torch.equal(*both)
        print(f'{name} has masks: {found}')


def test_two_processes_one_of_them_without_a_positive():
    """Neither waits for the other, and their weights stay the same."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = probe.getsockname()[1]
    with ThreadPoolExecutor() as pool:
        done = [
            pool.submit(
                run, sys.executable, __file__, rank, port, PYTHONPATH=':'.join(sys.path)
            )
            for rank in (0, 1)
        ]
        outs = [future.result() for future in done]
    for name in PVD:
        assert f'{name} has masks: [True, False, True]' in outs[0]
        assert f'{name} has masks: [False, False, False]' in outs[1]


if __name__ == '__main__':
    worker(int(sys.argv[1]), int(sys.argv[2]))


@pytest.mark.parametrize('name', PVD)
def test_mmengines_complexity_analysis(name):
    """As mmdet's get_flops.py asks it; torch's own counter is the oracle."""
    from mmengine.analysis import FlopAnalyzer, get_model_complexity_info
    from torch.utils.flop_counter import FlopCounterMode

    model = detector(name).eval()
    data = model.data_preprocessor(batch(sample((64, 96), BOXES[:1])))
    model.forward = partial(model.forward, data_samples=data['data_samples'])
    options = dict(inputs=data['inputs'], show_table=False, show_arch=False)
    assert get_model_complexity_info(model, None, **options)['flops'] > 0
    found = FlopAnalyzer(model, data['inputs']).by_operator()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(data['inputs'])
    expected = {
        str(op).split('.')[-1]: flops // 2
        for op, flops in counter.get_flop_counts()['Global'].items()
    }
    # a trace has no 1×1 convolutions as products, and leaves out the contexts of
    # levels at which no RoI starts
    products = sum(expected[op] for op in ('convolution', 'bmm', 'baddbmm'))
    assert found['conv'] + found['matmul'] == pytest.approx(products, rel=0.01)
    assert found['dynamic_deconv2d'] == expected['dynamic_deconv2d']
