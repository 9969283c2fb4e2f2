# Mask R-CNN, Meta-SpikeFormer 55M, T = 1, COCO 2017.
_base_ = ["./mask_rcnn_15m_t1_coco.py"]

model = dict(backbone=dict(name="meta_spikeformer_55m"))
