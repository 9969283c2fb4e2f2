# CIFAR-100 at 32x32, from scratch, under the protocol of CIFAR-10.
_base_ = ["./cifar10.py"]

data = dict(name="cifar100")
