_base_ = './pvd_r50-stage.py'

model = dict(pretrained='open-mmlab://resnet101_v1c', backbone=dict(depth=101))
