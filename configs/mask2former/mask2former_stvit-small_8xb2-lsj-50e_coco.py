# Mask2Former for instance segmentation, as MMDetection trains it with Swin-T; drop path, synchronized BatchNorm and
# weight decay of norms are those of our Mask R-CNN. Mask2Former is not in the paper, and this config has not
# been trained.
_base_ = [
    'mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py',
    '../_base_/backbones.py',
    '../_base_/schedules/slow_backbone.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.backbones.small),
    panoptic_head=dict(in_channels=_base_.channels.small),
)

# MMDetection's config inherits from the panoptic one and keeps its folders of segmentation maps, which nothing reads.
train_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img='train2017/')))
val_dataloader = dict(dataset=dict(data_prefix=dict(_delete_=True, img='val2017/')))
test_dataloader = val_dataloader

optim_wrapper = dict(optimizer=dict(fused=True), paramwise_cfg=dict(custom_keys=_base_.slow_backbone))
default_hooks = dict(check_finite=dict(type='mmstvit.CheckFiniteHook'))

# Two images per GPU are too few for BatchNorm: synchronized when distributed.
sync_bn = 'torch'
