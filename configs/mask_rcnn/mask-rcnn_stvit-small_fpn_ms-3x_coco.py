_base_ = [
    '../_base_/models/mask-rcnn_stvit-small_fpn.py',
    '../_base_/datasets/coco_instance_ms.py',
    '../_base_/schedules/coco_3x.py',
    '../_base_/tta_instance.py',
    '../_base_/default_runtime_det.py',
]
