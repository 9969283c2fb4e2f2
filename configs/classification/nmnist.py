# N-MNIST: 10 digits before a moving event camera, 34x34, for CPUs.
time_steps = 4
model = dict(
    backbone="meta_spikeformer_nano",
    time_steps=time_steps,
    arguments=dict(in_channels=2, neuron="ilif"),  # integer spikes, 0 to 4
    label_smoothing=0.1,
    warmup=0.1,
    optimizer=dict(opt="adamw", lr=4e-3, weight_decay=0.05),
)
data = dict(
    name="nmnist",
    time_steps=time_steps,
    frames="count",
    image_size=32,
    batch_size=25,
    num_workers=0,
    augment=dict(roll=3),
)
trainer = dict(max_epochs=50, precision="32-true", gradient_clip_val=5.0)
del time_steps
