# COCO 2014, the paper's split: 82783 train and 40504 val images.
_base_ = './coco_2017_instance.py'

data_root = 'data/coco/'
train_dataloader = dict(
    dataset=dict(
        ann_file='annotations/instances_train2014.json',
        data_prefix=dict(img='train2014/'),
    )
)
val_dataloader = dict(
    dataset=dict(
        ann_file='annotations/instances_val2014.json', data_prefix=dict(img='val2014/')
    )
)
test_dataloader = val_dataloader

ann_file = data_root + 'annotations/instances_val2014.json'
val_evaluator = [
    dict(type='CocoMetric', ann_file=ann_file, metric=['bbox', 'segm']),
    dict(type='BoundaryAPMetric', ann_file=ann_file),
]
test_evaluator = val_evaluator
