# Semantic FPN on ADE20K (150 classes), 512x512.
_base_ = ["../_base_/semantic_fpn.py"]

max_iters = 160_000

model = dict(decode_head=dict(num_classes=150))
train_dataloader = dict(dataset=dict(type="ADE20KSegmentation", split="training"))
val_dataloader = dict(dataset=dict(type="ADE20KSegmentation", split="validation"))
test_dataloader = val_dataloader

train_cfg = dict(max_iters=max_iters, val_interval=16_000)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, by_epoch=False, begin=1500, end=max_iters, eta_min=0.0),
]

# A helper above: without it an override of it is an error, and not without effect.
del max_iters
