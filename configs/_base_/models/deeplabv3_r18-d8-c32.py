# Half the channels of an R-18, for a CPU.
_base_ = './deeplabv3_r18-d8.py'

model = dict(
    pretrained=None,
    backbone=dict(base_channels=32, stem_channels=32),
    decode_head=dict(in_channels=256, channels=64),
    auxiliary_head=dict(in_channels=128, channels=32),
)
