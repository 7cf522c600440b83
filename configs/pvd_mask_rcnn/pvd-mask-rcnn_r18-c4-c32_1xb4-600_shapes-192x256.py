# For a CPU: half the channels of an R-18, from scratch, a short schedule.
_base_ = [
    '../_base_/models/pvd-mask-rcnn_r18-c4-c32.py',
    '../_base_/datasets/shapes.py',
    '../_base_/schedules/schedule_scratch_det_600.py',
    '../_base_/default_runtime_det.py',
]
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
