_base_ = [
    '../_base_/models/stvit-small.py',
    '../_base_/datasets/imagenet_224.py',
    '../_base_/default_runtime_cls.py',
]

# 8 GPUs × 128 images. The official implementation trains in fp16 (train.py --amp), does not clip gradients, does not
# synchronize BatchNorm (all GPUs use the statistics of the first: PyTorch's default, which MMEngine changes where no
# wrapper is given) and publishes no moving average of the weights.
model_wrapper_cfg = dict(type='MMDistributedDataParallel')
max_epochs = 300
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.05, fused=True),
    # timm's groups: biases and norms do not decay. Layer scales decay: the official implementation stores them as
    # (C, 1, 1) maps, which timm takes for weights.
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = dict(type='mmstvit.WarmupCosineLR', end=max_epochs, warmup_epochs=5, warmup_lr=1e-6, eta_min=1e-5)
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=1)
val_cfg = dict()
test_cfg = dict()
auto_scale_lr = dict(base_batch_size=1024)
default_hooks = dict(checkpoint=dict(max_keep_ckpts=3))
