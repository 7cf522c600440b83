# Half the channels of an R-18, for a CPU. Votes that move eight times as fast
# suit a short training with AdamW; SGD's steps would grow by the square.
_base_ = './pvd_r18-full.py'

model = dict(
    pretrained=None,
    backbone=dict(base_channels=32, stem_channels=32),
    decode_head=dict(
        in_channels=[3, 32, 32, 32, 64, 128, 256], decoder=dict(vote_gain=8.0)
    ),
)
