# Training from scratch on small data: epochs, AdamW. Each configuration names its epochs and rates.
train_cfg = dict(type="EpochBasedTrainLoop", val_interval=100)
val_cfg = dict(type="ValLoop")
test_cfg = dict(type="TestLoop")
optim_wrapper = dict(
    type="OptimWrapper",
    optimizer=dict(type="AdamW", weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
