# Semantic FPN on cell nuclei (160 images to train on, 40 to test on), from scratch, on CPUs.
_base_ = [
    "../_base_/models/semantic_fpn.py",
    "../_base_/schedules/small.py",
    "../_base_/mmseg.py",
]

max_epochs = 28
width = 48
size = (384, 384)
scale = (640, 512)  # twice the images: a pixel along all edges is a quarter of the IoU
from_scratch = dict(norm_cfg=dict(type="BN"), initial_current=2.0)
integer_spikes = "ilif"  # 0 to 4: of one time step, more of a shade than a binary spike

model = dict(
    data_preprocessor=dict(size=size),
    backbone=dict(
        name="meta_spikeformer_nano",
        arguments=dict(neuron=integer_spikes, embed_dims=(32, 64, 128, 192)),
    ),
    neck=dict(out_channels=width, neuron=dict(neuron=integer_spikes), **from_scratch),
    decode_head=dict(
        channels=width,
        num_classes=2,
        neuron=dict(neuron=integer_spikes),
        loss_decode=[dict(type="CrossEntropyLoss"), dict(type="DiceLoss", loss_weight=1.0)],
        **from_scratch,
    ),
)

contrast = dict(  # four images in five fluoresce, the others are stained
    type="BrightOnDark",
    gamma=None,
    background=101,
    red=True,
    keep_colours=True,  # people drew the edges of dim nuclei further out
)
train_pipeline = [
    dict(type="LoadImageFromFile"),
    contrast,
    dict(type="LoadAnnotations"),
    dict(type="RandomResize", scale=scale, ratio_range=(0.7, 1.6), keep_ratio=True),
    dict(type="RandomCrop", crop_size=size),
    dict(
        type="RandomFlip", prob=[0.25, 0.25, 0.25], direction=["horizontal", "vertical", "diagonal"]
    ),
    dict(type="PackSegInputs"),
]
test_pipeline = [
    dict(type="LoadImageFromFile"),
    contrast,
    dict(type="Resize", scale=scale, keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
tta_pipeline = [  # with tta=True
    dict(type="LoadImageFromFile"),
    contrast,
    dict(
        type="TestTimeAug",
        transforms=[
            [
                dict(type="Resize", scale=each, keep_ratio=True)
                for each in (scale, (768, 614), (896, 717))
            ],
            [
                dict(type="RandomFlip", prob=0.0),
                dict(type="RandomFlip", prob=1.0, direction="horizontal"),
                dict(type="RandomFlip", prob=1.0, direction="vertical"),
            ],
            [dict(type="LoadAnnotations")],
            [dict(type="PackSegInputs")],
        ],
    ),
]
dataset = dict(
    type="BaseSegDataset",
    data_root="data/nuclei200/",
    metainfo=dict(classes=("background", "nucleus"), palette=[[0, 0, 0], [220, 60, 90]]),
    img_suffix=".png",
    seg_map_suffix=".png",
)
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        data_prefix=dict(img_path="images/train", seg_map_path="semantic/train"),
        pipeline=train_pipeline,
        **dataset,
    ),
)
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        data_prefix=dict(img_path="images/val", seg_map_path="semantic/val"),
        pipeline=test_pipeline,
        **dataset,
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type="MeanIoU")
test_evaluator = val_evaluator

train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(optimizer=dict(lr=3e-3, betas=(0.9, 0.99)))
param_scheduler = [
    dict(type="LinearLR", start_factor=0.05, by_epoch=False, begin=0, end=20),
    dict(
        type="CosineAnnealingLR",
        by_epoch=True,
        begin=0,
        end=max_epochs,
        eta_min=1e-5,
        convert_to_iter_based=True,
    ),
]
# batches are of few images, of two kinds: statistics of norms, too, are averaged
custom_hooks = [dict(type="EMAHook", momentum=0.01, update_buffers=True)]
log_processor = dict(by_epoch=True)
default_hooks = dict(
    logger=dict(type="LoggerHook", interval=50),
    checkpoint=dict(type="PlainCheckpointHook"),
)
