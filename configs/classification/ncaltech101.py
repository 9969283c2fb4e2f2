# N-Caltech101: 101 classes of objects before a moving event camera, 240x180 brought to 128x128.
_base_ = ["./cifar10dvs.py"]

model = dict(time_steps=10)
data = dict(name="ncaltech101", time_steps=10)
