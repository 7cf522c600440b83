# For a CPU: half the channels of an R-18, half the resolution, from scratch.
_base_ = [
    '../_base_/models/pvd_r18-full-c32.py',
    '../_base_/datasets/camvid_180x240.py',
    '../_base_/schedules/schedule_scratch_1200.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    decode_head=dict(
        num_classes=11, loss_decode=dict(class_weight={{_base_.class_weight}})
    ),
)
