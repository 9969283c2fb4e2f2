# Tiny-ImageNet at 64x64, from scratch, under the protocol of CIFAR-10.
_base_ = ["./cifar10.py"]

data = dict(name="tiny_imagenet", image_size=64, padding=8)
