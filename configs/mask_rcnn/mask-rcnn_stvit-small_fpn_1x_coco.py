_base_ = [
    '../_base_/models/mask-rcnn_stvit-small_fpn.py',
    'mmdet::_base_/datasets/coco_instance.py',
    '../_base_/schedules/coco_1x.py',
    '../_base_/tta_instance.py',
    '../_base_/default_runtime_det.py',
]
