# DINO with four scales for 12 epochs, as MMDetection trains it with ResNet-50; all of the backbone is trained, as with
# Swin-L. Drop path, synchronized BatchNorm and weight decay of the backbone's norms are those of our Mask R-CNN. DINO
# is not in the paper, and this config has not been trained.
_base_ = [
    'mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py',
    '../_base_/backbones.py',
    '../_base_/schedules/slow_backbone.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.backbones.small, out_indices=(1, 2, 3)),
    neck=dict(in_channels=_base_.channels.small[1:]),
)

optim_wrapper = dict(optimizer=dict(fused=True), paramwise_cfg=dict(custom_keys=_base_.slow_backbone))
default_hooks = dict(check_finite=dict(type='mmstvit.CheckFiniteHook'))

# Two images per GPU are too few for BatchNorm: synchronized when distributed.
sync_bn = 'torch'
