# RetinaNet, Meta-SpikeFormer 15M, T = 1, COCO 2017.
_base_ = [
    "../_base_/models/retinanet.py",
    "../_base_/datasets/coco_detection.py",
    "../_base_/schedules/coco_1x.py",
    "../_base_/mmdet.py",
]
