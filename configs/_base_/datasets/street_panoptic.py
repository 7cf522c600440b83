# The built-in sample of tools/make_sample.py --kind street-panoptic: Cityscapes'
# classes at 256×512. Small crops, for it is made to be trained on a CPU.
_base_ = './cityscapes_panoptic.py'

data_root = 'data/street-panoptic/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCheckedPanopticAnnotations'),
    dict(
        type='RandomResize', scale=(512, 256), ratio_range=(0.75, 1.25), keep_ratio=True
    ),
    dict(
        type='RandomCrop',
        crop_size=(192, 256),
        allow_negative_crop=True,
        recompute_bbox=True,
    ),
    # objects whose box was in the crop, but none of their pixels
    dict(type='FilterAnnotations', min_gt_bbox_wh=(1, 1), keep_empty=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(512, 256), keep_ratio=True),
    dict(type='LoadCheckedPanopticAnnotations'),
    dict(
        type='PackDetInputs',
        meta_keys=(*_base_.meta_keys, 'seg_map_path', 'segments_info'),
    ),
]
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/panoptic_train2017.json',
        data_prefix=dict(seg='annotations/panoptic_train2017/'),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(seg='annotations/panoptic_val2017/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

ann_file = data_root + 'annotations/instances_val2017.json'
val_evaluator = [
    dict(type='PanopticQualityMetric'),
    dict(type='CocoMetric', ann_file=ann_file, metric=['bbox', 'segm']),
    dict(type='SemSegMetric', iou_metrics=['mIoU']),
]
test_evaluator = val_evaluator
