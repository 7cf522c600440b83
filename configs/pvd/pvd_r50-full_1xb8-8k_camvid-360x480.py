_base_ = [
    '../_base_/models/pvd_r50-full.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/schedule_scratch_8k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    pretrained=None,
    decode_head=dict(num_classes=11, decoder=dict(vote_gain=8.0)),
)
