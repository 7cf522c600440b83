# The paper's C_obj, word for word: one channel for each object, which starts
# as the class activation of its label.
_base_ = './pvd-mask-rcnn_r50-c4.py'

model = dict(
    roi_head=dict(
        mask_head=dict(class_agnostic=True, channels=None, feature_channels=None)
    )
)
