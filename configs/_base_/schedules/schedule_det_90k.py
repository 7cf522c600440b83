# The schedule of Cityscapes, for a detector.
_base_ = './schedule_90k.py'

default_hooks = dict(visualization=dict(_delete_=True, type='DetVisualizationHook'))
log_processor = dict(by_epoch=False)
