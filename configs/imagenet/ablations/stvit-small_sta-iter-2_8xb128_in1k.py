_base_ = './stvit-small_sta_8xb128_in1k.py'

model = dict(backbone=dict(n_iter=2))
