# The paper's model: a decoding step for every residual block of a ResNet-50,
# pixel association as wide as the maps.
_base_ = './r50.py'

model = dict(
    backbone=dict(type='PVDResNetV1c', granularity='block'),
    decode_head=dict(
        type='PVDHead',
        # the stem and the 3 + 4 + 6 + 3 blocks of the stages
        in_channels=[64] + [256] * 3 + [512] * 4 + [1024] * 6 + [2048] * 3,
    ),
    auxiliary_head=dict(in_index=-4),
)
