# Semantic FPN on digit scenes, for CPUs.
_base_ = ["../_base_/digit_scenes.py"]

default_scope = "mmseg"
custom_imports = dict(imports=["tasks.segmentation.registered"], allow_failed_imports=False)

max_epochs = 5
width = 64
norm_cfg = dict(type="BN", requires_grad=True)
class_weight = [0.3] + [1.0] * 10  # six pixels in seven are background

model = dict(
    type="SpikingEncoderDecoder",
    data_preprocessor=dict(
        type="SegDataPreProcessor",
        mean=[90.0] * 3,
        std=[50.0] * 3,
        size=(128, 128),
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(type="SpikingBackbone", name="meta_spikeformer_nano", time_steps=1, min_stride=4),
    neck=dict(type="FPN", out_channels=width, norm_cfg=norm_cfg),
    decode_head=dict(
        type="FPNHead",
        channels=width,
        dropout_ratio=0.1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", class_weight=class_weight, loss_weight=1.0),
    ),
    auxiliary_head=dict(  # on the deepest level, where the class of a digit must be known
        type="FCNHead",
        in_channels=width,
        channels=width,
        num_convs=1,
        num_classes=11,
        norm_cfg=norm_cfg,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", class_weight=class_weight, loss_weight=0.4),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode="whole"),
)

train_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
test_pipeline = train_pipeline
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(type="DigitScenesSegmentation", split="train", pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=8,
    num_workers=0,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="DigitScenesSegmentation", split="test", test_mode=True, pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MeanIoU")
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=5e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=50),
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        begin=0,
        end=max_epochs,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]

# Helpers above: without them an override of one is an error, and not without effect.
del class_weight, max_epochs, norm_cfg, test_pipeline, train_pipeline, width
