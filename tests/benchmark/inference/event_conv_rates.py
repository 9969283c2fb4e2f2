"""Times dense and event-driven convolutions at set firing rates, in turns; run it as a script.

    python tests/benchmark/backbones/event_conv_rates.py

The layers are those of Meta-SpikeFormer 15M that read spikes, at 224x224 with T * B = 16 frames.
Prints a Markdown table of milliseconds (medians), and how many times as fast event-driven is.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from spikebench.inference.event_conv import EventConv2d
from spikebench.process import settle_process

FRAMES, ROUNDS, RATES = 16, 7, (0.05, 0.10, 0.20, 0.40)
LAYERS = [  # channels in, out, kernel, stride, pixels each side
    (32, 128, 3, 1, 112),
    (128, 32, 3, 1, 112),
    (64, 256, 3, 1, 56),
    (256, 64, 3, 1, 56),
    (128, 512, 3, 1, 28),
    (512, 128, 3, 1, 28),
    (64, 128, 3, 2, 56),
    (128, 256, 3, 2, 28),
    (256, 360, 3, 1, 14),
    (64, 128, 1, 1, 56),
    (128, 256, 1, 1, 28),
    (256, 1024, 1, 1, 14),
    (1024, 256, 1, 1, 14),
    (256, 256, 1, 1, 14),
    (256, 256, 3, 1, 14),
]


def milliseconds(run: Callable[[], object]) -> float:
    begun = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - begun)


def measure(*layer: int) -> list[str]:
    channels, outputs, kernel, stride, side = layer
    conv = nn.Conv2d(channels, outputs, kernel, stride, padding=kernel // 2).eval()
    conv = conv.to(memory_format=torch.channels_last)
    event = EventConv2d(conv)
    uniform = torch.rand(FRAMES, channels, side, side).to(memory_format=torch.channels_last)
    forms = {"float32": lambda: conv(uniform)}
    for rate in RATES:
        spikes = (uniform < rate).float()
        forms[f"{rate:.0%}"] = lambda spikes=spikes: event(spikes)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for turn in range(ROUNDS + 2):
        for name, run in forms.items():
            taken = milliseconds(run)
            if turn > 1:
                times[name].append(taken)
    found = {name: median(taken) for name, taken in times.items()}
    dense = found.pop("float32")
    cells = [f"{taken:.2f} ({dense / taken:.1f}x)" for taken in found.values()]
    return [
        f"{channels} to {outputs}, {kernel}x{kernel}, s{stride}, {side}",
        f"{dense:.2f}",
        *cells,
    ]


def main() -> None:
    torch.manual_seed(0)
    print(f"{torch.get_num_threads()} threads, medians of {ROUNDS} turns, milliseconds")
    header = ["layer", "dense", *(f"event {rate:.0%}" for rate in RATES)]
    print(f"| {' | '.join(header)} |\n|{'---|' * len(header)}")
    with torch.inference_mode():
        for layer in LAYERS:
            print(f"| {' | '.join(measure(*layer))} |", flush=True)


if __name__ == "__main__":
    settle_process()
    main()
