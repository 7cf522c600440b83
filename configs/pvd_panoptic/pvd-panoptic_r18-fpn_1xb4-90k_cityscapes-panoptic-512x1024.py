_base_ = [
    '../_base_/models/pvd-panoptic_r18-fpn.py',
    '../_base_/datasets/cityscapes_panoptic.py',
    '../_base_/schedules/schedule_det_90k.py',
    '../_base_/default_runtime_det.py',
]
classes = dict(num_things_classes=8, num_stuff_classes=11)
model = dict(
    semantic_head=classes,
    panoptic_fusion_head=classes,
    roi_head=dict(bbox_head=dict(num_classes=8), mask_head=dict(num_classes=8)),
    test_cfg=dict(panoptic=dict(stuff_area_limit=2048)),
)
