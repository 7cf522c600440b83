# For the shapes sample on a CPU, see mask-rcnn_r18-c4-c32.py. Votes that move eight
# times as fast suit a short training with AdamW.
_base_ = './mask-rcnn_r18-c4-c32.py'

model = dict(
    type='PVDMaskRCNN',
    backbone=dict(type='PVDResNet', out_indices=(0, 1, 2), finest_stride=1),
    roi_head=dict(
        type='PVDRoIHead',
        start_level='size',
        mask_head=dict(
            _delete_=True,
            type='PVDMaskHead',
            in_channels=[3, 32, 32, 32, 64, 128, 256],
            finest_stride=1,
            decoder=dict(
                strides=[2, 2, 1, 2, 2, 2],
                vote_channels=[16, 16, 32, 64, 64, 64],  # few where maps are large
                vote_gain=8.0,
            ),
            channels=16,
            feature_channels=256,  # of the shared head
            sampling_ratio=1,
            coarse_loss_weight=1.0,
            num_classes={{_base_.num_classes}},
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=56)),
)
