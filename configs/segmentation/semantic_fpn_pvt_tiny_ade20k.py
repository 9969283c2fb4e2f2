# Semantic FPN, PVT-tiny (an ANN), ADE20K, with the protocol of the spiking ones.
_base_ = ["./semantic_fpn_resnet50_ade20k.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="mmdet.PyramidVisionTransformer",
        num_layers=[2, 2, 2, 2],
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_tiny.pth"
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
