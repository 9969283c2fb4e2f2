# ADE20K (SceneParse150) as MMSegmentation has it, scored at full precision.
_base_ = ["mmseg::_base_/datasets/ade20k.py"]

train_dataloader = dict(dataset=dict(data_root="data/ade20k"))
val_dataloader = dict(dataset=dict(data_root="data/ade20k"))
test_dataloader = val_dataloader
val_evaluator = dict(type="MeanIoU")
test_evaluator = val_evaluator
