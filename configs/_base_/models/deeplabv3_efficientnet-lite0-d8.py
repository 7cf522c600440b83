# Half of mmseg's rates, for crops of half the usual size.
_base_ = './efficientnet-lite0.py'

model = dict(
    backbone=dict(output_stride=8),
    decode_head=dict(
        type='ASPPHead',
        in_channels=320,
        in_index=5,
        channels=128,
        dilations=(1, 6, 12, 18),
    ),
    auxiliary_head=dict(in_index=3),
)
