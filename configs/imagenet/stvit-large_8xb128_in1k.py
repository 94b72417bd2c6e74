_base_ = './stvit-small_8xb128_in1k.py'

model = dict(backbone=dict(arch='large', drop_path_rate=0.4), neck=dict(in_channels=640))

# Drop path rates of the paper: 0.4, then 0.6 for the last 40 epochs.
custom_hooks = [dict(type='mmstvit.DropPathHook', milestones=[260], rates=[0.4, 0.6])]
