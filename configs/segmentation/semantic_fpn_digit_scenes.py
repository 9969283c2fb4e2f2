# Semantic FPN on digit scenes, for CPUs.
_base_ = [
    "../_base_/models/semantic_fpn.py",
    "../_base_/schedules/small.py",
    "../_base_/mmseg.py",
]

max_epochs = 5
width = 64
from_scratch = dict(norm_cfg=dict(type="BN"), initial_current=2.0)
class_weight = [0.3] + [1.0] * 10  # six pixels in seven are background

model = dict(
    data_preprocessor=dict(mean=[90.0] * 3, std=[50.0] * 3, bgr_to_rgb=False, size=(128, 128)),
    backbone=dict(name="meta_spikeformer_nano", min_stride=4, one_per_stride=False),
    neck=dict(out_channels=width, **from_scratch),
    decode_head=dict(
        channels=width,
        num_classes=11,
        loss_decode=dict(class_weight=class_weight),
        **from_scratch,
    ),
    auxiliary_head=dict(  # on the deepest level, where the class of a digit must be known
        type="SpikingFCNHead",
        channels=width,
        num_convs=1,
        num_classes=11,
        align_corners=False,
        loss_decode=dict(type="CrossEntropyLoss", class_weight=class_weight, loss_weight=0.4),
        **from_scratch,
    ),
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
log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50),
    checkpoint=dict(type="PlainCheckpointHook"),
)
