# Semantic FPN, ResNet-50 (an ANN), ADE20K, with the protocol of the spiking ones.
_base_ = [
    "mmseg::_base_/models/fpn_r50.py",
    "../_base_/datasets/ade20k.py",
    "../_base_/schedules/segmentation_160k.py",
    "../_base_/mmseg.py",
]

norm = dict(type="BN", requires_grad=True)

model = dict(
    data_preprocessor=dict(size=(512, 512), test_cfg=dict(size_divisor=32)),
    pretrained=None,
    backbone=dict(
        type="ResNet",
        norm_cfg=norm,
        init_cfg=dict(type="Pretrained", checkpoint="torchvision://resnet50"),
    ),
    neck=dict(out_channels=128),
    decode_head=dict(in_channels=[128] * 4, num_classes=150, norm_cfg=norm),
)
sync_bn = "torch"  # where several devices train
