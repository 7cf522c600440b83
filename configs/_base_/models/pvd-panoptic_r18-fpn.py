# For a small machine.
_base_ = './pvd-panoptic_r50-fpn.py'

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint='torchvision://resnet18')),
    neck=dict(in_channels=[64, 128, 256, 512]),
    semantic_head=dict(in_channels=[64, 64, 128, 256, 512]),
    roi_head=dict(mask_head=dict(in_channels=[3, 64, 64, 64, 128, 256, 512])),
)
