# For a CPU: half the channels of an R-18, from scratch, a short schedule.
_base_ = [
    '../_base_/models/panoptic-fpn_r18-c32.py',
    '../_base_/datasets/street_panoptic.py',
    '../_base_/schedules/schedule_scratch_det_600.py',
    '../_base_/default_runtime_det.py',
]
