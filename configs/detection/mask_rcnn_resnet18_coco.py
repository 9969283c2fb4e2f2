# Mask R-CNN, ResNet-18 (an ANN), COCO 2017, with the protocol of the spiking ones.
_base_ = ["./mask_rcnn_resnet50_coco.py"]

model = dict(
    backbone=dict(depth=18, init_cfg=dict(checkpoint="torchvision://resnet18")),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
