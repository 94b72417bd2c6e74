# Faster R-CNN for data with boxes alone, trained as Mask R-CNN 1x. Not in the paper.
_base_ = [
    'mmdet::_base_/models/faster-rcnn_r50_fpn.py',
    '../_base_/backbones.py',
    'mmdet::_base_/datasets/coco_detection.py',
    '../_base_/schedules/coco_1x.py',
    '../_base_/default_runtime_det.py',
]

model = dict(
    backbone=dict(_delete_=True, **_base_.backbones.small),
    neck=dict(in_channels=_base_.channels.small),
)
