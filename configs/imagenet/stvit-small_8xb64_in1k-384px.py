_base_ = './stvit-small_8xb128_in1k.py'

# Fine-tuning for 30 epochs from weights of 224² images: the authors' (docs/checkpoints.md, "Download the weights"), or
# a checkpoint of the 224² config.
load_from = 'checkpoints/stvit-small-224.pth'

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='RandomResizedCrop', scale=384, backend='pillow', interpolation='bicubic'),
    *_base_.train_pipeline[2:],
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='ResizeEdge', scale=384, edge='short', backend='pillow', interpolation='bicubic'),
    dict(type='CenterCrop', crop_size=384),
    dict(type='PackInputs'),
]
train_dataloader = dict(batch_size=64, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(batch_size=64, dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

# Constant. The method section of the paper and the official commands have 5e-6, the appendix 1e-5.
optim_wrapper = dict(optimizer=dict(lr=5e-6, weight_decay=1e-8))
param_scheduler = []
train_cfg = dict(max_epochs=30)
auto_scale_lr = dict(base_batch_size=512)

# The official implementation fine-tunes in eval mode: BatchNorm keeps its statistics, drop path has no effect.
custom_hooks = [dict(type='mmstvit.EvalModeHook')]
