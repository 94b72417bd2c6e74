_base_ = './stvit-small_sta_8xb128_in1k.py'

model = dict(backbone=dict(stoken_size=(4, 2, 1, 1)))
