# CIFAR-10 at 32x32 in 20 epochs, for CPUs.
_base_ = ["./cifar10.py"]

model = dict(
    arguments=dict(neuron="ilif", embed_dims=(32, 64, 128, 192)),  # integer spikes, 0 to 4
    channels_last=True,
)
data = dict(num_workers=1, augment=dict(_delete_=True, re_prob=0.1))
trainer = dict(max_epochs=20)
