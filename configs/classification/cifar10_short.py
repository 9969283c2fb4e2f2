# CIFAR-10 in three epochs with a narrow backbone: what distillation is compared with.
_base_ = ["./cifar10.py"]

model = dict(arguments=dict(embed_dims=(16, 32, 64, 96)), channels_last=True)
data = dict(num_workers=1, augment=dict(_delete_=True, re_prob=0.1))
trainer = dict(max_epochs=3)
