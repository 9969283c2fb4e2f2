"""Counting the synaptic operations that a model really runs, streamed over a data set.

A dispatch mode sees every convolution and matrix product below modules and functionals alike;
forward hooks say which module is running. Attention runs through its plain kernel, so that both of
its products are seen. Not counted are elementwise operations (batch norm, masks, residual sums) and
whatever is computed from parameters alone, since that folds away before deployment.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, count
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from benchmark.energy.operations import Form, NeuronRow, OperationReport, OperationRow
from benchmark.energy.statistics import Operand, StatisticsCache, coverage
from benchmark.energy.weights import Weights, tensors_in
from benchmark.neurons import is_neuron

Forward = Callable[[nn.Module, Any], Any]

_CONVOLUTIONS = {"aten::convolution", "aten::_convolution"}
_PRODUCTS = {  # the position of the first of the two matrices among the arguments
    "aten::mm": 0,
    "aten::bmm": 0,
    "aten::mv": 0,
    "aten::dot": 0,
    "aten::vdot": 0,
    "aten::addmm": 1,
    "aten::addmm_": 1,
    "aten::_addmm_activation": 1,
    "aten::addmv": 1,
    "aten::addmv_": 1,
    "aten::baddbmm": 1,
    "aten::baddbmm_": 1,
    "aten::addbmm": 1,
    "aten::addbmm_": 1,
}
_UNKNOWN = {
    "aten::_cudnn_rnn",
    "aten::_int_mm",
    "aten::_scaled_mm",
    "aten::_trilinear",
    "aten::_weight_int4pack_mm",
    "aten::_weight_int8pack_mm",
    "aten::miopen_rnn",
    "aten::mkldnn_rnn_layer",
    "spikebench::event_conv2d",  # the dense form of a model is what is counted
}


def profile_operations(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    forward: Forward | None = None,
    time_steps: int | None = None,
    form: Form = "as-coded",
    progress: Callable[[int], object] | None = None,
) -> OperationReport:
    """Count the operations of a model over a data set, with one forward pass a batch.

    The model runs in eval mode without gradients and is left as it was found. Only numbers are
    kept from one operation to the next, so the data set may be of any length.

    A row is named after the module whose operation it is: the module itself where the weight is
    its own parameter, or where the operation is the only one of a module without submodules;
    otherwise `<module>.<kind>`, `<module>.<kind>_1` and so on, in the order within one call of the
    module. A module that is called many times adds to the same rows.

    Args:
        model: any module, on any device; its neurons are `benchmark.neurons.Neuron` or modules
            with an attribute `v_threshold`.
        batches: what `forward` takes, on the model's device: tensors of shape `(B, ...)`,
            mappings with B `inputs`, or tuples and lists whose first element is one of these.
        forward: runs the model on a batch; `model(batch)` by default.
        time_steps: time steps an image is seen for; by default the attribute `time_steps` of the
            model, or of the first submodule that has one, or 1.
        form: what the report calls the form of the model.
        progress: called after each batch with the number of images counted so far.

    Returns:
        One row per operation, in the order of first execution, and the neurons' firing rates.

    Raises:
        TypeError: the number of images in a batch cannot be told.
        ValueError: there is no image to count, or `time_steps` is not positive.
        NotImplementedError: the model runs an operation on its weights that has no counting rule.

    Example:
        >>> report = profile_operations(nn.Linear(4, 3), [torch.eye(4)])
        >>> report.rows[0].dense_macs, report.rows[0].rate, report.synaptic_operations
        (12.0, 0.25, 3.0)
    """
    forward = forward or _call
    steps = _time_steps(model) if time_steps is None else time_steps
    if steps < 1:
        raise ValueError(f"time_steps is {steps}; an image is seen for at least 1 time step")
    counting = _Counting(model)
    images = 0
    with _evaluating(model), counting.hooks():
        for batch in batches:
            images += count_images(batch)
            with torch.no_grad(), _plain_attention(), counting.pass_over_model():
                forward(model, batch)
            if progress is not None:
                progress(images)
    if images == 0:
        raise ValueError("there is no image to count: the batches are empty")
    return OperationReport(
        form=form,
        images=images,
        time_steps=steps,
        rows=counting.report_rows(images, steps),
        neurons=[
            NeuronRow(
                name=name,
                kind=type(model.get_submodule(name)).__name__,
                neurons=spikes.elements / images / steps,
                updates=spikes.elements / images,
                state_bytes=4 * spikes.elements / images / steps,
                rate=spikes.rate,
                spikes=spikes.nonzeros / images,
            )
            for name, spikes in counting.spikes.items()
        ],
    )


def count_images(batch: Any) -> int:
    """How many images a batch holds.

    Args:
        batch: a tensor of shape `(B, ...)`, a mapping with B `inputs`, or a tuple or list whose
            first element is one of these.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(batch, Tensor) and batch.dim() > 0:
        return batch.shape[0]
    if isinstance(batch, Mapping) and "inputs" in batch:
        return len(batch["inputs"])
    if isinstance(batch, tuple | list) and batch:
        return count_images(batch[0])
    raise TypeError(
        f"cannot tell the number of images in a batch of type {type(batch).__name__}; it must be a "
        "tensor (B, ...), a mapping with 'inputs', or a tuple or list that starts with one of these"
    )


