# Cityscapes with panoptic segments, converted by
# tools/dataset_converters/cityscapes.py --panoptic; at 512×1024 crops.
_base_ = './coco_2017_panoptic.py'

dataset_type = 'CityscapesPanopticDataset'
data_root = 'data/cityscapes/'
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadCheckedPanopticAnnotations'),
    dict(
        type='RandomResize', scale=(2048, 1024), ratio_range=(0.5, 2.0), keep_ratio=True
    ),
    dict(
        type='RandomCrop',
        crop_size=(512, 1024),
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
    dict(type='Resize', scale=(2048, 1024), keep_ratio=True),
    dict(type='LoadCheckedPanopticAnnotations'),
    dict(
        type='PackDetInputs',
        meta_keys=(*_base_.meta_keys, 'seg_map_path', 'segments_info'),
    ),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=4,
    sampler=dict(_delete_=True, type='InfiniteSampler', shuffle=True),
    batch_sampler=None,
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/panoptic_train.json',
        data_prefix=dict(
            img='leftImg8bit/train/', seg='gtFine/cityscapes_panoptic_train/'
        ),
        # images without things have stuff to learn
        filter_cfg=None,
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='leftImg8bit/val/', seg='gtFine/cityscapes_panoptic_val/'),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader

ann_file = data_root + 'annotations/instances_val.json'
val_evaluator = [
    dict(type='PanopticQualityMetric'),
    dict(type='CocoMetric', ann_file=ann_file, metric=['bbox', 'segm']),
    dict(type='SemSegMetric', iou_metrics=['mIoU']),
]
test_evaluator = val_evaluator
