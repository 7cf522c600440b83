# The paper's reading: a decoding step for every stage, from 1/4 of the image on, and
# pixel association as wide as the maps.
_base_ = './efficientnet-lite0.py'

model = dict(
    decode_head=dict(
        type='PVDHead',
        # strides between them: 2, 2, 1, 2, 1
        in_channels=[24, 40, 80, 112, 192, 320],
    ),
    auxiliary_head=dict(in_index=3),
)
