_base_ = './pvd_r50-stage.py'

model = dict(
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(depth=18),
    decode_head=dict(in_channels=[64, 64, 128, 256, 512]),
    auxiliary_head=dict(in_channels=256, channels=64),
)
