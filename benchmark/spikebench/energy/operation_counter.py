"""Counts what a model runs: sees each dispatched operation and adds it to the row of its module.

`spikebench.energy.profile` drives it. Which operations are counted stands in `operator_rules`, what
a call adds to a row in `synaptic_operations`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode

from spikebench.energy import operator_rules as rules
from spikebench.energy.batches import Images, number_of
from spikebench.energy.operations import NeuronRow, OperationRow, Uncounted
from spikebench.energy.running_rows import RunningRow, name_rows, neuron_row, operation_row
from spikebench.energy.running_statistics import ForwardPass, Operand, RunningSpread, ran_stepwise
from spikebench.energy.sample_tracking import SampleTracker
from spikebench.energy.synaptic_operations import (
    Convolution,
    count_convolution,
    count_linear,
    count_mask,
    count_matmul,
)
from spikebench.energy.tensor_statistics import SampleShape, StatisticsCache, TensorRead
from spikebench.energy.weight_tracking import WeightTracker, named_weights, tensors_in
from spikebench.neurons import is_neuron, update_cost

_NAMES: dict[Any, str] = {}
"""The names of operations that are not composed of others."""


@dataclass
class _ModuleCall:
    """One running call of a module, and how many operations of each kind it has run."""

    module: str
    operations: Counter[str] = field(default_factory=Counter)


class OperationCounter(TorchDispatchMode):
    """Counts operations and spikes while it is active.

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
        self._bytes_per_value: dict[str, int] = {}
        self._uncounted: dict[tuple[str, str], rules.Arithmetic] = {}
        self._calls: list[_ModuleCall] = []
        self._images = 0
        self._fired = False
        self._weights = WeightTracker(())
        self._statistics = StatisticsCache()
        self._samples = SampleTracker(steps, 1)

    @contextmanager
    def forward_pass(self, batch: Images) -> Iterator[None]:
        """Count one forward pass over the images of a batch, at least one."""
        images = number_of(batch)
        self._calls = [_ModuleCall("")]
        self._fired = False
        self._weights = WeightTracker(self._named_weights)
        self._samples = SampleTracker(self._steps, images)
        if not isinstance(batch, int):
            self._samples.note_images(batch)
        charged = {key: row.charged for key, row in self._rows.items()}
        with self:
            yield
        stepwise = ran_stepwise(self._spikes.values(), self._steps)
        done = ForwardPass(images, self._steps, stepwise)
        for spikes in self._spikes.values():
            spikes.end_pass(done)
        exact = [row.end_pass(done) for row in self._rows.values()]
        # The total so far holds another count of a row that is charged by a new rule from now on.
        steady = all(self._rows[key].charged == before for key, before in charged.items())
        known = [one for one in exact if one is not None] if steady else []
        whole = len(known) == len(exact)
        self.total.add([sum(image) for image in zip(*known, strict=True)] if whole else None)
        self._images += images

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Follow which module is running, and what the neurons give."""
        neuron = None
        with ExitStack() as stack:
            for name, module in self._model.named_modules():
                inside = neuron is not None and name.startswith(neuron)
                if not inside and is_neuron(module):
                    stack.enter_context(self._run_unseen(module, name))
                    neuron = f"{name}." if name else ""
                enter, leave = self._enter(name), self._leave(name)
                stack.callback(module.register_forward_pre_hook(enter, prepend=True).remove)
                stack.callback(module.register_forward_hook(leave, always_call=True).remove)
            yield

    @contextmanager
    def _run_unseen(self, neuron: nn.Module, name: str) -> Iterator[None]:
        """Let a neuron run in its fastest form: its updates are counted by its output alone."""
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
        self._samples.note_spikes(neuron, spikes)
        self._spikes.setdefault(name, Operand()).add(self._read(self._samples.as_samples(spikes)))
        self._bytes_per_value[name] = spikes.element_size()

    @contextmanager
    def _unseen(self) -> Iterator[None]:
        """Count nothing inside; if another mode lies on top, that one has to see it all."""
        if _get_current_dispatch_mode() is not self:
            yield
            return
        self.__exit__(None, None, None)
        try:
            yield
        finally:
            self.__enter__()

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda *_: self._calls.append(_ModuleCall(name))

    def _leave(self, name: str) -> Callable[..., None]:
        def leave(*_: Any) -> None:
            if len(self._calls) > 1 and self._calls[-1].module == name:
                self._calls.pop()

        return leave

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation and count it.

        `nn.Linear(4, 3)` on `(2, 4)` arrives here as `aten::t` of the weight, a view that the
        weight tracker follows, and then as `aten::addmm(bias, x, weight)`: a product whose second
        operand is a weight, so a row of kind linear with 2 * 4 * 3 dense MACs. A composite such as
        `aten::linear`, which arrives in inference mode, is first decomposed into such operations.
        """
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
        self._samples.follow(func, name, args, output)
        if any(x.layout is not torch.strided for x in tensors_in(args)):
            self._list(name, rules.Arithmetic("no rule", None))
        elif name in rules.CONVOLUTIONS:
            x, weight, _, stride, padding, dilation, transposed, _, groups = args[:9]
            shape = weight.shape
            self._convolution(
                x, weight, Convolution(shape, stride, padding, dilation, transposed, groups), output
            )
        elif name == rules.EVENT_CONVOLUTION:
            x, packed, channels, kernel, stride, padding = args[:6]
            shape = (channels, x.shape[1], *kernel)
            self._convolution(x, packed, Convolution(shape, stride, padding, (1, 1)), output)
        elif name in rules.PRODUCTS:
            start = rules.PRODUCTS[name]
            self._product(args[start], args[start + 1], output)
        elif not masks:
            found = rules.uncounted(func, args, kwargs, output, self._weights)
            if found is not None:
                self._list(name, found)
        return output

    def _list(self, operation: str, found: rules.Arithmetic) -> None:
        key = (self._calls[-1].module, operation)
        self._uncounted[key] = found.plus(self._uncounted.get(key))

    def _row(self, kind: str, weight: Tensor | None = None) -> RunningRow:
        """The row of an operation of the running module, by its weight, or by its turn if none."""
        call = self._calls[-1]
        names = [] if weight is None else self._weights.names(weight)
        if weight is not None and names:
            key: tuple[Any, ...] = (call.module, kind, names[0], weight.storage_offset())
        else:
            key = (call.module, kind, call.operations[kind])
            call.operations[kind] += 1
        if key not in self._rows:
            owned = any(name.rpartition(".")[0] == call.module for name in names)
            operands = [Operand() for _ in range(1 if weight is not None else 2)]
            row = RunningRow(call.module, kind, owned, not self._fired, operands)
            row.weights = 0 if weight is None else weight.numel()
            for spread in row.spreads:
                spread.images = self._images  # in these it did nothing
            self._rows[key] = row
        return self._rows[key]

    def _read(self, x: Tensor, samples: SampleShape | None = None) -> TensorRead:
        samples = self._samples.of_samples(x) if samples is None else samples
        return TensorRead(x, self._statistics(x), samples)

    def _convolution(
        self, x: Tensor, weight: Tensor, convolution: Convolution, output: Tensor
    ) -> None:
        if x not in self._weights:
            row = self._row(convolution.kind, weight)
            count_convolution(row, self._read(x), convolution, output)

    def _product(self, first: Tensor, second: Tensor, output: Tensor) -> None:
        """A product of matrices or vectors, or of stacks of them."""
        first_is_weight, second_is_weight = first in self._weights, second in self._weights
        if first_is_weight and second_is_weight:
            return
        inner = first.shape[-1]
        rows = first.shape[-2] if first.dim() > 1 else 1
        columns = second.shape[-1] if second.dim() > 1 else 1
        if first_is_weight or second_is_weight:
            x, weight = (second, first) if first_is_weight else (first, second)
            row = self._row("linear", weight)
            samples_first = x.dim() > 1 and (second_is_weight or x.dim() > 2)
            read = self._read(x, None if samples_first else SampleShape())
            count_linear(row, read, rows if first_is_weight else columns)
        else:
            row = self._row("matmul")
            samples = SampleShape()
            if first.dim() > 2:
                samples = self._samples.of_samples(first, second)
            count_matmul(row, self._read(first, samples), self._read(second, samples), samples)
        dense = prod(first.shape[:-2]) * rows * inner * columns
        row.dense += dense
        row.unpadded += dense
        row.outputs += output.numel()

    def _is_mask(self, pair: Sequence[Any]) -> bool:
        """Whether spikes are multiplied with another activation, value by value."""
        activations = all(
            isinstance(x, Tensor) and x.numel() > 1 and x not in self._weights for x in pair
        )
        return activations and any(self._samples.are_spikes(x) for x in pair)

    def _mask(self, first: Tensor, second: Tensor) -> None:
        shape = torch.broadcast_shapes(first.shape, second.shape)
        samples = self._samples.of_masked(shape, first, second)
        row = self._row("mul")
        for operand, x in zip(row.operands, (first, second), strict=True):
            operand.add(self._read(self._samples.as_samples(x)))
        count_mask(row, [self._read(x, samples) for x in (first, second)], samples)

    def rows(self, images: int) -> list[OperationRow]:
        """The rows, named, as means per image and (dense MACs) time step."""
        named = name_rows(self._rows.values(), self._model)
        return [operation_row(name, row, images, self._steps) for name, row in named.items()]

    def neurons(self, images: int) -> list[NeuronRow]:
        """The layers of neurons, as means per image."""
        layers = ((name, self._model.get_submodule(name)) for name in self._spikes)
        return [
            neuron_row(
                name,
                type(module).__name__,
                self._spikes[name],
                update_cost(module),
                self._bytes_per_value[name],
                images,
                self._steps,
            )
            for name, module in layers
        ]

    def uncounted(self, images: int) -> list[Uncounted]:
        """Return multiplying operations that no row counts, by module and operation."""
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
