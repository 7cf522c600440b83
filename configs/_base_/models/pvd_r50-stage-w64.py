# Narrow votes: pixel association with 64 channels at every step.
_base_ = './pvd_r50-stage.py'

model = dict(decode_head=dict(decoder=dict(vote_channels=64)))
