# HAR-DVS: 300 actions before a DAVIS346, brought to 128x128, at T = 8 as in the paper. Its model has 18.3M
# parameters; how it differs from the 15M one is published nowhere.
_base_ = ["./cifar10dvs.py"]

model = dict(backbone="meta_spikeformer_15m", time_steps=8)
data = dict(name="hardvs", time_steps=8, num_workers=8)
