# CIFAR-10 at 32x32, from scratch.
model = dict(
    backbone="meta_spikeformer_nano",
    time_steps=1,
    label_smoothing=0.1,
    warmup=0.05,
    optimizer=dict(opt="adamw", lr=3e-3, weight_decay=0.05),
)
data = dict(
    name="cifar10",
    image_size=32,
    batch_size=128,
    num_workers=2,
    padding=4,
    augment=dict(auto_augment="rand-m7-n1-mstd0.5-inc1", re_prob=0.25, re_mode="pixel"),
)
trainer = dict(max_epochs=60, precision="32-true", gradient_clip_val=5.0)
