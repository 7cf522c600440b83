_base_ = [
    '../_base_/models/mask-rcnn_r18-c4.py',
    '../_base_/datasets/coco_2017_instance.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime_det.py',
]
