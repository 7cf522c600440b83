_base_ = './deeplabv3_efficientnet-lite0-d8.py'

model = dict(backbone=dict(output_stride=16), decode_head=dict(dilations=(1, 3, 6, 9)))
