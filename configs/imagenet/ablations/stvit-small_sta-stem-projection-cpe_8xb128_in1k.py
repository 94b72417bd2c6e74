_base_ = './stvit-small_sta-stem-projection_8xb128_in1k.py'

model = dict(backbone=dict(pos_embed='cpe'))
