# Semantic FPN, Meta-SpikeFormer 15M, T = 4, Cityscapes. The paper starts from the weights at T = 1:
# --set segmentation.load_from=PATH
_base_ = ["./semantic_fpn_15m_t1_cityscapes.py"]

model = dict(backbone=dict(time_steps=4))
