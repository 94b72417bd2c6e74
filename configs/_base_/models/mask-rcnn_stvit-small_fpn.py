_base_ = ['mmdet::_base_/models/mask-rcnn_r50_fpn.py', '../backbones.py']

model = dict(
    backbone=dict(_delete_=True, **_base_.backbones.small),
    neck=dict(in_channels=_base_.channels.small),
)
