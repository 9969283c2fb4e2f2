# Semantic FPN, Meta-SpikeFormer 15M, T = 1, ADE20K.
_base_ = [
    "../_base_/models/semantic_fpn.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/segmentation_160k.py",
    "../_base_/mmseg.py",
]

model = dict(decode_head=dict(num_classes=150))
