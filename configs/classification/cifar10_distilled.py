# CIFAR-10 in three epochs with hard distillation; without a teacher see cifar10_short.py.
_base_ = ["./cifar10_short.py"]

model = dict(
    distillation=True,
    teacher=dict(  # as cifar10_nano.py trains it: run configs/suites/classification_small.yaml first
        backbone="meta_spikeformer_nano",
        arguments=dict(neuron="ilif", embed_dims=(32, 64, 128, 192)),
        init_cfg=dict(checkpoint="work_dirs/classification_small/ced04ef8460f/epoch=19.ckpt"),
    ),
)
