# CIFAR-10 in ten epochs: what distillation is compared with.
_base_ = ["./cifar10.py"]

trainer = dict(max_epochs=10)
