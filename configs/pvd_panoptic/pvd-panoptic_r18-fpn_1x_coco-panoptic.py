_base_ = [
    '../_base_/models/pvd-panoptic_r18-fpn.py',
    '../_base_/datasets/coco_2017_panoptic.py',
    '../_base_/schedules/schedule_1x.py',
    '../_base_/default_runtime_det.py',
]
