# Semantic FPN with 256 channels in the neck, Meta-SpikeFormer 55M, T = 4, Pascal VOC 2012.
_base_ = ["./semantic_fpn_55m_t1_voc2012.py"]

model = dict(backbone=dict(time_steps=4))
