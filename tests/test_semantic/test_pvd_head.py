# Copyright (c) PVD-MM contributors. Apache-2.0.
"""The head on mmseg's contracts, in real segmentors."""

import copy

import mmseg.models  # noqa: F401 - registers mmseg's models
import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.registry import init_default_scope
from mmengine.runner import turn_on_activation_checkpointing
from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from helpers.commands import ROOT
from pvd_mm.decoder import PixelVotingDecoder
from pvd_mm.semantic import PVDHead

CLASSES = 5


@pytest.fixture(autouse=True)
def _scope():
    torch.manual_seed(0)
    init_default_scope('mmseg')


def segmentor(backbone=None, head=None, test_cfg=None, **kwargs):
    """A small PVD segmentor; its maps have 8, 8, 16, 32 and 64 channels."""
    cfg = ConfigDict(
        type='EncoderDecoder',
        data_preprocessor=dict(
            type='SegDataPreProcessor',
            mean=[0.0] * 3,
            std=[255.0] * 3,
            pad_val=0,
            seg_pad_val=255,
            size=(64, 96),
        ),
        backbone={
            **dict(
                type='PVDResNet',
                depth=18,
                base_channels=8,
                stem_channels=8,
                norm_cfg=dict(type='SyncBN'),
            ),
            **(backbone or {}),
        },
        decode_head={
            **dict(
                type='PVDHead',
                in_channels=[8, 8, 16, 32, 64],
                num_classes=CLASSES,
                norm_cfg=dict(type='SyncBN'),
            ),
            **(head or {}),
        },
        train_cfg=dict(),
        test_cfg=test_cfg or dict(mode='whole'),
        **kwargs,
    )
    model = MODELS.build(copy.deepcopy(cfg))
    model.init_weights()
    return model


def batch(size=(64, 96), number=2):
    samples = []
    for _ in range(number):
        sample = SegDataSample()
        labels = torch.randint(0, CLASSES, (1, *size))
        labels[:, :4] = 255
        sample.gt_sem_seg = PixelData(data=labels)
        sample.set_metainfo(
            dict(
                img_shape=size,
                ori_shape=size,
                pad_shape=size,
                img_path='x.png',
                flip=False,
            )
        )
        samples.append(sample)
    return dict(
        inputs=[torch.randint(0, 255, (3, *size)).byte() for _ in range(number)],
        data_samples=samples,
    )


def losses(model, data=None):
    data = model.data_preprocessor(data or batch(), training=True)
    return model(**data, mode='loss')


def predict(model, data):
    with torch.no_grad():
        return model.eval().test_step(data)


@pytest.mark.parametrize(
    'backbone,head',
    [
        (dict(), dict()),
        (dict(), dict(decoder=dict(formulation='factored', vote_norm='softmax'))),
        (dict(), dict(decoder=dict(vote_channels=4, kernel_size=5))),
        (dict(), dict(channels=6, decoder=dict(groups=3))),
        (dict(), dict(decoder=dict(vote_conv_size=3, fuse_conv_size=3))),
        (dict(), dict(decoder=dict(fuse_channels=6))),
        (dict(), dict(context_channels=8)),
        (dict(), dict(context_channels=8, channels=6)),
        (dict(), dict(decoder=dict(upsampling='bilinear'))),
        (dict(), dict(decoder=dict(upsampling='carafe'))),
        (dict(), dict(decoder=dict(upsampling='dysample'))),
        (dict(), dict(decoder=dict(groups=CLASSES, vote_norm='tanh'))),
        (
            dict(granularity='block'),
            dict(in_channels=[8] * 3 + [16] * 2 + [32] * 2 + [64] * 2),
        ),
        (dict(depth=50), dict(in_channels=[8, 32, 64, 128, 256])),
        (
            dict(),
            dict(
                in_channels=[8, 16, 64],
                in_index=[1, 2, -1],
                decoder=dict(strides=[2, 4], kernel_size=5),
            ),
        ),
    ],
)
def test_losses_gradients_and_prediction(backbone, head):
    model = segmentor(backbone, head)
    result = losses(model)
    assert set(result) == {'decode.loss_ce', 'decode.acc_seg'}
    assert torch.isfinite(result['decode.loss_ce'])
    result['decode.loss_ce'].backward()
    # votes start at zero weights, so the convolutions before them wait for
    # one step; all else has its gradient at once
    for name, parameter in model.decode_head.named_parameters():
        assert parameter.grad is not None, name
        waits = any(part in name for part in ('.conv_in.', '.conv_out.', '.compress.'))
        assert waits or parameter.grad.any(), name
    outcome = predict(model, batch((50, 70)))
    for sample in outcome:
        assert sample.pred_sem_seg.data.shape == (1, 50, 70)
        assert sample.seg_logits.data.shape == (CLASSES, 50, 70)


