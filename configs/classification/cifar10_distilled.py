# CIFAR-10 in ten epochs with hard distillation from a checkpoint of cifar10.py; without a teacher
# see cifar10_short.py. --set classification.model.teacher.init_cfg.checkpoint=WEIGHTS
_base_ = ["./cifar10_short.py"]

model = dict(
    distillation=True,
    teacher=dict(
        backbone="meta_spikeformer_nano", init_cfg=dict(checkpoint="data/cifar10_teacher.ckpt")
    ),
)
