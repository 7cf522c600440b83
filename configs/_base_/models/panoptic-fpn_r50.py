# The baseline, as mmdet has it (panoptic-fpn_r50_fpn), but that objects are
# predicted down to the scores that mask AP asks for, and fused from 0.6 on.
_base_ = './mask-rcnn_r50-fpn.py'

num_things_classes = 80
num_stuff_classes = 53
model = dict(
    type='MultiTaskPanopticFPN',
    data_preprocessor=dict(mask_pad_value=0, pad_seg=True, seg_pad_value=255),
    semantic_head=dict(
        type='PanopticFPNHead',
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes,
        in_channels=256,
        inner_channels=128,
        start_level=0,
        end_level=4,
        norm_cfg=dict(type='GN', num_groups=32, requires_grad=True),
        conv_cfg=None,
        loss_seg=dict(type='CrossEntropyLoss', ignore_index=255, loss_weight=0.5),
    ),
    panoptic_fusion_head=dict(
        type='HeuristicFusionHead',
        num_things_classes=num_things_classes,
        num_stuff_classes=num_stuff_classes,
    ),
    test_cfg=dict(
        panoptic=dict(score_thr=0.6, mask_overlap=0.5, stuff_area_limit=4096)
    ),
)
