# For the shapes sample on a CPU: half the channels of an R-18, from scratch,
# anchors of 16 to 128 pixels, few RoIs.
_base_ = './mask-rcnn_r18-c4.py'

num_classes = 8
model = dict(
    backbone=dict(
        base_channels=32,
        stem_channels=32,
        frozen_stages=-1,
        norm_eval=False,
        init_cfg=None,
    ),
    rpn_head=dict(
        in_channels=128, feat_channels=128, anchor_generator=dict(scales=[1, 2, 4, 8])
    ),
    roi_head=dict(
        shared_head=dict(
            _delete_=True, type='NarrowResLayer', depth=18, base_channels=32
        ),
        bbox_roi_extractor=dict(out_channels=128),
        bbox_head=dict(
            in_channels=256, num_classes=num_classes, reg_class_agnostic=True
        ),
        mask_head=dict(in_channels=256, conv_out_channels=128, num_classes=num_classes),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=64)),
        rpn_proposal=dict(nms_pre=500, max_per_img=100),
        rcnn=dict(sampler=dict(num=16, pos_fraction=0.5)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=500, max_per_img=50), rcnn=dict(max_per_img=30)),
)
