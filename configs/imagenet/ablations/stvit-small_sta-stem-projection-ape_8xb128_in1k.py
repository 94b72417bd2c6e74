_base_ = './stvit-small_sta-stem-projection_8xb128_in1k.py'

model = dict(backbone=dict(pos_embed='ape'))
# As in Swin's recipe.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'.absolute_pos_embed': dict(decay_mult=0.0)}))