@pytest.mark.parametrize('finest_stride,channels', [(4, []), (2, [8]), (1, [3, 8])])
def test_resolution_of_the_logits(finest_stride, channels):
    """1/4, and 1/2 and 1/1 through the stem's own steps."""
    model = segmentor(
        dict(finest_stride=finest_stride),
        dict(in_channels=[*channels, 8, 8, 16, 32, 64]),
    )
    logits = model(torch.rand(1, 3, 61, 90), mode='tensor')
    assert logits.shape == (
        1,
        CLASSES,
        -(-61 // finest_stride),
        -(-90 // finest_stride),
    )
    losses(model)['decode.loss_ce'].backward()


def test_any_pyramid_of_mmseg():
    """A backbone that knows nothing of PVD."""
    model = segmentor(head=dict(in_channels=[16, 24, 32, 96, 320]))
    model.backbone = MODELS.build(dict(type='MobileNetV2', out_indices=(0, 1, 2, 4, 6)))
    assert losses(model)['decode.loss_ce'] > 0


def test_auxiliary_head_and_several_losses():
    model = segmentor(
        head=dict(
            loss_decode=[
                dict(type='CrossEntropyLoss', loss_name='loss_ce'),
                dict(type='DiceLoss', loss_name='loss_dice'),
            ]
        ),
        auxiliary_head=dict(
            type='FCNHead',
            in_channels=32,
            in_index=-2,
            channels=8,
            num_convs=1,
            concat_input=False,
            num_classes=CLASSES,
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=0.4),
        ),
    )
    result = losses(model)
    assert {'decode.loss_ce', 'decode.loss_dice', 'aux.loss_ce'} <= set(result)


def test_sampler_and_ignore_index():
    model = segmentor(
        head=dict(sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100))
    )
    assert losses(model)['decode.loss_ce'] > 0
    # what is ignored has no gradient
    data = batch()
    for sample in data['data_samples']:
        sample.gt_sem_seg.data[:] = 255
    model = segmentor()
    result = losses(model, data)
    assert result['decode.loss_ce'] == 0
    other = segmentor(head=dict(ignore_index=0))
    assert other.decode_head.ignore_index == 0


def test_binary_segmentation():
    model = segmentor(
        head=dict(
            num_classes=2,
            out_channels=1,
            threshold=0.5,
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
        )
    )
    data = batch()
    for sample in data['data_samples']:
        sample.gt_sem_seg.data %= 2
    assert losses(model, data)['decode.loss_ce'] > 0
    (sample,) = predict(model, batch(number=1))
    assert sample.seg_logits.data.shape == (1, 64, 96)
    assert set(sample.pred_sem_seg.data.unique().tolist()) <= {0, 1}


def test_accuracy_of_binary_segmentation():
    """Of what is predicted: 100 % of a perfect prediction."""
    head = segmentor(
        head=dict(
            num_classes=2,
            out_channels=1,
            threshold=0.7,
            loss_decode=dict(type='CrossEntropyLoss', use_sigmoid=True),
        )
    ).decode_head
    samples = batch()['data_samples']
    for sample in samples:
        sample.gt_sem_seg.data[sample.gt_sem_seg.data < 255] %= 2
    labels = torch.stack([s.gt_sem_seg.data for s in samples])
    # probabilities of 0.73 and 0.62, on both sides of the threshold
    logits = torch.where(labels == 1, 1.0, 0.5)
    assert head.loss_by_feat(logits, samples)['acc_seg'] == 100
    known = labels != 255
    share = 100 * (labels[known] == 0).float().mean()
    result = head.loss_by_feat(torch.full_like(logits, 0.5), samples)['acc_seg']
    torch.testing.assert_close(result, share[None])


