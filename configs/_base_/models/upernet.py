# UPerNet of MMSegmentation with spiking heads; Meta-SpikeFormer 15M at T = 1.
_base_ = ["mmseg::_base_/models/upernet_r50.py"]

norm = dict(type="BN", requires_grad=True)

model = dict(
    type="SpikingEncoderDecoder",
    data_preprocessor=dict(size=(512, 512), test_cfg=dict(size_divisor=32)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type="SpikingBackbone",
        name="meta_spikeformer_15m",
        time_steps=1,
        min_stride=4,
    ),
    decode_head=dict(
        _delete_=True,
        type="SpikingUPerHead",
        pool_scales=(1, 2, 3, 6),
        channels=512,
        dropout_ratio=0.1,
        norm_cfg=norm,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=1.0),
    ),
    auxiliary_head=dict(
        _delete_=True,
        type="SpikingFCNHead",
        in_index=2,
        channels=256,
        num_convs=1,
        concat_input=False,
        dropout_ratio=0.1,
        norm_cfg=norm,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", use_sigmoid=False, loss_weight=0.4),
    ),
)
sync_bn = "torch"  # where several devices train
