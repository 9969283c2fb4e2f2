# ImageNet-1K at 224x224, 200 epochs, 1024 images a step (8 devices with 128 each).
# From tar files: --set classification.data.name=imagenet_shards
model = dict(
    backbone="meta_spikeformer_15m",
    time_steps=1,
    label_smoothing=0.1,
    warmup=0.05,
    min_lr=1e-6,
    optimizer=dict(opt="lamb", lr=2.4e-3, weight_decay=0.05, options=dict(trust_clip=True)),
)
data = dict(
    name="imagenet",
    num_classes=1000,
    image_size=224,
    batch_size=128,
    num_workers=8,
    augment=dict(auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25, re_mode="pixel"),
)
trainer = dict(max_epochs=200, precision="16-mixed")
