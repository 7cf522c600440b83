# An embedding of 64 channels is decoded in place of the class logits, and classified
# at the end.
_base_ = './pvd_efficientnet-lite0-full_1xb4-2k_camvid-240x320.py'

model = dict(decode_head=dict(channels=64))
