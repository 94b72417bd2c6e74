# Faster R-CNN small enough for two CPU cores: Mask R-CNN without its mask head, for data with boxes alone.
_base_ = '../mask_rcnn/mask-rcnn_stvit-nano_fpn_scenes.py'

model = dict(type='FasterRCNN', roi_head=dict(mask_roi_extractor=None, mask_head=None))

load_boxes = dict(type='LoadAnnotations', with_bbox=True)
train_pipeline = [load_boxes if step['type'] == 'LoadAnnotations' else step for step in _base_.train_pipeline]
test_pipeline = [load_boxes if step['type'] == 'LoadAnnotations' else step for step in _base_.test_pipeline]
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader

val_evaluator = dict(metric='bbox')
test_evaluator = val_evaluator
