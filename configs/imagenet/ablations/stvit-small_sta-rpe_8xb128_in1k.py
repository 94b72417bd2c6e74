_base_ = './stvit-small_sta_8xb128_in1k.py'

model = dict(backbone=dict(pos_embed='rpe'))
# As in Swin's recipe.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.relative_position_bias_table': dict(decay_mult=0.0)}))
