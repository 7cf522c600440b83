# mmseg's Semantic FPN, half as wide, with the auxiliary head that all have here.
_base_ = './efficientnet-lite0.py'

model = dict(
    backbone=dict(out_indices=(0, 1, 3, 5)),
    neck=dict(type='FPN', in_channels=[24, 40, 112, 320], out_channels=128, num_outs=4),
    decode_head=dict(
        type='FPNHead',
        in_channels=[128, 128, 128, 128],
        in_index=[0, 1, 2, 3],
        feature_strides=[4, 8, 16, 32],
        channels=128,
    ),
    auxiliary_head=dict(in_channels=128, in_index=2),
)
