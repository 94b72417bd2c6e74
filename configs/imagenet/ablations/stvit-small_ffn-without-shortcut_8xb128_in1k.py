_base_ = '../stvit-small_8xb128_in1k.py'

model = dict(backbone=dict(type='mmstvit.STViTAblation', ffn='conv_without_shortcut'))