def _call(model: nn.Module, batch: Any) -> Any:
    return model(batch)


def _time_steps(model: nn.Module) -> int:
    found = (getattr(module, "time_steps", None) for module in model.modules())
    return next((steps for steps in found if type(steps) is int), 1)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        yield
    finally:
        for module, flag in training:
            module.training = flag


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Fused attention kernels hide their products; the plain ones do not."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@dataclass
class _Row:
    module: str
    kind: str
    owned: bool
    dense: int = 0
    unpadded: int = 0
    exact: int = 0
    first: Operand = field(default_factory=Operand)
    second: Operand | None = None


@dataclass
class _Frame:
    """One running call of a module, and how many operations of each kind it has run."""

    module: str
    operations: Counter[str] = field(default_factory=Counter)


class _Counting(TorchDispatchMode):
    """The running count: rows, spikes, and the stack of modules being called."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.rows: dict[tuple[Any, ...], _Row] = {}
        self.spikes: dict[str, Operand] = {}
        self.frames: list[_Frame] = []
        self.names: dict[Any, str] = {}
        self.weights = Weights(model)
        self.statistics = StatisticsCache()

    @contextmanager
    def pass_over_model(self) -> Iterator[None]:
        """Count one forward pass."""
        self.frames = [_Frame("")]
        self.weights = Weights(self.model)
        with self:
            yield

    @contextmanager
    def hooks(self) -> Iterator[None]:
        """Follow which module is running, and what comes out of the neurons."""
        handles = []
        neuron = None
        try:
            for name, module in self.model.named_modules():
                inside = neuron is not None and name.startswith(neuron)
                if not inside and is_neuron(module):
                    handles.append(module.register_forward_hook(self._firing(name)))
                    neuron = f"{name}." if name else ""
                handles.append(module.register_forward_pre_hook(self._enter(name), prepend=True))
                handles.append(module.register_forward_hook(self._leave(name), always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str) -> Callable[..., None]:
        return lambda *_: self.frames.append(_Frame(name))

    def _leave(self, name: str) -> Callable[..., None]:
        def leave(*_: Any) -> None:
            if len(self.frames) > 1 and self.frames[-1].module == name:
                self.frames.pop()

        return leave

    def _firing(self, name: str) -> Callable[..., None]:
        def add(module: nn.Module, inputs: Any, output: Any) -> None:
            spikes = next(tensors_in([output]), None)
            if spikes is not None:
                total = self.spikes.setdefault(name, Operand())
                total.add(self.statistics(spikes), spikes)

        return add

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in self.names:
            with self:  # inference mode lets composite operations through
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
            self.names[func] = func._schema.name
        name = self.names[func]
        self._refuse_unknown(name, args)
        output = func(*args, **kwargs)
        self.weights.follow(func, args, output)
        if name in _CONVOLUTIONS:
            self._convolution(args, output)
        elif name in _PRODUCTS:
            start = _PRODUCTS[name]
            self._product(args[start], args[start + 1])
        return output

    def _refuse_unknown(self, name: str, args: Sequence[Any]) -> None:
        foreign = not name.startswith(("aten::", "prim"))
        if name in _UNKNOWN or (foreign and self._mixes_in_weights(args)):
            raise NotImplementedError(
                f"module {self.frames[-1].module!r} runs {name}, which has no counting rule; "
                "a count without it would be too low"
            )

    def _mixes_in_weights(self, args: Sequence[Any]) -> bool:
        tensors = list(tensors_in(args))
        weights = [x for x in tensors if x in self.weights]
        return len(weights) < len(tensors) and any(x.dim() > 1 for x in weights)

    def _row(self, kind: str, weight: Tensor | None) -> _Row:
        frame = self.frames[-1]
        names = [] if weight is None else self.weights.names(weight)
        if weight is not None and names:
            key: tuple[Any, ...] = (frame.module, kind, names[0], weight.storage_offset())
        else:
            key = (frame.module, kind, frame.operations[kind])
            frame.operations[kind] += 1
        owned = any(name.rpartition(".")[0] == frame.module for name in names)
        return self.rows.setdefault(key, _Row(frame.module, kind, owned))

    def _convolution(self, args: Sequence[Any], output: Tensor) -> None:
        x, weight, _, stride, padding, dilation, transposed, _, groups = args[:9]
        if x in self.weights:
            return
        axes = weight.dim() - 2
        row = self._row(f"conv{'_transpose' if transposed else ''}{axes}d", weight)
        statistics = self.statistics(x)
        row.first.add(statistics, x)

        geometry = zip(
            x.shape[2:],
            output.shape[2:],
            weight.shape[2:],
            *(list(v) * (axes // len(v)) for v in (stride, padding, dilation)),
            strict=True,
        )
        met = [coverage(*axis, transposed, x.device) for axis in geometry]
        filters = weight.shape[1] if transposed else weight.shape[0] // groups
        taps = filters * prod(weight.shape[2:])
        unpadded = x.shape[0] * x.shape[1] * filters * prod(axis.total for axis in met)
        row.dense += (x if transposed else output).numel() * weight[0].numel()
        row.unpadded += unpadded
        if unpadded == x.numel() * taps:
            row.exact += statistics.nonzeros * taps
        else:
            counts = statistics.sums(x, (0, 1))
            for axis in met:
                counts = torch.tensordot(axis.counts, counts, dims=1)
            row.exact += filters * int(counts)

    def _product(self, first: Tensor, second: Tensor) -> None:
        first_is_weight, second_is_weight = first in self.weights, second in self.weights
        if first_is_weight and second_is_weight:
            return
        batch = prod(first.shape[:-2])
        inner = first.shape[-1]
        rows = first.shape[-2] if first.dim() > 1 else 1
        columns = second.shape[-1] if second.dim() > 1 else 1
        if first_is_weight or second_is_weight:
            x, weight = (second, first) if first_is_weight else (first, second)
            row = self._row("linear", weight)
            statistics = self.statistics(x)
            row.first.add(statistics, x)
            exact = statistics.nonzeros * (rows if first_is_weight else columns)
        else:
            row = self._row("matmul", None)
            row.second = row.second or Operand()
            a, b = self.statistics(first), self.statistics(second)
            row.first.add(a, first)
            row.second.add(b, second)
            down = a.sums(first, (first.dim() - 2,)) if first.dim() > 1 else (first != 0).double()
            across = (
                b.sums(second, (second.dim() - 1,)) if second.dim() > 1 else (second != 0).double()
            )
            exact = int((down * across).sum())
        dense = batch * rows * inner * columns
        row.dense += dense
        row.unpadded += dense
        row.exact += exact

    def report_rows(self, images: int, time_steps: int) -> list[OperationRow]:
        """The rows, named, as means per image and (dense MACs) time step."""
        return [
            OperationRow(
                name=name,
                kind=row.kind,
                dense_macs=row.dense / (images * time_steps),
                dense_macs_unpadded=row.unpadded / (images * time_steps),
                value_kind=row.first.kind,
                rate=row.first.rate,
                other_value_kind=row.second.kind if row.second else None,
                other_rate=row.second.rate if row.second else None,
                exact_synaptic_operations=row.exact / images,
            )
            for name, row in self._named_rows().items()
        ]

    def _named_rows(self) -> dict[str, _Row]:
        total = Counter(row.module for row in self.rows.values())
        owned = Counter(row.module for row in self.rows.values() if row.owned)
        leaves = {name for name, module in self.model.named_modules() if not any(module.children())}
        named: dict[str, _Row] = {}
        for row in self.rows.values():
            alone = row.owned and owned[row.module] == 1
            alone |= row.module in leaves and total[row.module] == 1
            name = row.module if alone and row.module else f"{row.module}.{row.kind}".lstrip(".")
            numbered = chain([name], (f"{name}_{i}" for i in count(1)))
            named[next(free for free in numbered if free not in named)] = row
        return named
