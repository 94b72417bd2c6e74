# STA-4stage, the first row of Tables 6 and 7: super token attention with plain layers around it.
_base_ = '../stvit-small_8xb128_in1k.py'

model = dict(
    backbone=dict(type='mmstvit.STViTAblation', stem='patch', pos_embed=None, ffn='plain'),
    neck=dict(_delete_=True, type='mmstvit.STViTAblationNeck', in_channels=512),
    head=dict(in_channels=512),
)
