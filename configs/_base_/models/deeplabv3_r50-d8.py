# The baseline, as mmseg has it.
_base_ = './r50.py'

model = dict(
    backbone=dict(
        type='ResNetV1c',
        num_stages=4,
        out_indices=(0, 1, 2, 3),
        dilations=(1, 1, 2, 4),
        strides=(1, 2, 1, 1),
        contract_dilation=True,
    ),
    decode_head=dict(
        type='ASPPHead',
        in_channels=2048,
        in_index=3,
        channels=512,
        dilations=(1, 12, 24, 36),
    ),
    auxiliary_head=dict(in_index=2),
)
