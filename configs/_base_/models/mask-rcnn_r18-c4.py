# For a small machine.
_base_ = './mask-rcnn_r50-c4.py'

norm_cfg = dict(type='BN', requires_grad=True)
model = dict(
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(
        depth=18,
        norm_cfg=norm_cfg,
        style='pytorch',
        init_cfg=dict(checkpoint='torchvision://resnet18'),
    ),
    rpn_head=dict(in_channels=256, feat_channels=256),
    roi_head=dict(
        shared_head=dict(depth=18, style='pytorch', norm_cfg=norm_cfg),
        bbox_roi_extractor=dict(out_channels=256),
        bbox_head=dict(in_channels=512),
        mask_head=dict(in_channels=512),
    ),
)
