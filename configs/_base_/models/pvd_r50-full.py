# Decoded to the image's own resolution through the stem's two steps. Steps of
# stride 2 see all pixels for their votes; the coarse maps, where it costs
# little, are fused by 3×3 and have context on top. Losses of the coarser maps
# stand in for the auxiliary head.
_base_ = './pvd_r50-stage.py'

model = dict(
    backbone=dict(finest_stride=1),
    decode_head=dict(
        # strides between them: 2, 2, 1, 2, 2, 2
        in_channels=[3, 64, 64, 256, 512, 1024, 2048],
        decoder=dict(
            vote_channels=[8, 8, 16, 16, 32, 32],
            vote_conv_size=[3, 3, 1, 3, 3, 3],
            fuse_conv_size=[1, 1, 3, 3, 3, 3],
        ),
        context_channels=64,
        coarse_loss_weight=0.4,
    ),
    auxiliary_head=None,
)
