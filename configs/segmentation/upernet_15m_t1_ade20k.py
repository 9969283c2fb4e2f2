# UPerNet, Meta-SpikeFormer 15M, T = 1, ADE20K.
_base_ = [
    "../_base_/models/upernet.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/segmentation_160k.py",
    "../_base_/mmseg.py",
]

model = dict(decode_head=dict(num_classes=150), auxiliary_head=dict(num_classes=150))
