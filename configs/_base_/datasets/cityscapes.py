# Cityscapes as MMSegmentation has it, cropped to 512x1024, scored at full precision.
_base_ = ["mmseg::_base_/datasets/cityscapes.py"]

val_evaluator = dict(type="MeanIoU")
test_evaluator = val_evaluator
