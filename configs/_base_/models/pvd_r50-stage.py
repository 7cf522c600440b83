# A decoding step for every stage instead of every block.
_base_ = './pvd_r50-block.py'

model = dict(
    backbone=dict(granularity='stage'),
    decode_head=dict(in_channels=[64, 256, 512, 1024, 2048]),
    auxiliary_head=dict(in_index=-2),
)
