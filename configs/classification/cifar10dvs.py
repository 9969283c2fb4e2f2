# CIFAR10-DVS: moving pictures of CIFAR-10 before an event camera, 128x128.
_base_ = ["./nmnist.py"]

model = dict(
    time_steps=16,
    arguments=dict(neuron="lif"),
    optimizer=dict(lr=1e-3),
    eventmix=dict(prob=0.5),
)
data = dict(
    name="cifar10dvs",
    time_steps=16,
    image_size=128,
    batch_size=32,
    num_workers=4,
    augment=dict(roll=5, flip=0.5, cutout=0.25),
)
trainer = dict(max_epochs=100, precision="bf16-mixed")
