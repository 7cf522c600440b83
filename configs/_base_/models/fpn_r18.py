# mmseg's Semantic FPN, with the auxiliary head that every method here has.
_base_ = './r50.py'

model = dict(
    pretrained='open-mmlab://resnet18_v1c',
    backbone=dict(
        type='ResNetV1c',
        depth=18,
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 1, 1),
        strides=(1, 2, 2, 2),
        contract_dilation=True,
    ),
    neck=dict(
        type='FPN', in_channels=[64, 128, 256, 512], out_channels=256, num_outs=4
    ),
    decode_head=dict(
        type='FPNHead',
        in_channels=[256, 256, 256, 256],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
    ),
    auxiliary_head=dict(in_channels=256, in_index=2, channels=64),
)
