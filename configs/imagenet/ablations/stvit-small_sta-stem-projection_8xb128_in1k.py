_base_ = '../stvit-small_8xb128_in1k.py'

model = dict(backbone=dict(type='mmstvit.STViTAblation', pos_embed=None, ffn='plain'))
