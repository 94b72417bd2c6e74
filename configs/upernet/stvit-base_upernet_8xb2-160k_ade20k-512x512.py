_base_ = './stvit-small_upernet_8xb2-160k_ade20k-512x512.py'

model = dict(
    backbone=_base_.backbones.base,
    decode_head=dict(in_channels=_base_.channels.base),
    auxiliary_head=dict(in_channels=_base_.channels.base[2]),
)
