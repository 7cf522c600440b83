# An encoder of ImageNet's weights that a CPU can train. Its file is made by
# python tools/model_converters/efficientnet_lite.py
_base_ = './r50.py'

model = dict(
    # of the weights
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite',
        arch='lite0',
        # pixels lie where votes are laid around, for every method
        padding='symmetric',
        norm_cfg=dict(type='SyncBN', requires_grad=True, eps=1e-3, momentum=0.01),
        init_cfg=dict(
            type='Pretrained', checkpoint='checkpoints/efficientnet-lite0.pth'
        ),
    ),
    auxiliary_head=dict(in_channels=112, channels=64),
)
