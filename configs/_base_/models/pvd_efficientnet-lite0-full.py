# As pvd_r18-full: to the image's own resolution, steps of stride 2 see all pixels for
# their votes, coarse maps are fused by 3×3 and have context on top, and the losses of
# coarser maps stand in for the auxiliary head.
_base_ = './pvd_efficientnet-lite0-stage.py'

model = dict(
    backbone=dict(finest_stride=1),
    decode_head=dict(
        # strides between them: 2, 1, 2, 2, 2, 1, 2, 1
        in_channels=[3, 32, 16, 24, 40, 80, 112, 192, 320],
        decoder=dict(
            vote_channels=[8, 8, 8, 16, 16, 32, 32, 32],
            vote_conv_size=[3, 1, 3, 3, 3, 1, 3, 1],
            vote_gain=8.0,
            fuse_conv_size=[1, 1, 3, 3, 3, 3, 3, 3],
        ),
        context_channels=64,
        coarse_loss_weight=0.4,
    ),
    auxiliary_head=None,
)
