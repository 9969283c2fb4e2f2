# Semantic FPN, ResNet-18 (an ANN), ADE20K, with the protocol of the spiking ones.
_base_ = ["./semantic_fpn_resnet50_ade20k.py"]

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint="torchvision://resnet18")),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
