# ImageNet-1K at T = 4, from the weights at T = 1, with hard distillation: 128 images a step (8 devices
# with 16 each). The published script says 50 epochs, 5 of them to warm up; the paper used 20 and 2.
# --set classification.load_from=t1.safetensors
_base_ = ["./imagenet.py"]

load_from = None
model = dict(
    time_steps=4,
    warmup=0.1,
    optimizer=dict(lr=1e-5),  # 2e-5 for 256 images
    distillation=True,
    teacher=dict(timm="caformer_b36.sail_in22k_ft_in1k"),
)
data = dict(batch_size=16)
trainer = dict(max_epochs=20)
