# Semantic FPN on Pascal VOC 2012 (20 classes and background), 512x512.
_base_ = ["../_base_/semantic_fpn.py"]

max_iters = 80_000

model = dict(decode_head=dict(num_classes=21))
train_dataloader = dict(dataset=dict(type="VOC2012Segmentation", split="train"))
val_dataloader = dict(dataset=dict(type="VOC2012Segmentation", split="val"))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=max_iters, val_interval=8_000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, by_epoch=False, begin=1500, end=max_iters, eta_min=0.0),
]

# A helper above: without it an override of it is an error, and not without effect.
del max_iters
