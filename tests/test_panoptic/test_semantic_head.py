# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The semantic head by itself: context on top, losses of the coarser maps."""

import mmdet.models  # noqa: F401 - registers mmdet's models
import pytest
import torch
import torch.nn.functional as F
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import PixelData

from pvd_mm.instance import FeatureMaps
from pvd_mm.panoptic import PVDSemanticHead

CHANNELS = [4, 5, 6]
THINGS, STUFF = 2, 3


@pytest.fixture(autouse=True)
def _scope():
    torch.manual_seed(0)
    init_default_scope('mmdet')


def head(**kwargs):
    own = PVDSemanticHead(
        CHANNELS,
        num_things_classes=THINGS,
        num_stuff_classes=STUFF,
        decoder=dict(vote_channels=3),
        **kwargs,
    )
    for parameter in own.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return own


@pytest.fixture
def maps():
    sides = 16, 8, 4
    encoder = [torch.randn(2, c, n, n) for c, n in zip(CHANNELS, sides)]
    return FeatureMaps(encoder[-1:], encoder)


@pytest.fixture
def samples():
    labels = torch.randint(0, THINGS + STUFF, (2, 1, 32, 32), dtype=torch.uint8)
    labels[:, :, :4] = 255
    return [DetDataSample(gt_sem_seg=PixelData(sem_seg=own)) for own in labels]


def test_context_is_what_the_top_is_made_of(maps):
    model = head(context_channels=8)
    assert model.conv_logits.in_channels == 8
    top = model.conv_logits(model.pyramid(maps.encoder[-1]))
    expected = model.decoder(maps.encoder, top)[0]
    torch.testing.assert_close(model(maps)['seg_preds'], expected)


@pytest.mark.parametrize('merge', (True, False))
def test_losses_of_all_maps(maps, samples, merge):
    model = head(coarse_loss_weight=0.25, merge_things=merge)
    found = model.loss(maps, samples)
    assert list(found) == ['loss_seg', 'loss_seg_1', 'loss_seg_2']
    labels = torch.stack([s.gt_sem_seg.sem_seg for s in samples]).squeeze(1).long()
    if merge:  # stuff first, then all things as one
        own = [STUFF] * THINGS + list(range(STUFF))
        table = torch.tensor(own + [255] * (256 - len(own)))
        labels = table[labels]
    decoded = model.decoder(maps.encoder, model.conv_logits(maps.encoder[-1]))
    for y, stride, weight, loss in zip(
        decoded, (2, 4, 8), (1, 0.25, 0.25), found.values(), strict=True
    ):
        own = labels[:, ::stride, ::stride]
        # mmdet's loss is the mean over all pixels, void ones included
        sums = F.cross_entropy(y, own, ignore_index=255, reduction='sum')
        torch.testing.assert_close(loss, weight * sums / own.numel())
    plain = head(merge_things=merge)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(
        plain.loss(maps, samples), {'loss_seg': found['loss_seg']}
    )


@pytest.mark.parametrize(
    'options, words',
    (
        (dict(context_channels=0), 'context_channels .* 0'),
        (dict(coarse_loss_weight=-1), 'coarse_loss_weight .* -1'),
    ),
)
def test_what_is_refused(options, words):
    with pytest.raises(ValueError, match=words):
        head(**options)
