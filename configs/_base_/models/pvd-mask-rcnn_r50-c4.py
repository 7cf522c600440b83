# The paper's detector (section 4.3): votes from C2 to C4 and, inside the RoI,
# res5; masks are decoded 7, 14, 28, 56.
_base_ = './mask-rcnn_r50-c4.py'

model = dict(
    type='PVDMaskRCNN',
    backbone=dict(out_indices=(0, 1, 2)),
    roi_head=dict(
        type='PVDRoIHead',
        mask_head=dict(
            _delete_=True,
            type='PVDMaskHead',
            in_channels=[256, 512, 1024, 2048],
            decoder=dict(vote_channels=64),
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
