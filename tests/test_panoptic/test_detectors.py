# Copyright (c) PVD-MM contributors. Apache-2.0.
"""One model for both tasks: one set of votes, each task alone, all results."""

import copy

import pytest
import torch
from mmengine.structures import PixelData

from helpers.small_detectors import (
    CLASSES,
    STUFF,
    batch,
    detector,
    losses,
    model_config,
    predict,
    sample,
    total,
)
from pvd_mm.apis.complexity import model_complexity
from pvd_mm.instance import FeatureMaps

PVD, BASELINE = 'pvd-panoptic_r18-fpn', 'panoptic-fpn_r18'
# PVD's has one for each decoded map
OF_LABELS = {
    PVD: {'loss_seg', *(f'loss_seg_{level}' for level in range(1, 5))},
    BASELINE: {'loss_seg'},
}

SIZE = (64, 64)
BOXES = [[4, 6, 40, 46], [30, 12, 60, 60], [2, 40, 20, 62]]


def labelled(*samples):
    """A batch with masks and labels: stuff in two halves, the masks, and void."""
    samples = samples or (sample(SIZE, BOXES), sample(SIZE, BOXES[:1]))
    for each in samples:
        labels = torch.full((1, *each.img_shape), CLASSES, dtype=torch.uint8)
        labels[..., : each.img_shape[1] // 2] += 1
        objects = each.gt_instances
        for label, mask in zip(objects.labels, objects.masks.masks):
            labels[0][torch.from_numpy(mask) > 0] = int(label)
        labels[0, :8] = 255
        each.gt_sem_seg = PixelData(sem_seg=labels)
    return batch(*samples)


def stir(model):
    """Random weights where training starts at zero."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if 'conv_votes' in name or 'fuse' in name:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.fixture(scope='module')
def shared():
    return stir(detector(PVD))


def names(model, part='association'):
    return [name for name in model.state_dict() if part in name]


def test_votes_are_regressed_once_and_used_by_both(shared, monkeypatch):
    mask, semantic = shared.roi_head.mask_head.decoder, shared.semantic_head.decoder
    calls, used = [], {}
    for decoder, name in ((mask, 'mask'), (semantic, 'semantic')):
        for step in decoder.steps:
            if step.association is not None:
                step.association.register_forward_hook(
                    lambda *args: calls.append(args[2])
                )
        decode = decoder.decode

        def note(contexts, votes, *args, decode=decode, name=name, **kwargs):
            used.setdefault(name, votes)
            return decode(contexts, votes, *args, **kwargs)

        monkeypatch.setattr(decoder, 'decode', note)
    predict(shared, labelled())
    assert len(calls) == len(mask.steps) == 6
    assert len(used['semantic']) == 4
    assert all(a is b for a, b in zip(used['semantic'], calls[-4:]))
    assert all(v.shape[0] != 2 or v is c for v, c in zip(used['mask'], calls))
    for step in mask.steps:
        step.association._forward_hooks.clear()


def test_shared_votes_are_those_that_each_head_would_regress(shared):
    """The same weights in both decoders of a model of separate votes."""
    separate = detector(PVD, shared_votes=False)
    state = shared.state_dict()
    own = copy.deepcopy(state)
    for name in names(separate, 'semantic_head.decoder'):
        if 'association' in name:
            step, rest = name.split('steps.')[1].split('.', 1)
            mask = f'roi_head.mask_head.decoder.steps.{int(step) + 2}.{rest}'
            own[name] = state[mask].clone()
            if 'conv_votes' in name:  # votes are damped by the length of the chain
                own[name] *= (4 / 6) ** 0.5
    separate.load_state_dict(own)
    data = labelled()
    for found, expected in zip(predict(shared, data), predict(separate, labelled())):
        for key in ('pred_panoptic_seg', 'pred_sem_seg'):
            assert (found.get(key).sem_seg == expected.get(key).sem_seg).all()
        assert (found.pred_instances.masks == expected.pred_instances.masks).all()
        assert len(found.pred_instances)


def test_each_parameter_is_once_in_a_checkpoint_and_gets_a_gradient(shared):
    model = copy.deepcopy(shared).train()
    assert len(names(model)) == 6 * 6
    assert not names(model.semantic_head)
    storages = [p.data_ptr() for p in model.state_dict().values() if p.numel()]
    assert len(storages) == len(set(storages))
    assert len(names(detector(PVD, shared_votes=False))) == (6 + 4) * 6
    result = losses(model, labelled())
    assert {'loss_seg', 'loss_mask', 'loss_cls'} <= set(result)
    total(result).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    other = detector(PVD, seed=3)
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        for one, two in zip(other.parameters(), model.parameters()):
            assert (one == two).all()


def test_the_task_reaches_the_votes_alone_too(shared):
    """Either loss moves them."""
    for key in ('loss_seg', 'loss_mask'):
        model = copy.deepcopy(shared).train()
        losses(model, labelled())[key].sum().backward()
        votes = [p for n, p in model.named_parameters() if 'conv_votes.weight' in n]
        moved = [p.grad is not None and bool(p.grad.any()) for p in votes]
        # labels from stride 4 on; no RoI is as large as those of C4
        assert moved == [key == 'loss_mask'] * 2 + [True] * 2 + [key == 'loss_seg'] * 2


@pytest.mark.parametrize('name', [PVD, BASELINE])
@pytest.mark.parametrize('merge', [True, False])
def test_all_results(name, merge):
    if name == BASELINE and not merge:
        return
    changes = {} if merge else {'semantic_head.merge_things': False}
    model = detector(name, **changes)
    found = predict(model, labelled())
    for each in found:
        panoptic, labels = each.pred_panoptic_seg.sem_seg, each.pred_sem_seg.sem_seg
        assert panoptic.shape == labels.shape == (1, *SIZE)
        known = panoptic % 1000 < CLASSES + STUFF
        assert (panoptic % 1000 == labels)[known].all()
        assert (labels[~known] == 255).all() and known.any()
        assert len(each.pred_instances) and each.pred_instances.masks.shape[1:] == SIZE
    # masks of too low a score are predicted, but not fused
    model.test_cfg.panoptic.score_thr = 2.0
    for each in predict(model, labelled()):
        assert (each.pred_panoptic_seg.sem_seg < 1000).all()
        assert len(each.pred_instances)


def test_merged_things_are_the_best_of_all(shared):
    """What the fusion head is told, from logits of all classes."""
    model = detector(PVD, **{'semantic_head.merge_things': False})
    data = model.data_preprocessor(labelled(), training=False)
    with torch.no_grad():
        x = model.extract_feat(data['inputs'])
        metas = [s.metainfo for s in data['data_samples']]
        logits = model.semantic_head(x)['seg_preds']
        found = model.semantic_head.predict(
            x, [dict(m, batch_input_shape=logits.shape[2:]) for m in metas]
        )
    assert logits.shape[1] == CLASSES + STUFF
    for each, all_classes in zip(found, logits):
        best, own = all_classes.argmax(0), each.argmax(0)
        assert (own == (best - CLASSES).where(best >= CLASSES, best * 0 + STUFF)).all()


def test_labels_of_the_heads(shared):
    labels = torch.tensor([[0, CLASSES - 1, CLASSES, CLASSES + 1, 255]])
    assert shared.semantic_head._own_labels(labels).tolist() == [[2, 2, 0, 1, 255]]
    separate = detector(PVD, **{'semantic_head.merge_things': False}).semantic_head
    assert separate._own_labels(labels) is labels


def without(data, *keys):
    for each in data['data_samples']:
        if 'labels' in keys:
            del each.gt_sem_seg
        if 'masks' in keys:
            for key in ('bboxes', 'labels', 'masks'):
                delattr(each.gt_instances, key)
    return data


@pytest.mark.parametrize('name', [PVD, BASELINE])
def test_masks_or_labels_alone(name):
    model = detector(name)
    both = set(losses(model, labelled()))
    masks = set(losses(model, without(labelled(), 'labels')))
    labels = set(losses(model, without(labelled(), 'masks')))
    assert labels == OF_LABELS[name] and masks == both - labels
    with pytest.raises(ValueError, match='no head has annotations'):
        losses(model, without(labelled(), 'masks', 'labels'))
    mixed = labelled()
    del mixed['data_samples'][0].gt_sem_seg
    with pytest.raises(ValueError, match='1 of 2 images of a batch have gt_sem_seg'):
        losses(model, mixed)


@pytest.mark.parametrize('name', [PVD, BASELINE])
def test_models_of_one_task(name):
    none = {'panoptic_fusion_head': None}
    heads = dict(rpn_head=None, roi_head=None)
    labels = build(name, **none, **heads)
    result = losses(labels, labelled())
    assert set(result) == OF_LABELS[name]
    found = predict(labels, labelled())[0]
    assert found.pred_sem_seg.sem_seg.min() >= CLASSES
    assert 'pred_instances' not in found and 'pred_panoptic_seg' not in found
    masks = build(name, **none, semantic_head=None)
    assert 'loss_seg' not in losses(masks, labelled())
    costs = [
        model_complexity(model, (3, 64, 96)) for model in (labels, masks, build(name))
    ]
    assert costs[0]['macs'] > 0 and costs[1]['macs'] > 0
    assert max(each['macs'] for each in costs[:2]) < costs[2]['macs']
    found = predict(masks, labelled())[0]
    assert len(found.pred_instances) and 'pred_sem_seg' not in found
    with pytest.raises(ValueError, match='needs a semantic_head, or an rpn_head and'):
        build(name, **none, **heads, semantic_head=None)
    with pytest.raises(ValueError, match='panoptic_fusion_head joins'):
        build(name, semantic_head=None)


def test_labels_alone_tell_things_apart():
    """Without a fusion head, and with a head that has a class for each."""
    parts = dict(rpn_head=None, roi_head=None, panoptic_fusion_head=None)
    head = dict(model_config(PVD).semantic_head, merge_things=False)
    model = build(PVD, **parts, semantic_head=head).eval()
    data = labelled()
    found = predict(model, data)
    with torch.no_grad():
        x = model.extract_feat(model.data_preprocessor(data)['inputs'])
        logits = model.semantic_head(x)['seg_preds']
    assert logits.size(1) == CLASSES + STUFF
    for result, each in zip(found, logits):
        height, width = result.img_shape
        full = torch.nn.functional.interpolate(
            each[None], result.batch_input_shape, mode='bilinear'
        )[..., :height, :width]
        expected = full.argmax(1)
        assert torch.equal(result.pred_sem_seg.sem_seg, expected)
    assert {int(label) for label in logits.argmax(1).unique()} & set(range(CLASSES))


def build(name, **changes):
    """The narrow model with parts taken out."""
    from mmdet.registry import MODELS

    detector(name)  # registers
    cfg = model_config(name)
    for key, value in changes.items():
        cfg[key] = value
    if 'roi_head' in changes and name == PVD:
        cfg.neck = None
    return MODELS.build(cfg)


def test_labels_alone_train_every_parameter():
    model = build(PVD, rpn_head=None, roi_head=None, panoptic_fusion_head=None)
    total(losses(model, labelled())).backward()
    unused = [n for n, p in model.named_parameters() if p.grad is None]
    # a BatchNorm that is frozen keeps none
    assert unused == []


@pytest.mark.parametrize('boxes', [[], BOXES])
@pytest.mark.parametrize('void', [True, False])
def test_images_without_things_stuff_or_any_segment(shared, boxes, void):
    model = copy.deepcopy(shared).train()
    data = labelled(sample(SIZE, boxes), sample(SIZE, boxes))
    for each in data['data_samples']:
        if void:
            each.gt_sem_seg.sem_seg[:] = 255
    result = losses(model, data)
    total(result).backward()
    assert torch.isfinite(total(result))
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    predict(model, data)


def test_what_cannot_be_shared():
    for changes, error, message in (
        ({'roi_head.mask_head.votes_from': 'roi'}, ValueError, "votes_from='roi'"),
        (
            {'semantic_head.decoder.vote_channels': 8},
            ValueError,
            'regress the same, but votes of one is',
        ),
        (
            {'semantic_head.decoder.strides': None},
            ValueError,
            'regress the same, but strides of one is',
        ),
        (
            {
                'semantic_head.decoder.upsampling': 'bilinear',
                'roi_head.mask_head.decoder.upsampling': 'bilinear',
            },
            ValueError,
            'regress the same, but votes of one is',
        ),
        ({'semantic_head.in_channels': [8, 8, 16, 32, 65]}, ValueError, 'in_channels'),
    ):
        with pytest.raises(error, match=message):
            detector(PVD, **changes)
        if 'in_channels' not in message:
            detector(PVD, shared_votes=False, **changes)


def test_heads_of_others_are_refused(shared):
    with pytest.raises(TypeError, match='must be a PVDSemanticHead, but is a Panoptic'):
        build(PVD, semantic_head=model_config(BASELINE).semantic_head)
    with pytest.raises(TypeError, match="type='PVDPanopticFPN'"):
        shared.semantic_head((torch.zeros(1, 8, 4, 4),))
    maps = [torch.zeros(1, c, 4, 4) for c in (3, 8, 16)]
    with pytest.raises(ValueError, match=r'does not fit .* which have \[3, 8, 16\]'):
        shared.semantic_head(FeatureMaps(maps, maps))
    with pytest.raises(TypeError, match='uses the votes of another one'):
        shared.semantic_head.decoder.votes([])
    cfg = model_config(PVD).semantic_head
    with pytest.raises(TypeError, match=r'write\n    decoder=dict\(.*kernel_size=5'):
        detector(PVD, semantic_head=dict(cfg, kernel_size=5))
    with pytest.raises(TypeError, match='unexpected arguments: nonsense'):
        detector(PVD, semantic_head=dict(cfg, nonsense=1))
