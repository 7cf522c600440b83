# For small data and an encoder with ImageNet's weights. To shorten it, set max_iters
# and the end of the second scheduler alike.
_base_ = './schedule_scratch_8k.py'

param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=100, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=100, end=2000, by_epoch=False),
]
train_cfg = dict(max_iters=2000, val_interval=500)
default_hooks = dict(logger=dict(interval=20), checkpoint=dict(interval=500))
