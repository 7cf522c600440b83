# For the street sample on a CPU, see panoptic-fpn_r18-c32.py. Labels and masks are
# decoded down to the image, as in pvd_r18-full-c32.py; votes that move eight times
# as fast suit a short training with AdamW.
_base_ = './panoptic-fpn_r18-c32.py'

maps = [3, 32, 32, 32, 64, 128, 256]
votes = dict(
    strides=[2, 2, 1, 2, 2, 2],
    vote_channels=[8, 8, 16, 16, 32, 32],
    vote_conv_size=[3, 3, 1, 3, 3, 3],
    vote_gain=8.0,
)
model = dict(
    type='PVDPanopticFPN',
    backbone=dict(type='PVDResNet', finest_stride=1),
    semantic_head=dict(
        _delete_=True,
        type='PVDSemanticHead',
        num_things_classes={{_base_.num_things_classes}},
        num_stuff_classes={{_base_.num_stuff_classes}},
        in_channels=maps,
        decoder=dict(fuse_conv_size=[1, 1, 3, 3, 3, 3], **votes),
        context_channels=64,
        coarse_loss_weight=0.4,
        norm_cfg=dict(type='GN', num_groups=16),
        loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.5),
    ),
    roi_head=dict(
        type='PVDRoIHead',
        start_level='size',
        mask_roi_extractor=None,
        mask_head=dict(
            _delete_=True,
            type='PVDMaskHead',
            in_channels=maps,
            finest_stride=1,
            decoder=votes,
            channels=16,
            feature_channels=64,  # of the neck
            num_convs=4,
            sampling_ratio=1,
            coarse_loss_weight=0.3,
            num_classes={{_base_.num_things_classes}},
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=56)),
)
