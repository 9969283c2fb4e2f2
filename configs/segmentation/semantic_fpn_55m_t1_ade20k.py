# Semantic FPN, Meta-SpikeFormer 55M, T = 1, ADE20K: 256 channels in the neck and 128 in the head, 58.992 M
# parameters. With 256 in the head, too, 61.52 M: --set segmentation.model.decode_head.channels=256
_base_ = ["./semantic_fpn_15m_t1_ade20k.py"]

model = dict(backbone=dict(name="meta_spikeformer_55m"), neck=dict(out_channels=256))
