# RoIs are decoded from C5, C4 or C3 down, by their size, the last to the image:
# 7, 14, 28, 56.
_base_ = './mask-rcnn_r50-fpn.py'

model = dict(
    type='PVDMaskRCNN',
    backbone=dict(type='PVDResNet', finest_stride=1),
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
            num_classes=80,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=56)),
)