@pytest.mark.parametrize('side', range(32, 352, 16))
def test_a_pyramid_that_rounds_down(side):
    """As ViTs have it: what UPerHead takes, at every size."""
    model = segmentor(head=dict(in_channels=[8] * 4))
    model.neck = MODELS.build(
        dict(type='Feature2Pyramid', embed_dim=8, norm_cfg=dict(type='BN'))
    )
    model.backbone = torch.nn.Conv2d(3, 8, 16, 16)
    head = model.decode_head
    maps = model.neck([model.backbone(torch.randn(2, 3, side, side))] * 4)
    assert head.decoder.strides_of(maps) == [2, 2, 2]
    for step in head.decoder.steps:
        step.fuse.weight.data.zero_()
    top = torch.ones(2, CLASSES, *maps[3].shape[2:])
    decoded = head.decoder(maps, top)[0]
    assert decoded.shape[2:] == maps[0].shape[2:] == (side // 4,) * 2
    # the rows and columns beyond the coarsest map's are not lost
    assert decoded.min() >= 0.25**3


@pytest.mark.parametrize(
    'part', ['decode_head', 'decode_head.decoder', 'backbone', 'backbone.layer1']
)
def test_checkpointed_parts_are_trained(part):
    """mmengine's ``activation_checkpointing`` changes no loss and no gradient."""
    results = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        model = segmentor().double()
        for step in model.decode_head.decoder.steps:
            torch.nn.init.normal_(step.association.conv_votes.weight)
        if checkpointed:
            turn_on_activation_checkpointing(model, part)
        data = model.data_preprocessor(batch(), training=True)
        data['inputs'] = data['inputs'].double()
        loss = model(**data, mode='loss')['decode.loss_ce']
        loss.backward()
        results.append([loss, {n: p.grad for n, p in model.named_parameters()}])
    torch.testing.assert_close(*results)
    for name, gradient in results[1][1].items():
        assert 'conv_votes' not in name or gradient.any(), name


def test_a_copy_of_a_checkpointed_model_is_its_own():
    """As mmengine's EMA hook makes: it must not run the weights of the other."""
    model = segmentor()
    turn_on_activation_checkpointing(model, 'decode_head.decoder')
    average = copy.deepcopy(model)
    for parameter in average.decode_head.decoder.parameters():
        parameter.data.add_(1)
    data = model.data_preprocessor(batch(), training=False)
    plain = segmentor()
    plain.load_state_dict(average.state_dict())
    for one in (model, average, plain):
        one.eval()
    with torch.no_grad():
        found = average(**data, mode='tensor')
        torch.testing.assert_close(found, plain(**data, mode='tensor'))
        assert not torch.allclose(found, model(**data, mode='tensor'))


def test_slide_inference():
    model = segmentor(test_cfg=dict(mode='slide', crop_size=(64, 64), stride=(40, 40)))
    (sample,) = predict(model, batch((100, 130), 1))
    assert sample.pred_sem_seg.data.shape == (1, 100, 130)


def test_test_time_augmentation():
    model = segmentor()
    tta = MODELS.build(dict(type='SegTTAModel', module=model)).eval()
    plain = batch((64, 96), 1)
    flipped = copy.deepcopy(plain)
    flipped['inputs'][0] = flipped['inputs'][0].flip(-1)
    flipped['data_samples'][0].set_metainfo(
        dict(flip=True, flip_direction='horizontal')
    )
    both = {key: [plain[key], flipped[key]] for key in plain}
    with torch.no_grad():
        (result,) = tta.test_step(both)
        probability = torch.zeros(CLASSES, 64, 96)
        for data in (plain, flipped):
            (sample,) = model.test_step(copy.deepcopy(data))
            probability += sample.seg_logits.data.softmax(0)
    assert torch.equal(result.pred_sem_seg.data[0], probability.argmax(0))


def test_it_learns():
    """A few steps on one batch: the loss falls and what it predicts is not
    one class, for the paper's chain of blocks as for the stages."""
    for granularity, channels in (
        ('stage', [8, 8, 16, 32, 64]),
        ('block', [8] * 3 + [16] * 2 + [32] * 2 + [64] * 2),
    ):
        model = segmentor(
            dict(granularity=granularity), dict(in_channels=channels, dropout_ratio=0)
        )
        data = batch()
        for sample in data['data_samples']:  # vertical stripes
            labels = torch.arange(96) // 20
            sample.gt_sem_seg.data[:] = labels
            sample.gt_sem_seg.data = sample.gt_sem_seg.data.contiguous()
        inputs = [
            (sample.gt_sem_seg.data * 50).expand(3, -1, -1).byte()
            for sample in data['data_samples']
        ]
        data['inputs'] = inputs
        optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
        history = []
        model.train()
        for _ in range(25):
            loss = losses(model, copy.deepcopy(data))['decode.loss_ce']
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            history.append(loss.item())
        assert history[-1] < 0.5 * history[0], history
        data['inputs'] = inputs
        found = predict(model, data)[0].pred_sem_seg.data
        assert len(found.unique()) > 1


@pytest.mark.parametrize(
    'head,error,message',
    [
        (dict(in_channels=64), TypeError, 'in_channels must list'),
        (dict(in_channels=[64]), ValueError, 'at least two maps'),
        (
            dict(decoder=dict(strides=[2])),
            ValueError,
            'one entry for each of the 4 steps',
        ),
        (
            dict(decoder=dict(groups=2)),
            ValueError,
            'groups must divide the 5 decoded channels',
        ),
        (dict(decoder=dict(vote_norm='x')), ValueError, 'vote_norm must be one of'),
        (dict(decoder=dict(backend='x')), ValueError, 'backend must be one of'),
    ],
)
def test_bad_arguments(head, error, message):
    with pytest.raises(error, match=message):
        segmentor(head=head)


def test_an_old_config_is_told_the_new_one():
    """In a model's config, together with overrides of the new form."""
    head = dict(vote_channels=4, strides=[1, 2, 2, 2], decoder=dict(groups=5))
    with pytest.raises(TypeError) as error:
        segmentor(head=head)
    assert str(error.value) == (
        'PVDHead takes the arguments of its decoder in one dict. In place of\n'
        '    vote_channels=4, strides=[1, 2, 2, 2]\n'
        'write\n'
        '    decoder=dict(groups=5, vote_channels=4, strides=[1, 2, 2, 2])'
    )
    with pytest.raises(TypeError, match="unexpected keyword argument 'vote_width'"):
        segmentor(head=dict(vote_width=4))


def test_normalisation_of_the_decoder():
    """The head's, unless the decoder has its own."""
    for decoder, kind in (({}, 'SyncBatchNorm'), (dict(norm_cfg=None), 'NoneType')):
        head = segmentor(head=dict(decoder=decoder)).decode_head
        assert type(head.decoder.steps[0].association.conv_in.norm).__name__ == kind


def test_a_decoder_of_ones_own():
    @MODELS.register_module(force=True)
    class FrozenVotes(PixelVotingDecoder):
        def votes(self, maps, first=0):
            return [votes.detach() for votes in super().votes(maps, first)]

    model = segmentor(head=dict(decoder=dict(type='FrozenVotes', vote_channels=4)))
    losses(model)['decode.loss_ce'].backward()
    step = model.decode_head.decoder.steps[0]
    assert step.association.conv_votes.weight.shape[:2] == (9, 8)
    assert step.association.conv_votes.weight.grad is None
    assert step.fuse.weight.grad.any()


def test_a_checkpoint_of_before_the_decoder_had_a_dict():
    """Written by PVDHead with these arguments, with random weights in all."""
    old = torch.load(ROOT / 'tests/data/pvd_head.pth')
    head = PVDHead(
        [3, 4, 6, 8],
        num_classes=5,
        context_channels=8,
        decoder=dict(
            strides=[2, 1, 2],
            kernel_size=[5, 3, 3],
            groups=5,
            vote_channels=[2, 3, 3],
            vote_norm='tanh',
            vote_conv_size=3,
            vote_gain=2.0,
            fuse_conv_size=[1, 3, 3],
            fuse_channels=[None, 4, None],
        ),
        norm_cfg=dict(type='BN'),
    )
    head.load_state_dict(old['state_dict'])
    generator = torch.Generator().manual_seed(old['seed'])
    sizes = (11, 14), (6, 7), (6, 7), (3, 4)
    maps = [
        torch.randn(2, channels, *size, generator=generator)
        for channels, size in zip(head.in_channels, sizes)
    ]
    with torch.no_grad():
        torch.testing.assert_close(head.eval()(maps), old['output'])


@pytest.mark.parametrize(
    'head,message',
    [
        (
            dict(in_channels=[8, 16, 32, 64]),
            r'in_channels=\[8, 16, 32, 64\].*maps have \[8, 8, 16, 32, 64\]',
        ),
        (dict(in_channels=[8, 8, 16, 32, 60]), r'does not fit the backbone'),
        (dict(in_channels=[8, 9], in_index=[0, 7]), r'in_index=\[0, 7\]'),
        (dict(decoder=dict(strides=[1, 2, 2, 1])), r'does not fit strides\[3\]=1'),
    ],
)
def test_head_that_does_not_fit_the_backbone(head, message):
    with pytest.raises(ValueError, match=message):
        segmentor(head=head)(torch.rand(1, 3, 64, 64), mode='tensor')


@pytest.mark.parametrize('head', [dict(), dict(channels=6)])
def test_coarse_losses(head):
    """Every coarser map against the labels of its own pixels."""
    model = segmentor(head=dict(coarse_loss_weight=0.5, **head))
    data = model.data_preprocessor(batch(), training=True)
    result = model(**data, mode='loss')
    names = {f'decode.loss_ce_{level}' for level in range(1, 5)}
    assert set(result) == {'decode.loss_ce', 'decode.acc_seg', *names}
    # the top, by hand: stride 32 of 64×96
    maps = model.backbone(data['inputs'])
    top = maps[-1]
    decode = model.decode_head
    if head:
        logits = decode.conv_seg(decode.embed(top))
    else:
        logits = decode.conv_seg(top)
    labels = torch.stack(
        [one.gt_sem_seg.data[0, ::32, ::32] for one in data['data_samples']]
    )
    expected = (
        0.5
        * torch.nn.functional.cross_entropy(
            logits, labels, ignore_index=255, reduction='none'
        ).mean()
    )
    decode.dropout = None
    torch.manual_seed(1)
    result = model(**data, mode='loss')
    torch.testing.assert_close(result['decode.loss_ce_4'], expected)


def test_labels_of_coarse_maps_that_were_rounded_down():
    """Pixel i of y_l lies on pixel 2^l·i of y_0, whatever their sizes are."""
    head = segmentor(head=dict(in_channels=[4] * 4, coarse_loss_weight=1)).decode_head
    maps = [torch.randn(2, 4, side, side + 1) for side in (22, 11, 5, 2)]
    data = batch((22, 23))['data_samples']
    decoded = head.eval()._decode(maps)
    found = head.loss(maps, data, None)
    labels = torch.stack([sample.gt_sem_seg.data[0] for sample in data])
    for level, y in enumerate(decoded):
        own = labels[:, :: 2**level, :: 2**level][:, : y.size(2), : y.size(3)]
        expected = torch.nn.functional.cross_entropy(
            y, own, ignore_index=255, reduction='none'
        ).mean()
        torch.testing.assert_close(
            found[f'loss_ce_{level}' if level else 'loss_ce'], expected
        )


def test_refuses_a_negative_weight():
    with pytest.raises(ValueError, match='coarse_loss_weight must not be'):
        segmentor(head=dict(coarse_loss_weight=-1))


def test_context_of_a_single_image():
    """Pooling to one value must not ask for statistics over one value."""
    model = segmentor(head=dict(context_channels=8))
    result = losses(model, batch(number=1))
    assert torch.isfinite(result['decode.loss_ce'])


@pytest.mark.parametrize('align_corners', (False, True))
@pytest.mark.parametrize('ignored', (False, True))
@pytest.mark.parametrize('finest_stride, stem', [(1, [3, 8]), (4, [])])
def test_losses_are_those_of_mmseg(finest_stride, stem, ignored, align_corners):
    """At the labels' size, where interpolation is left out, and at another; also
    where all pixels are to be ignored."""
    model = segmentor(
        dict(finest_stride=finest_stride),
        dict(
            in_channels=[*stem, 8, 8, 16, 32, 64],
            align_corners=align_corners,
            sampler=dict(type='OHEMPixelSampler', thresh=0.7, min_kept=100),
            loss_decode=[
                dict(type='CrossEntropyLoss', loss_name='loss_ce'),
                dict(type='CrossEntropyLoss', loss_name='loss_ce', loss_weight=0.5),
            ],
        ),
    )
    data = batch()
    if ignored:
        for sample in data['data_samples']:
            sample.gt_sem_seg.data[:] = 255
    data = model.data_preprocessor(data, training=True)
    logits = model.decode_head(model.backbone(data['inputs']))
    ours = model.decode_head.loss_by_feat(logits, data['data_samples'])
    theirs = BaseDecodeHead.loss_by_feat(
        model.decode_head, logits, data['data_samples']
    )
    assert set(ours) == set(theirs)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value)
