"""The running count of `profile_operations`: what each dispatched operation adds to which row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from spikebench.energy import operator_rules as rules
from spikebench.energy.batches import Images
from spikebench.energy.kernel_coverage import kernel_coverage
from spikebench.energy.operations import NeuronRow, OperationRow, Uncounted
from spikebench.energy.running_rows import RunningRow, counted, described, weighed, weighed_pairs
from spikebench.energy.running_statistics import ForwardPass, Operand, RunningSpread, ran_stepwise
from spikebench.energy.sample_tracking import SampleTracker
from spikebench.energy.tensor_statistics import SampleShape, StatisticsCache, merged_axes
from spikebench.energy.weight_tracking import WeightTracker, named_weights, tensors_in
from spikebench.neurons import is_neuron, update_cost

_NAMES: dict[Any, str] = {}
"""Of the operations that are no composites of others."""


@dataclass
class _Frame:
    """One running call of a module, and how many operations of each kind it has run."""

    module: str
    operations: Counter[str] = field(default_factory=Counter)


class OperationCounter(TorchDispatchMode):
    """Rows, spikes, and the stack of modules being called.

    Args:
        model: the model that is counted.
        steps: time steps that an image is seen for.

    Attributes:
        total: exact synaptic operations by image.
    """

    supports_higher_order_operators = True

    def __init__(self, model: nn.Module, steps: int) -> None:
        super().__init__()
        self.total = RunningSpread()
        self._model = model
        self._named_weights = list(named_weights(model))
        self._steps = steps
        self._rows: dict[tuple[Any, ...], RunningRow] = {}
        self._spikes: dict[str, Operand] = {}
        self._state_bytes: dict[str, float] = {}
        self._uncounted: dict[tuple[str, str], rules.Arithmetic] = {}
        self._frames: list[_Frame] = []
        self._images = 0
        self._fired = False
        self._weights = WeightTracker(())
        self._statistics = StatisticsCache()
        self._layouts = SampleTracker(steps, 1)

    @contextmanager
    def pass_over_model(self, batch: Images) -> Iterator[None]:
        """Count one forward pass over the images of a batch, at least one."""
        images = batch if isinstance(batch, int) else len(batch)
        self._frames = [_Frame("")]
        self._fired = False
        self._weights = WeightTracker(self._named_weights)
        self._layouts = SampleTracker(self._steps, images)
        if not isinstance(batch, int):
            self._layouts.note_images(batch)
        charged = {key: row.charged for key, row in self._rows.items()}
        with self:
            yield
        stepwise = ran_stepwise(self._spikes.values(), self._steps)
        about = ForwardPass(images, self._steps, stepwise)
        for spikes in self._spikes.values():
            spikes.end_pass(about)
        exact = [row.end_pass(about) for row in self._rows.values()]
        # a row that is charged in another way from now on has been added up in the former way
        steady = all(self._rows[key].charged == before for key, before in charged.items())
        known = [one for one in exact if one is not None] if steady else []
        whole = len(known) == len(exact)
        self.total.add([sum(image) for image in zip(*known, strict=True)] if whole else None)
        self._images += images

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Follow which module is running, and what comes out of the neurons."""
        neuron = None
        with ExitStack() as stack:
            for name, module in self._model.named_modules():
                inside = neuron is not None and name.startswith(neuron)
                if not inside and is_neuron(module):
                    stack.enter_context(self._opaque(module, name))
                    neuron = f"{name}." if name else ""
                enter, leave = self._enter(name), self._leave(name)
                stack.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
            yield

    @contextmanager
    def _opaque(self, neuron: nn.Module, name: str) -> Iterator[None]:
        """Let a neuron run unseen, in its fastest form: its updates are counted by its output."""
        forward = neuron.forward
        own = vars(neuron).get("forward")

        def run(*args: Any, **kwargs: Any) -> Any:
            with self._unseen():
                output = forward(*args, **kwargs)
                spikes = next(tensors_in([output]), None)
                if spikes is not None:
                    self._fire(name, neuron, spikes)
            return output

        vars(neuron)["forward"] = run
        try:
            yield
        finally:
            if own is None:
                del vars(neuron)["forward"]
            else:
                vars(neuron)["forward"] = own

    def _fire(self, name: str, neuron: nn.Module, spikes: Tensor) -> None:
        self._fired = True
        self._layouts.note_spikes(neuron, spikes)
        samples = self._layouts.as_samples(spikes)
        total = self._spikes.setdefault(name, Operand())
        total.add(self._statistics(samples), samples, self._layouts.of_samples(samples))
        self._state_bytes[name] = update_cost(neuron).states * spikes.element_size()

    @contextmanager
    def _unseen(self) -> Iterator[None]:
        """Count nothing inside; where another mode has come on top, that one has to see it all."""
        if _get_current_dispatch_mode() is not self:
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda *_: self._frames.append(_Frame(name))

    def _leave(self, name: str) -> Callable[..., None]:
        def leave(*_: Any) -> None:
            if len(self._frames) > 1 and self._frames[-1].module == name:
                self._frames.pop()

        return leave

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if not isinstance(func, OpOverload):  # such as flex_attention
            self._list(str(func), rules.Arithmetic("no rule", None))
            return func(*args, **kwargs)
        if func not in _NAMES:
            with self:  # inference mode lets composite operations through
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
            _NAMES[func] = func._schema.name
        name = _NAMES[func]
        masks = name in rules.MULTIPLICATIONS and self._is_mask(args[:2])
        if masks:  # before a write in place
            self._mask(args[0], args[1])
        output = func(*args, **kwargs)
        self._weights.follow(func, args, output)
        self._layouts.follow(func, name, args, output)
        if any(x.layout is not torch.strided for x in tensors_in(args)):
            self._list(name, rules.Arithmetic("no rule", None))
        elif name in rules.CONVOLUTIONS:
            x, weight, _, stride, padding, dilation, transposed, _, groups = args[:9]
            geometry = (stride, padding, dilation)
            self._convolution(x, weight, weight.shape, geometry, transposed, groups, output)
        elif name == rules.EVENT_CONVOLUTION:
            x, packed, channels, kernel, stride, padding = args[:6]
            geometry, shape = (stride, padding, (1, 1)), (channels, x.shape[1], *kernel)
            self._convolution(x, packed, shape, geometry, False, 1, output)
        elif name in rules.PRODUCTS:
            start = rules.PRODUCTS[name]
            self._product(args[start], args[start + 1], output)
        elif not masks:
            found = rules.uncounted(func, args, kwargs, output, self._weights)
            if found is not None:
                self._list(name, found)
        return output

    def _list(self, operation: str, found: rules.Arithmetic) -> None:
        key = (self._frames[-1].module, operation)
        self._uncounted[key] = found.plus(self._uncounted.get(key))

    def _row(self, kind: str, weight: Tensor | None = None) -> RunningRow:
        frame = self._frames[-1]
        names = [] if weight is None else self._weights.names(weight)
        if weight is not None and names:
            key: tuple[Any, ...] = (frame.module, kind, names[0], weight.storage_offset())
        else:
            key = (frame.module, kind, frame.operations[kind])
            frame.operations[kind] += 1
        if key not in self._rows:
            owned = any(name.rpartition(".")[0] == frame.module for name in names)
            operands = [Operand() for _ in range(1 if weight is not None else 2)]
            row = RunningRow(frame.module, kind, owned, not self._fired, operands)
            row.weights = 0 if weight is None else weight.numel()
            for spread in row.spreads:
                spread.images = self._images  # in these it did nothing
            self._rows[key] = row
        return self._rows[key]

    def _convolution(
        self,
        x: Tensor,
        weight: Tensor,
        shape: Sequence[int],
        geometry: Sequence[Sequence[int]],
        transposed: bool,
        groups: int,
        output: Tensor,
    ) -> None:
        """A convolution whose weight has the given shape, however it lies in `weight`."""
        if x in self._weights:
            return
        axes = len(shape) - 2
        row = self._row(f"conv{'_transpose' if transposed else ''}{axes}d", weight)
        row.weights = prod(shape)
        statistics = self._statistics(x)
        layout = self._layouts.of_samples(x)
        row.operands[0].add(statistics, x, layout)

        per_axis = zip(
            x.shape[2:],
            output.shape[2:],
            shape[2:],
            *(list(value) * (axes // len(value)) for value in geometry),
            strict=True,
        )
        met = [kernel_coverage(*axis, transposed, x.device) for axis in per_axis]
        filters = shape[1] if transposed else shape[0] // groups
        taps = filters * prod(shape[2:])
        unpadded = x.shape[0] * x.shape[1] * filters * prod(axis.total for axis in met)
        row.dense += (x if transposed else output).numel() * prod(shape[1:])
        row.unpadded += unpadded
        row.outputs += output.numel()

        def meetings(weigh: bool) -> Tensor:
            if unpadded == x.numel() * taps:
                return statistics.by_sample(x, layout, weigh) * taps
            counts = statistics.sums(merged_axes(x), (1,), weigh).view(len(x), *x.shape[2:])
            for axis in reversed(met):
                counts = counts @ axis.counts
            return counts.view(layout.samples, -1).sum(1).view(layout) * filters

        row.add(weighed(meetings, row.operands[0], statistics, x), layout)

    def _product(self, first: Tensor, second: Tensor, output: Tensor) -> None:
        first_is_weight, second_is_weight = first in self._weights, second in self._weights
        if first_is_weight and second_is_weight:
            return
        batch = prod(first.shape[:-2])
        inner = first.shape[-1]
        rows = first.shape[-2] if first.dim() > 1 else 1
        columns = second.shape[-1] if second.dim() > 1 else 1
        if first_is_weight or second_is_weight:
            x, weight = (second, first) if first_is_weight else (first, second)
            row = self._row("linear", weight)
            statistics = self._statistics(x)
            samples_first = x.dim() > 1 and (second_is_weight or x.dim() > 2)
            layout = self._layouts.of_samples(x) if samples_first else SampleShape()
            row.operands[0].add(statistics, x, layout)
            met = rows if first_is_weight else columns

            def meetings(weigh: bool) -> Tensor:
                return statistics.by_sample(x, layout, weigh) * met

            row.add(weighed(meetings, row.operands[0], statistics, x), layout)
        else:
            row = self._row("matmul")
            self._matmul(row, first, second)
        dense = batch * rows * inner * columns
        row.dense += dense
        row.unpadded += dense
        row.outputs += output.numel()

    def _matmul(self, row: RunningRow, first: Tensor, second: Tensor) -> None:
        layout = self._layouts.of_samples(first, second) if first.dim() > 2 else SampleShape()
        a, b = self._statistics(first), self._statistics(second)
        row.operands[0].add(a, first, layout)
        row.operands[1].add(b, second, layout)

        def meetings(weigh_first: bool, weigh_second: bool) -> Tensor:
            down = (
                a.sums(first, (first.dim() - 2,), weigh_first)
                if first.dim() > 1
                else counted(first, weigh_first)
            )
            across = (
                b.sums(second, (second.dim() - 1,), weigh_second)
                if second.dim() > 1
                else counted(second, weigh_second)
            )
            return (down * across).reshape(layout.samples, -1).sum(1).view(layout)

        row.add(weighed_pairs(meetings, row.operands, (a, b), (first, second)), layout)

    def _is_mask(self, pair: Sequence[Any]) -> bool:
        """Whether spikes are multiplied with another activation, value by value."""
        activations = all(
            isinstance(x, Tensor) and x.numel() > 1 and x not in self._weights for x in pair
        )
        return activations and any(self._layouts.are_spikes(x) for x in pair)

    def _mask(self, first: Tensor, second: Tensor) -> None:
        row = self._row("mul")
        shape = torch.broadcast_shapes(first.shape, second.shape)
        layout = self._layouts.of_masked(shape, first, second)
        a, b = self._statistics(first), self._statistics(second)
        for operand, statistics, x in zip(row.operands, (a, b), (first, second), strict=True):
            samples = self._layouts.as_samples(x)
            operand.add(statistics, samples, self._layouts.of_samples(samples))

        def meetings(weigh_first: bool, weigh_second: bool) -> Tensor:
            met = counted(first, weigh_first) * counted(second, weigh_second)
            return met.reshape(layout.samples, -1).sum(1).view(layout)

        row.add(weighed_pairs(meetings, row.operands, (a, b), (first, second)), layout)
        row.dense += prod(shape)
        row.unpadded += prod(shape)
        row.outputs += prod(shape)

    def rows(self, images: int) -> list[OperationRow]:
        """The rows, named, as means per image and (dense MACs) time step."""
        return [described(name, row, images, self._steps) for name, row in self._named().items()]

    def neurons(self, images: int) -> list[NeuronRow]:
        """The layers of neurons, as means per image."""
        found = []
        for name, spikes in self._spikes.items():
            module = self._model.get_submodule(name)
            cost = update_cost(module)
            updates = spikes.elements / (images * cost.outputs)
            neurons = updates / self._steps
            found.append(
                NeuronRow(
                    name=name,
                    kind=type(module).__name__,
                    neurons=neurons,
                    updates=updates,
                    additions=cost.additions,
                    multiplications=cost.multiplications,
                    state_bytes=neurons * self._state_bytes[name],
                    rate=spikes.rate,
                    rates=spikes.rates,
                    rate_std=spikes.spread.deviation,
                    spikes=(spikes.weighed if spikes.kind == "integer" else spikes.nonzeros)
                    / images,
                )
            )
        return found

    def uncounted(self, images: int) -> list[Uncounted]:
        """What multiplies and is in no row, summed up by module and operation."""
        per_step = images * self._steps
        return [
            Uncounted(
                name=module,
                operation=operation,
                reason=done.reason,
                multiplications=done.multiplications and done.multiplications / per_step,
            )
            for (module, operation), done in self._uncounted.items()
        ]

    def _named(self) -> dict[str, RunningRow]:
        rows = self._rows.values()
        total = Counter(row.module for row in rows)
        owned = Counter(row.module for row in rows if row.owned)
        leaves = {
            name for name, module in self._model.named_modules() if not any(module.children())
        }
        named: dict[str, RunningRow] = {}
        for row in rows:
            alone = row.owned and owned[row.module] == 1
            alone |= row.module in leaves and total[row.module] == 1
            name = row.module if alone and row.module else f"{row.module}.{row.kind}".lstrip(".")
            numbered = chain([name], (f"{name}_{i}" for i in count(1)))
            named[next(free for free in numbered if free not in named)] = row
        return named
