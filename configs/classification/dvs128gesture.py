# DVS128 Gesture: 11 gestures of 29 people before an event camera, 128x128.
_base_ = ["./nmnist.py"]

model = dict(time_steps=16, arguments=dict(neuron="lif"), optimizer=dict(lr=1e-3))
data = dict(
    name="dvs128gesture",
    time_steps=16,
    image_size=128,
    batch_size=16,
    num_workers=4,
    augment=dict(roll=10),  # a mirrored gesture is another one: no flips
)
trainer = dict(max_epochs=200, precision="bf16-mixed")
