# Semantic FPN, Meta-SpikeFormer 15M, T = 1, Cityscapes.
_base_ = [
    "../_base_/models/semantic_fpn.py",
    "../_base_/datasets/cityscapes.py",
    "../_base_/schedules/segmentation_80k.py",
    "../_base_/mmseg.py",
]

model = dict(data_preprocessor=dict(size=(512, 1024)), decode_head=dict(num_classes=19))
