"""Convolutions that skip zeros: for each output pixel, add the weights of the inputs that fired.

A dense convolution multiplies every input by its weights, but a spike is 0 or 1, and only some 5 to
30 % of a layer's inputs fire. Here the positions of the spikes are listed once, and for each of
them a row of weights is added, without a multiplication: work in proportion to the firing rate.
CPU, float32, inference; `event_conv.cpp` is compiled on first use.

Whether that beats a dense convolution depends on the layer, its rate and the machine, so
`use_event_convs` measures and chooses. `tests/benchmark/inference/event_conv_rates.py` prints what
it gives at rates of 5 to 40 %.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from math import ceil, inf
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.utils import _pair

from spikebench.native import load_kernels

_SOURCE = Path(__file__).with_suffix(".cpp")
_LANES = 16  # float32 values in a vector of the source
_NOT_SPIKES, _NO_MEMORY = 1, 2  # its status codes


class NotSpikesError(ValueError):
    """An input of an event-driven convolution is not a whole number in 0..255."""


class EventConv2d(nn.Conv2d):
    """A `Conv2d` for inference that reads spikes, made from a dense one.

    It shares the dense convolution's parameters, and is dense itself while training and where the
    kernel cannot be compiled. `eval()` and loading a state dict lay the weights out again; call
    `pack()` after changing them otherwise.

    Args:
        conv: a float32 convolution on the CPU: one group, no dilation, zero padding in numbers.

    Raises:
        ValueError: `conv` is of another kind.
    """

    packed: Tensor | None

    def __init__(self, conv: nn.Conv2d) -> None:
        if not is_supported(conv):
            raise ValueError(
                f"{conv} in {conv.weight.dtype} on {conv.weight.device} has no event-driven form; "
                "expected groups=1, dilation=1, zero padding in numbers, float32 on the CPU"
            )
        super().__init__(conv.in_channels, conv.out_channels, 1, device="meta")
        self.kernel_size, self.stride, self.padding = conv.kernel_size, conv.stride, conv.padding
        self.weight, self.bias = conv.weight, conv.bias
        self.train(conv.training)
        self.register_load_state_dict_post_hook(_pack_again)

    def train(self, mode: bool = True) -> EventConv2d:
        """As of any module; evaluation reads what training left in the parameters."""
        self.register_buffer("packed", None, persistent=False)
        if not mode:
            self.pack()
        return super().train(mode)

    def pack(self) -> None:
        """Lay the parameters out as the kernel reads them."""
        self.packed = _pack(self.weight, self.bias) if is_available() else None

    def forward(self, x: Tensor) -> Tensor:
        """Spikes `(N, C, H, W)` to currents `(N, C_out, H', W')`; see `event_conv2d`."""
        if self.packed is None:
            return super().forward(x)
        return _event_conv2d(
            x, self.packed, self.out_channels, self.kernel_size, self.stride, self.padding
        )


def _pack_again(module: nn.Module, _incompatible_keys: object) -> None:
    module.train(module.training)


def event_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: int | tuple[int, int] = 1,
    padding: int | tuple[int, int] = 0,
) -> Tensor:
    """`torch.nn.functional.conv2d` of spikes, event-driven, without gradients.

    Lays the weights out at each call, which `EventConv2d` does once. Dense where the kernel cannot
    be compiled.

    Args:
        x: spikes of shape `(N, C, H, W)`, float32 on the CPU, best channels-last: whole numbers
            0..255, of which a value v counts as v spikes.
        weight: of shape `(C_out, C, kernel height, kernel width)`, float32.
        bias: of shape `(C_out,)`.
        stride: in pixels, one number or (height, width).
        padding: zeros on each side, in pixels, one number or (height, width).

    Returns:
        Currents of shape `(N, C_out, H', W')`, channels-last, equal to a dense convolution's up to
        the rounding of another order of summation.

    Raises:
        NotSpikesError: a value of `x` is not a whole number in 0..255.
        ValueError: `x` is not float32 on the CPU, or its shape does not fit.
    """
    if not is_available():
        return functional.conv2d(x, weight, bias, stride, padding)
    packed = _pack(weight, bias)
    return _event_conv2d(x, packed, len(weight), weight.shape[2:], _pair(stride), _pair(padding))


def is_available() -> bool:
    """Whether the kernel can be compiled and loaded here; if not, warns once why."""
    return _library() is not None


def is_supported(conv: nn.Conv2d) -> bool:
    """Whether a convolution has an event-driven form."""
    return (
        conv.groups == 1
        and conv.dilation == (1, 1)
        and conv.padding_mode == "zeros"
        and not isinstance(conv.padding, str)
        and conv.weight.dtype == torch.float32
        and conv.weight.device.type == "cpu"
    )


@dataclass
class LayerChoice:
    """One convolution, timed in both forms on its own inputs.

    Attributes:
        name: of the module.
        rate: mean share of its inputs that are not zero, in 0..1.
        dense_ms: time of the dense form in milliseconds, summed over the batches.
        event_ms: that of the event-driven form; infinite where an input was no spike.
    """

    name: str
    rate: float
    dense_ms: float
    event_ms: float

    @property
    def event_driven(self) -> bool:
        """Whether the event-driven form is the faster one."""
        return self.event_ms < self.dense_ms


@dataclass
class EventConvReport:
    """What `use_event_convs` measured and chose; its string is a table."""

    layers: list[LayerChoice]

    def __str__(self) -> str:
        width = max((len(layer.name) for layer in self.layers), default=5)
        lines = [f"{'layer':<{width}}    rate  dense ms  event ms  choice"]
        for layer in self.layers:
            lines.append(
                f"{layer.name:<{width}}  {layer.rate:6.1%}  {layer.dense_ms:8.3f}"
                f"  {layer.event_ms:8.3f}  {'event' if layer.event_driven else 'dense'}"
            )
        return "\n".join(lines)


def use_event_convs(
    model: nn.Module, batches: Iterable[Tensor], repeats: int = 3
) -> EventConvReport:
    """Replace, in place, each convolution that is faster event-driven on the given batches.

    Both forms of each convolution are timed in turns on its inputs, in the memory format the model
    has and with torch's number of threads. Fold batch norms before.

    Args:
        model: in evaluation mode, float32 on the CPU.
        batches: typical inputs of the model, of the size it will be used with, in which what is
            whole numbers 0..255 must always be: a layer that is replaced refuses others.
        repeats: timed calls of each form for each input; the fastest counts.

    Returns:
        A row for each convolution that has an event-driven form, in the order of their first calls;
        none where the kernel cannot be compiled.

    Raises:
        ValueError: the model is in training mode.
    """
    if model.training:
        raise ValueError("the model is in training mode; call model.eval() first")
    names = {
        module: name
        for name, module in model.named_modules()
        if type(module) is nn.Conv2d and is_supported(module)
    }
    trials: dict[nn.Module, _Trial] = {}

    def measure(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(module, nn.Conv2d)
        if module not in trials:
            trials[module] = _Trial(module, EventConv2d(module))
        trials[module].add(args[0], repeats)

    hooks = [module.register_forward_pre_hook(measure) for module in names if is_available()]
    try:
        with torch.no_grad():
            for batch in batches:
                model(batch)
    finally:
        for hook in hooks:
            hook.remove()

    for name, module in list(model.named_modules(remove_duplicate=False)):
        if module in trials and trials[module].event_ms < trials[module].dense_ms:
            model.set_submodule(name, trials[module].event)
    return EventConvReport([trial.choice(names[trial.dense]) for trial in trials.values()])


class _Trial:
    """A convolution in both forms, and what was measured of them."""

    def __init__(self, dense: nn.Conv2d, event: EventConv2d) -> None:
        self.dense, self.event = dense, event
        self.fired = self.inputs = 0
        self.dense_ms = self.event_ms = 0.0

    def add(self, x: Tensor, repeats: int) -> None:
        self.fired += int(torch.count_nonzero(x))
        self.inputs += x.numel()
        forms: list[nn.Conv2d] = [self.dense, self.event]
        try:
            self.event.forward(x)
        except NotSpikesError:
            forms, self.event_ms = [self.dense], inf
        self.dense.forward(x)
        times: list[list[float]] = [[] for _ in forms]
        for _ in range(repeats):
            for form, taken in zip(forms, times, strict=True):
                start = time.perf_counter()
                form.forward(x)
                taken.append(1000 * (time.perf_counter() - start))
        self.dense_ms += min(times[0])
        self.event_ms += min(times[-1])

    def choice(self, name: str) -> LayerChoice:
        return LayerChoice(name, self.fired / max(1, self.inputs), self.dense_ms, self.event_ms)


class _Layer(ctypes.Structure):
    """`Layer` of the source."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("frames", "channels", "height", "width"),
            *("out_channels", "out_height", "out_width"),
            *("kernel_height", "kernel_width", "stride_height", "stride_width"),
            *("pad_height", "pad_width", "vectors", "block_channels"),
        )
    ]


