# Half the channels of an R-18, and of the FPN, for a CPU.
_base_ = './fpn_r18.py'

model = dict(
    pretrained=None,
    backbone=dict(base_channels=32, stem_channels=32),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=128),
    decode_head=dict(in_channels=[128, 128, 128, 128], channels=64),
    auxiliary_head=dict(in_channels=128, channels=32),
)
