_base_ = [
    '../_base_/models/pvd-mask-rcnn_r50-c4-literal.py',
    '../_base_/datasets/coco_2017_instance.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime_det.py',
]
