# CamVid at half its resolution, for a CPU. Predictions are still compared with
# the labels at 480×360.
_base_ = './camvid.py'

crop_size = (180, 240)
# Square roots of the inverse frequencies of the classes in the train split,
# of mean 1: poles, signs, fences, pedestrians and bicyclists are each 1 % of
# the pixels or less. For every method and every loss.
class_weight = [0.34, 0.29, 1.42, 0.25, 0.66, 0.45, 1.30, 1.33, 0.58, 1.76, 2.61]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize', scale=(240, 180), ratio_range=(0.5, 2.0), keep_ratio=True
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(240, 180), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=4, num_workers=1, dataset=dict(pipeline=train_pipeline)
)
val_dataloader = dict(num_workers=1, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
