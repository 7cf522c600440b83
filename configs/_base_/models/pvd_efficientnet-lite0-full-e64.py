# As pvd_efficientnet-lite0-full, with an embedding of 64 channels in place of the
# class logits, which are made of it at the end.
_base_ = './pvd_efficientnet-lite0-full.py'

model = dict(decode_head=dict(channels=64))
