# Semantic FPN, Meta-SpikeFormer 15M, T = 4, Pascal VOC 2012. The paper starts from the weights at T = 1:
# --set segmentation.load_from=PATH
_base_ = ["./semantic_fpn_15m_t1_voc2012.py"]

model = dict(backbone=dict(time_steps=4))
