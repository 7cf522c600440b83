_base_ = [
    '../_base_/models/mask-rcnn_r50-c4.py',
    '../_base_/datasets/coco_2014_instance.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime_det.py',
]
