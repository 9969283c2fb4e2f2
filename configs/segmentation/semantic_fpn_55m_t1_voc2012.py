# Semantic FPN with 256 channels in the neck, Meta-SpikeFormer 55M, T = 1, Pascal VOC 2012.
_base_ = ["./semantic_fpn_15m_t1_voc2012.py"]

model = dict(backbone=dict(name="meta_spikeformer_55m"), neck=dict(out_channels=256))
