# Mask R-CNN of MMDetection with spiking neck and heads; Meta-SpikeFormer 15M at T = 1.
_base_ = ["mmdet::_base_/models/mask-rcnn_r50_fpn.py"]

model = dict(
    type="SpikingMaskRCNN",
    backbone=dict(
        _delete_=True,
        type="SpikingBackbone",
        name="meta_spikeformer_15m",
        time_steps=1,
        min_stride=4,
    ),
    neck=dict(_delete_=True, type="SpikingFPN", out_channels=256, num_outs=5),
    rpn_head=dict(
        type="SpikingRPNHead",
        anchor_generator=dict(
            _delete_=True, type="AnchorGenerator", scales=[8], ratios=[0.5, 1.0, 2.0]
        ),
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            _delete_=True,
            type="SpikingRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=7, sampling_ratio=0),
            out_channels=256,
        ),
        bbox_head=dict(type="SpikingShared2FCBBoxHead"),
        mask_roi_extractor=dict(
            _delete_=True,
            type="SpikingRoIExtractor",
            roi_layer=dict(type="RoIAlign", output_size=14, sampling_ratio=0),
            out_channels=256,
        ),
        mask_head=dict(type="SpikingFCNMaskHead"),
    ),
)
