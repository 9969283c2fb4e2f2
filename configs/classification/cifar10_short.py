# CIFAR-10 in three epochs: what distillation is compared with.
_base_ = ["./cifar10.py"]

trainer = dict(max_epochs=3)
