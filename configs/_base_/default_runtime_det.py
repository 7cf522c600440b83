# Registers pvd_mm's models, datasets and metrics, also for mmdet's own tools.
custom_imports = dict(imports=['pvd_mm.instance'], allow_failed_imports=False)

default_scope = 'mmdet'
env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(
    type='DetLocalVisualizer', vis_backends=vis_backends, name='visualizer'
)
log_level = 'INFO'
load_from = None
resume = False

# a resumed training goes on as if it had not been interrupted; what load_from
# brings is told where it is not everything
custom_hooks = [
    dict(type='ClassCheckHook'),
    dict(type='ReproducibleResumeHook'),
    dict(type='LoadReportHook'),
]
