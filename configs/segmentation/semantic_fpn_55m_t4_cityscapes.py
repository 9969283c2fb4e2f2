# Semantic FPN with 256 channels in the neck, Meta-SpikeFormer 55M, T = 4, Cityscapes.
_base_ = ["./semantic_fpn_55m_t1_cityscapes.py"]

model = dict(backbone=dict(time_steps=4))
