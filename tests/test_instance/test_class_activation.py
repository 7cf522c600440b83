# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The primary mask against the box heads whose classifier it applies."""

import mmdet.models  # noqa: F401 - registers mmdet's models
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from pvd_mm.instance import class_activation
from pvd_mm.instance.class_activation import check_box_head

CLASSES, CHANNELS = 3, 6

AVERAGED = dict(type='BBoxHead', with_avg_pool=True)
HEADS = {
    'averaged': AVERAGED,
    'two fcs': dict(type='Shared2FCBBoxHead', fc_out_channels=8),
    'two fcs, averaged': dict(
        type='Shared2FCBBoxHead', fc_out_channels=8, with_avg_pool=True
    ),
    'fcs of the classifier': dict(
        type='ConvFCBBoxHead', num_shared_fcs=1, num_cls_fcs=2, fc_out_channels=8
    ),
    'convs and a fc': dict(
        type='Shared4Conv1FCBBoxHead', fc_out_channels=8, conv_out_channels=5
    ),
    'convs of the classifier': dict(
        type='ConvFCBBoxHead', num_cls_convs=1, num_reg_convs=1, conv_out_channels=5
    ),
    'normed classifier': dict(AVERAGED, cls_predictor_cfg=dict(type='NormedLinear')),
}


def box_head(kind, **changes):
    init_default_scope('mmdet')
    torch.manual_seed(0)
    head = MODELS.build(
        dict(HEADS[kind], in_channels=CHANNELS, num_classes=CLASSES, **changes)
    )
    for parameter in head.parameters():  # biases too
        torch.nn.init.normal_(parameter, std=0.3)
    return head.double()


def rois(number=4, constant=False):
    x = torch.randn(number, CHANNELS, 7, 7, dtype=torch.double)
    return x.mean((2, 3), keepdim=True).expand_as(x) if constant else x


def test_average_of_the_map_is_the_logit_of_the_roi():
    head, x = box_head('averaged'), rois()
    logits, _ = head(x)
    mask = class_activation(head, x)
    assert mask.shape == (4, CLASSES, 7, 7)
    torch.testing.assert_close(mask.mean((2, 3)), logits[:, :CLASSES])


@pytest.mark.parametrize('kind', [k for k in HEADS if 'conv' not in k])
def test_a_constant_roi_has_its_logits_at_every_pixel(kind):
    head, x = box_head(kind), rois(constant=True)
    logits, _ = head(x)
    torch.testing.assert_close(
        class_activation(head, x), logits[:, :CLASSES, None, None].expand(-1, -1, 7, 7)
    )


@pytest.mark.parametrize('kind', [k for k in HEADS if 'conv' in k])
def test_convolutions_of_the_head_are_gone_through(kind):
    """Their padding is seen at the border; with 1×1 kernels there is none,
    and the head is one over pixels again."""
    head = box_head(kind)
    for module in head.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight.data = module.weight.data[..., 1:2, 1:2]
            module.padding = (0, 0)
    x = rois(constant=True)
    torch.testing.assert_close(
        class_activation(head, x),
        head(x)[0][:, :CLASSES, None, None].expand(-1, -1, 7, 7),
    )


@pytest.mark.parametrize('kind', HEADS)
def test_labels_choose_their_class(kind):
    head, x = box_head(kind), rois()
    labels = torch.tensor([2, 0, 1, 2])
    every = class_activation(head, x)
    chosen = class_activation(head, x, labels)
    assert chosen.shape == (4, 1, 7, 7)
    for i, label in enumerate(labels):
        assert torch.equal(chosen[i, 0], every[i, label])


@pytest.mark.parametrize('kind', HEADS)
def test_a_classifier_that_the_masks_do_not_train(kind):
    head, x = box_head(kind), rois().requires_grad_()
    class_activation(head, x).square().sum().backward()
    with_classifier, x.grad = x.grad, None
    assert head.fc_cls.weight.grad.any()
    head.zero_grad()
    fixed = class_activation(head, x, train_classifier=False)
    assert torch.equal(fixed, class_activation(head, x))
    fixed.square().sum().backward()
    assert all(p.grad is None for p in head.parameters())
    assert torch.equal(x.grad, with_classifier)


@pytest.mark.parametrize('kind', HEADS)
def test_no_roi(kind):
    head = box_head(kind)
    assert class_activation(head, rois(0)).shape == (0, CLASSES, 7, 7)
    none = torch.zeros(0, dtype=torch.long)
    assert class_activation(head, rois(0), none).shape == (0, 1, 7, 7)


def test_heads_that_are_refused():
    init_default_scope('mmdet')
    double = MODELS.build(
        dict(
            type='DoubleConvFCBBoxHead',
            num_convs=1,
            num_fcs=1,
            in_channels=8,
            num_classes=CLASSES,
        )
    )
    blind = box_head('averaged', with_cls=False)
    for head in (double, blind, torch.nn.Linear(2, 2)):
        with pytest.raises(TypeError, match=type(head).__name__) as error:
            check_box_head(head)
        assert 'Shared2FC' in str(error.value)
    for kind in HEADS:
        check_box_head(box_head(kind))
