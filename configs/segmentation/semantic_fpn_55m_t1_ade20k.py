# Semantic FPN with 256 channels in the neck, Meta-SpikeFormer 55M, T = 1, ADE20K.
_base_ = ["./semantic_fpn_15m_t1_ade20k.py"]

model = dict(backbone=dict(name="meta_spikeformer_55m"), neck=dict(out_channels=256))
