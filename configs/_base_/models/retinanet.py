# RetinaNet of MMDetection with spiking neck and head; Meta-SpikeFormer 15M at T = 1.
_base_ = ["mmdet::_base_/models/retinanet_r50_fpn.py"]

model = dict(
    type="SpikingRetinaNet",
    backbone=dict(
        _delete_=True,
        type="SpikingBackbone",
        name="meta_spikeformer_15m",
        time_steps=1,
        min_stride=8,
    ),
    neck=dict(
        _delete_=True,
        type="SpikingFPN",
        out_channels=256,
        add_extra_convs="on_input",
        num_outs=5,
    ),
    bbox_head=dict(
        type="SpikingRetinaHead",
        anchor_generator=dict(
            _delete_=True,
            type="AnchorGenerator",
            octave_base_scale=4,
            scales_per_octave=3,
            ratios=[0.5, 1.0, 2.0],
        ),
    ),
)
