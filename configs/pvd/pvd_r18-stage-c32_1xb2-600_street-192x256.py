# For a CPU: half the channels of an R-18, from scratch, a short schedule.
_base_ = [
    '../_base_/models/pvd_r18-stage-c32.py',
    '../_base_/datasets/street.py',
    '../_base_/schedules/schedule_scratch_600.py',
    '../_base_/default_runtime.py',
]
model = dict(data_preprocessor=dict(size={{_base_.crop_size}}))
