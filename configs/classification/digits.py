# Handwritten digits of scikit-learn, enlarged to 32x32, for CPUs.
model = dict(
    backbone="meta_spikeformer_nano",
    time_steps=2,
    label_smoothing=0.1,
    warmup=0.1,
    optimizer=dict(opt="adamw", lr=4e-3, weight_decay=0.05),
)
data = dict(name="digits", image_size=32, batch_size=32, num_workers=0)
trainer = dict(max_epochs=6, precision="32-true", gradient_clip_val=5.0)
