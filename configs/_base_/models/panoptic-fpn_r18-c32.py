# For the street sample on a CPU: half the channels of an R-18, from scratch,
# anchors of 16 to 256 pixels, few RoIs.
_base_ = './panoptic-fpn_r18.py'

num_things_classes = 8
num_stuff_classes = 11
classes = dict(
    num_things_classes=num_things_classes, num_stuff_classes=num_stuff_classes
)
model = dict(
    backbone=dict(
        base_channels=32,
        stem_channels=32,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=64),
    rpn_head=dict(in_channels=64, feat_channels=64, anchor_generator=dict(scales=[4])),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=64, finest_scale=28),
        bbox_head=dict(
            in_channels=64,
            fc_out_channels=256,
            num_classes=num_things_classes,
            reg_class_agnostic=True,
        ),
        mask_roi_extractor=dict(out_channels=64, finest_scale=28),
        mask_head=dict(
            in_channels=64, conv_out_channels=64, num_classes=num_things_classes
        ),
    ),
    semantic_head=dict(in_channels=64, inner_channels=64, **classes),
    panoptic_fusion_head=classes,
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=500, max_per_img=100),
        rcnn=dict(sampler=dict(num=32, pos_fraction=0.5)),
    ),
    test_cfg=dict(
        rpn=dict(nms_pre=500, max_per_img=100),
        rcnn=dict(max_per_img=50),
        # objects of a short training are less sure; stuff of a small image is small
        panoptic=dict(score_thr=0.4, stuff_area_limit=64),
    ),
)
