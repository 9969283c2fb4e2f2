"""What necks and heads of spikes are made of, for MMDetection and MMSegmentation alike.

Every convolution and fully connected layer of theirs reads the spikes of its own layer of neurons:
neuron, then weights, then norm where there is one. Maps pass between layers as membranes, with
time and batch merged, time first: `(T * B, C, H, W)`, which norms, pooling and interpolation of the
stock packages take as they are. T here is what the adapter hands on: that of the backbone where
`keep_time` is set, 1 where the maps were averaged over time before the neck. Neurons keep nothing
from one call to the next, so that state is fresh in every forward pass, for every pyramid level and
every set of regions.

As in "Spike-driven Transformer V2" (Yao et al., ICLR 2024, arXiv 2404.03663), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmcv.cnn import ConvModule
from mmengine.registry import MODELS
from torch import Tensor, nn

from spikebench.neurons import neuron_factory, update_cost
from spikebench.task import ConfigError


def over_time(x: Tensor, time_steps: int) -> Tensor:
    """`(T * B, ...)` to `(T, B, ...)`; B may be 0."""
    return x.unflatten(0, (time_steps, len(x) // time_steps))


class Fire(nn.Module):
    """A layer of neurons over maps that have time and batch merged.

    Args:
        time_steps: T.
        neuron: a name in `spikebench.registry.NEURONS`.
        **options: those of that neuron, such as `threshold`.
    """

    def __init__(self, time_steps: int = 1, neuron: str = "lif", **options: Any) -> None:
        super().__init__()
        self.time_steps = time_steps
        self.neuron = neuron_factory(neuron, time_steps)(**options)
        outputs = update_cost(self.neuron).outputs
        if outputs > 1:
            raise ConfigError(
                f"neuron={neuron!r} with {options} gives {outputs} time steps for each one, which "
                "necks and heads cannot read; choose options that give one (of ilif: "
                "spike_driven=False)"
            )

    def forward(self, x: Tensor) -> Tensor:
        """Membranes `(T * B, ...)` to spikes of the same shape."""
        return self.neuron(over_time(x, self.time_steps)).flatten(0, 1)


@MODELS.register_module()
class SpikingConv2d(nn.Conv2d):
    """A convolution of spikes; `conv_cfg=dict(type='SpikingConv2d')` puts it into stock modules.

    It maps membranes `(T * B, C, H, W)` to membranes `(T * B, C', H', W')`.

    Args:
        *sizes: as `torch.nn.Conv2d`.
        time_steps: T.
        neuron: see `Fire`, as a dictionary of its arguments.
        **options: as `torch.nn.Conv2d`.
    """

    def __init__(
        self,
        *sizes: Any,
        time_steps: int = 1,
        neuron: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*sizes, **options)
        self.fire = Fire(time_steps, **(neuron or {}))

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # not in forward(), which MMCV's `efficient_conv_bn_eval` goes around
        return super()._conv_forward(self.fire(input), weight, bias)


class SpikingLayers:
    """Mixin before a stock neck or head whose layers are to read spikes.

    Args:
        time_steps: T of the maps that come in; the adapter fills it in.
        neuron: the arguments of `Fire`; None is a LIF as in the backbone.
        initial_current: the bias that layers which neurons read start from. With 0 hardly a neuron
            behind a freshly initialised layer fires; 2 is where a LIF fires in its first time step.
            It is for training from scratch: in the published code it is 0.
        **options: those of the stock class.
    """

    def __init__(
        self,
        *,
        time_steps: int = 1,
        neuron: Mapping[str, Any] | None = None,
        initial_current: float = 0.0,
        **options: Any,
    ) -> None:
        # before super().__init__, where stock classes build their layers
        self.time_steps = time_steps
        self.neuron = dict(neuron or {})
        self.initial_current = initial_current
        super().__init__(**options)

    def new_fire(self) -> Fire:
        """A layer of neurons."""
        return Fire(self.time_steps, **self.neuron)

    def mean_over_time(self, x: Tensor) -> Tensor:
        """`(T * B, ...)` to `(B, ...)`."""
        return over_time(x, self.time_steps).mean(0)

    def read_by_neurons(self) -> Iterable[nn.Module]:
        """The layers whose output neurons read, and of sums that neurons read one summand."""
        raise NotImplementedError

    def init_weights(self) -> None:
        """Initialise as the stock class does, then give neurons their initial current."""
        super().init_weights()  # type: ignore[misc]
        if self.initial_current:
            for layer in self.read_by_neurons():
                if isinstance(layer, ConvModule):
                    layer = layer.norm or layer.conv
                nn.init.constant_(layer.bias, self.initial_current)  # type: ignore[arg-type]


class SpikingConvs(SpikingLayers):
    """Mixin before a stock class that takes `conv_cfg`: its convolutions read spikes.

    Args:
        **options: those of `SpikingLayers` and of the stock class.
    """

    def __init__(
        self, *, time_steps: int = 1, neuron: Mapping[str, Any] | None = None, **options: Any
    ) -> None:
        conv = {"type": "SpikingConv2d", "time_steps": time_steps, "neuron": neuron}
        super().__init__(time_steps=time_steps, neuron=neuron, conv_cfg=conv, **options)
        for layer in self.modules():  # type: ignore[attr-defined]
            if isinstance(layer, ConvModule) and layer.with_activation:
                layer.with_activation = False
                del layer.activate

    def read_by_neurons(self) -> Iterable[nn.Module]:
        """Every layer of convolution and norm."""
        return [one for one in self.modules() if isinstance(one, ConvModule)]  # type: ignore[attr-defined]


class SpikingPyramid(SpikingConvs):
    """Mixin before the FPN of either package: neuron, then 1x1 or 3x3 convolution.

    What is summed from the top down are membranes, and so is what a further level pools.
    """

    def read_by_neurons(self) -> Iterable[nn.Module]:
        """All but the lateral layers below the top, which are added to it."""
        return [self.lateral_convs[-1], *self.fpn_convs]  # type: ignore[attr-defined]
