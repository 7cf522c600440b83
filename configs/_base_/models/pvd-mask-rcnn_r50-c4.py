# The paper's detector (section 4.3): res5 inside the RoI, then votes from C4 or C3
# down, by the size of the RoI; masks are decoded 7, 14, 28, 56. finest_stride=1
# (and the image's 3 channels in front) would start small RoIs at C2.
_base_ = './mask-rcnn_r50-c4.py'

model = dict(
    type='PVDMaskRCNN',
    backbone=dict(type='PVDResNet', out_indices=(0, 1, 2), finest_stride=2),
    roi_head=dict(
        type='PVDRoIHead',
        start_level='size',
        mask_head=dict(
            _delete_=True,
            type='PVDMaskHead',
            in_channels=[64, 64, 256, 512, 1024, 2048],
            finest_stride=2,
            decoder=dict(
                strides=[2, 1, 2, 2, 2],
                vote_channels=[16, 32, 64, 64, 64],  # few where maps are large
            ),
            channels=16,
            feature_channels=2048,  # of the shared head
            sampling_ratio=1,
            coarse_loss_weight=1.0,
            num_classes=80,
            loss_mask=dict(type='CrossEntropyLoss', use_mask=True, loss_weight=1.0),
        ),
    ),
    train_cfg=dict(rcnn=dict(mask_size=56)),
)