@torch.library.custom_op("spikebench::event_conv2d", mutates_args=(), device_types="cpu")
def _event_conv2d(
    x: Tensor,
    packed: Tensor,
    out_channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    out = _empty_output(x, out_channels, kernel, stride, padding)
    library = _library()
    if library is None:
        raise RuntimeError("weights packed for the event-driven kernel, which is not compiled here")
    vectors, block_channels = _blocking(x.shape[1], out_channels, kernel[1])
    n_weights = _round_up(out_channels) * (1 + x.shape[1] * kernel[0] * kernel[1])
    if packed.numel() != n_weights or packed.dtype != x.dtype:
        raise ValueError(
            f"{x.shape[1]} channels of {x.dtype} do not fit the {packed.dtype} weights"
        )
    x = x.contiguous(memory_format=torch.channels_last)
    layer = _Layer(*x.shape, *out.shape[1:], *kernel, *stride, *padding, vectors, block_channels)
    bias = packed.data_ptr()
    weight = bias + packed.element_size() * _round_up(out_channels)
    status = library.event_conv(
        ctypes.byref(layer), x.data_ptr(), bias, weight, out.data_ptr(), torch.get_num_threads()
    )
    if status == _NOT_SPIKES:
        raise NotSpikesError(
            "an input is not a whole number in 0..255; event-driven convolutions read only spikes"
        )
    if status == _NO_MEMORY:
        raise MemoryError(f"no memory for the events of an input of shape {tuple(x.shape)}")
    return out


@_event_conv2d.register_fake
def _(
    x: Tensor,
    packed: Tensor,
    out_channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    return _empty_output(x, out_channels, kernel, stride, padding)


def _empty_output(
    x: Tensor,
    out_channels: int,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
) -> Tensor:
    if x.dim() != 4 or x.dtype != torch.float32 or x.device.type not in ("cpu", "meta"):
        raise ValueError(
            f"{x.dtype} input of shape {tuple(x.shape)} on {x.device}; "
            "expected float32 spikes (N, C, H, W) on the CPU"
        )
    size = [
        (length + 2 * pad - taps) // step + 1
        for length, taps, step, pad in zip(x.shape[2:], kernel, stride, padding, strict=True)
    ]
    if min(size) < 1:
        raise ValueError(f"kernel {tuple(kernel)} is larger than the input {tuple(x.shape)}")
    return torch.empty(
        (x.shape[0], out_channels, *size),
        dtype=x.dtype,
        device=x.device,
        memory_format=torch.channels_last,
    )


def _pack(weight: Tensor, bias: Tensor | None) -> Tensor:
    """The bias, padded, and the weights in the order in which the kernel reads them."""
    out_channels, channels, _, kernel_width = weight.shape
    padding = _round_up(out_channels) - out_channels
    vectors, block_channels = _blocking(channels, out_channels, kernel_width)
    bias = weight.new_zeros(out_channels) if bias is None else bias
    rows = functional.pad(weight.detach().permute(2, 3, 1, 0), (0, padding))
    blocks = [
        block.flatten()
        for outputs in rows.split(vectors * _LANES, dim=3)
        for block in outputs.split(block_channels, dim=2)
    ]
    return torch.cat([functional.pad(bias.detach(), (0, padding)), *blocks])


def _blocking(channels: int, out_channels: int, kernel_width: int) -> tuple[int, int]:
    """Vectors of output channels, and input channels, whose weights stay in a core's caches.

    One kernel row of a block has at most 64 KiB. Four vectors are enough to hide the latency of an
    addition; with eight, short rows of few channels are read less often.
    """
    vectors = _round_up(out_channels) // _LANES
    most = 8 if kernel_width * channels <= 128 else 4
    vectors = ceil(vectors / ceil(vectors / most))
    room = max(_LANES, 1024 // (vectors * kernel_width))
    return vectors, _round_up(ceil(channels / ceil(channels / room)))


def _round_up(channels: int) -> int:
    return ceil(channels / _LANES) * _LANES


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled kernel, or None with a warning if it cannot be compiled."""
    library = load_kernels(_SOURCE, "convolutions stay dense")
    if library is not None:
        pointer = ctypes.c_void_p
        library.event_conv.argtypes = [ctypes.POINTER(_Layer), *[pointer] * 4, ctypes.c_int]
    return library
