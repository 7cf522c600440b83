_base_ = [
    '../_base_/models/pvd_efficientnet-lite0-full-e64.py',
    '../_base_/datasets/camvid_240x320.py',
    '../_base_/schedules/schedule_finetune_2k.py',
    '../_base_/default_runtime.py',
]
model = dict(
    data_preprocessor=dict(size={{_base_.crop_size}}),
    decode_head=dict(
        num_classes=11, loss_decode=dict(class_weight={{_base_.class_weight}})
    ),
)
