# Mask R-CNN, PVT-tiny (an ANN), COCO 2017, with the protocol of the spiking ones.
_base_ = ["./mask_rcnn_resnet50_coco.py"]

model = dict(
    backbone=dict(
        _delete_=True,
        type="PyramidVisionTransformer",
        num_layers=[2, 2, 2, 2],
        init_cfg=dict(
            checkpoint="https://github.com/whai362/PVT/releases/download/v2/pvt_tiny.pth"
        ),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
