# HAR-DVS: 300 actions before a DAVIS346, brought to 128x128. The paper has T = 8 and an 18.3M model.
_base_ = ["./cifar10dvs.py"]

model = dict(backbone="meta_spikeformer_15m", time_steps=8)
data = dict(name="hardvs", time_steps=8, num_workers=8)
