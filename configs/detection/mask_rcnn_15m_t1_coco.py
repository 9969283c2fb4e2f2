# Mask R-CNN, Meta-SpikeFormer 15M, T = 1, COCO 2017. The paper starts from ImageNet weights:
# --set "+detection.model.backbone.init_cfg={type: Pretrained, checkpoint: 15m.safetensors}"
_base_ = [
    "../_base_/models/mask_rcnn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/mmdet.py",
]
