# The paper word for word: one channel for each object, which starts as the class
# activation of its label; votes from C2 to C4.
_base_ = './pvd-mask-rcnn_r50-c4.py'

model = dict(
    backbone=dict(finest_stride=4),
    roi_head=dict(
        start_level='source',
        mask_head=dict(
            class_agnostic=True,
            channels=None,
            feature_channels=None,
            in_channels=[256, 512, 1024, 2048],
            finest_stride=4,
            decoder=dict(strides=[2, 2, 2], vote_channels=64),
        ),
    ),
)
