# Semantic FPN of MMSegmentation with spiking neck and head; Meta-SpikeFormer 15M at T = 1.
_base_ = ["mmseg::_base_/models/fpn_r50.py"]

model = dict(
    type="SpikingEncoderDecoder",
    data_preprocessor=dict(size=(512, 512), test_cfg=dict(size_divisor=32)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="SpikingBackbone",
        name="meta_spikeformer_15m",
        time_steps=1,
        one_per_stride=True,
    ),
    neck=dict(_delete_=True, type="SpikingFPN", out_channels=128),
    decode_head=dict(
        _delete_=True,
        type="SpikingFPNHead",
        channels=128,
        dropout_ratio=0.1,
        norm_cfg=dict(type="BN", requires_grad=True),
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
)
sync_bn = "torch"  # where several devices train
