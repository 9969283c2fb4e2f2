# Mask R-CNN on cell nuclei (160 images to train on, 40 to test on), from scratch, on CPUs.
_base_ = [
    "../_base_/models/mask_rcnn.py",
    "mmdet::_base_/datasets/coco_instance.py",
    "../_base_/schedules/small.py",
    "../_base_/mmdet.py",
]

max_epochs = 32
width = 64
scale = (640, 512)  # twice the size of the images: half of the nuclei are below 14 pixels
from_scratch = dict(initial_current=2.0)

model = dict(
    backbone=dict(name="meta_spikeformer_nano"),
    neck=dict(out_channels=width, norm_cfg=dict(type="BN"), **from_scratch),
    rpn_head=dict(
        in_channels=width,
        feat_channels=width,
        anchor_generator=dict(scales=[4]),
        **from_scratch,
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=2), out_channels=width, finest_scale=28
        ),
        bbox_head=dict(in_channels=width, fc_out_channels=256, num_classes=1, **from_scratch),
        mask_roi_extractor=dict(
            roi_layer=dict(sampling_ratio=2), out_channels=width, finest_scale=28
        ),
        mask_head=dict(
            in_channels=width,
            conv_out_channels=width,
            num_convs=2,
            num_classes=1,
            norm_cfg=dict(type="BN"),
            **from_scratch,
        ),
    ),
    train_cfg=dict(
        rpn=dict(sampler=dict(num=256)),
        rpn_proposal=dict(nms_pre=1000, max_per_img=300),
        rcnn=dict(sampler=dict(num=128)),
    ),
    test_cfg=dict(rpn=dict(nms_pre=1000, max_per_img=500)),
)

contrast = dict(type="BrightOnDark")  # four images in five fluoresce, the others are stained
train_pipeline = [
    dict(type="LoadImageFromFile"),
    contrast,
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="RandomCrop", crop_size=(256, 256)),
    dict(
        type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]
    ),
    dict(type="PhotoMetricDistortion"),
    dict(type="PackDetInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    contrast,
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations", with_bbox=True, with_mask=True),
    dict(
        type="PackDetInputs",
        meta_keys=("img_id", "img_path", "ori_shape", "img_shape", "scale_factor"),
    ),
]
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        data_root="data/nuclei200/",
        ann_file="annotations/instances_train.json",
        data_prefix=dict(img="images/train/"),
        metainfo=dict(classes=("nucleus",)),
        pipeline=train_pipeline,
    ),
)
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root="data/nuclei200/",
        ann_file="annotations/instances_val.json",
        data_prefix=dict(img="images/val/"),
        metainfo=dict(classes=("nucleus",)),
        pipeline=test_pipeline,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="CocoAP", ann_file="data/nuclei200/annotations/instances_val.json")
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=2e-3))
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
