# Semantic FPN with 256 channels in the neck, Meta-SpikeFormer 55M, T = 4, ADE20K.
_base_ = ["./semantic_fpn_55m_t1_ade20k.py"]

model = dict(backbone=dict(time_steps=4))
