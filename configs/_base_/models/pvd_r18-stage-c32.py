# Half the channels of an R-18, for a CPU.
_base_ = './pvd_r18-stage.py'

model = dict(
    pretrained=None,
    backbone=dict(base_channels=32, stem_channels=32),
    decode_head=dict(in_channels=[32, 32, 64, 128, 256]),
    auxiliary_head=dict(in_channels=128, channels=32),
)
