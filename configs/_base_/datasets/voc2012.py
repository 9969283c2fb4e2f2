# Pascal VOC 2012 as MMSegmentation has it (its 1,464 images, not the 10,582 of the augmented set),
# scored at full precision.
_base_ = ["mmseg::_base_/datasets/pascal_voc12.py"]

val_evaluator = dict(type="MeanIoU")
test_evaluator = val_evaluator
