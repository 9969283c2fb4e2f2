# 80k iterations with the paper's optimiser. It had 8 to 16 images a step: four devices with the 4
# of the stock data sets, or the 2 of Cityscapes.
_base_ = ["mmseg::_base_/schedules/schedule_80k.py"]

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type="AdamW", lr=1e-3, weight_decay=5e-3),
    paramwise_cfg=dict(custom_keys=dict(decode_head=dict(lr_mult=2.0))),
)
param_scheduler = [
    dict(type="LinearLR", start_factor=1e-6, by_epoch=False, begin=0, end=1500),
    dict(type="PolyLR", power=1.0, by_epoch=False, begin=1500, end=80_000, eta_min=0.0),
]
default_hooks = dict(checkpoint=dict(type="PlainCheckpointHook", interval=4000))
