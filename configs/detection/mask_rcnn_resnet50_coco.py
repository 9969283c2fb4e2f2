# Mask R-CNN, ResNet-50 (an ANN), COCO 2017, with the protocol of the spiking ones.
_base_ = [
    "mmdet::_base_/models/mask-rcnn_r50_fpn.py",
    "../_base_/datasets/coco_instance.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/mmdet.py",
]
