# Ten clips of DVS128 Gesture, their beginnings to train on and their ends to test on, for CPUs.
_base_ = ["./nmnist.py"]

model = dict(optimizer=dict(lr=2e-3))
data = dict(
    name="dvs128gesture_clips", frames="time", image_size=128, batch_size=8, augment=dict(roll=10)
)
trainer = dict(max_epochs=24)
