# COCO 2017 as MMDetection has it, scored at full precision.
_base_ = ["mmdet::_base_/datasets/coco_instance.py"]

val_evaluator = dict(type="CocoAP")
test_evaluator = val_evaluator
