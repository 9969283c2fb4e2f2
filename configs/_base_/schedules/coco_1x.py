# 12 epochs with steps at 8 and 11, 16 images a step (8 devices with 2 each), as the successor code has
# it; AdamW as in the paper, which names a last stage at 2.5e-5 besides: the two steps end at 2e-6.
_base_ = ["mmdet::_base_/schedules/schedule_1x.py"]

optim_wrapper = dict(optimizer=dict(_delete_=True, type="AdamW", lr=2e-4, weight_decay=0.05))
