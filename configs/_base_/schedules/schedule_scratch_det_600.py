# For a detector on a CPU, without pretrained weights. To shorten it, set
# max_iters and the end of the second scheduler alike.
_base_ = './schedule_1x.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-3, weight_decay=0.01),
    clip_grad=dict(max_norm=10, norm_type=2),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, begin=0, end=50, by_epoch=False),
    dict(type='PolyLR', eta_min=1e-6, power=0.9, begin=50, end=600, by_epoch=False),
]
train_cfg = dict(
    _delete_=True, type='IterBasedTrainLoop', max_iters=600, val_interval=600
)
auto_scale_lr = dict(base_batch_size=4)
default_hooks = dict(
    logger=dict(interval=20, log_metric_by_epoch=False),
    checkpoint=dict(by_epoch=False, interval=200),
)
log_processor = dict(by_epoch=False)
randomness = dict(seed=0)
