# One encoder, one set of votes: labels are decoded from C5 down to stride 4, with
# context on top and losses of the coarser maps, masks down to the image as in
# pvd-mask-rcnn_r50-fpn.py.
_base_ = './panoptic-fpn_r50.py'

model = dict(
    type='PVDPanopticFPN',
    backbone=dict(type='PVDResNet', finest_stride=1),
    semantic_head=dict(
        _delete_=True,
        type='PVDSemanticHead',
        num_things_classes={{_base_.num_things_classes}},
        num_stuff_classes={{_base_.num_stuff_classes}},
        in_channels=[64, 256, 512, 1024, 2048],
        decoder=dict(
            strides=[1, 2, 2, 2],
            vote_channels=[32, 64, 64, 64],  # as the mask head's
            fuse_conv_size=[1, 3, 3, 3],
        ),
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
            in_channels=[3, 64, 64, 256, 512, 1024, 2048],
            finest_stride=1,
            decoder=dict(
                strides=[2, 2, 1, 2, 2, 2],
                vote_channels=[8, 16, 32, 64, 64, 64],  # few where maps are large
            ),
            channels=16,
            feature_channels=256,  # of the neck
            num_convs=4,
            sampling_ratio=1,
            coarse_loss_weight=1.0,
            num_classes={{_base_.num_things_classes}},
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=56)),
)
