"""Count the synaptic operations that a model really runs, streamed over a data set.

A dispatch mode sees every convolution, matrix product and elementwise product of activations below
modules and functionals alike; forward hooks say which module is running. Attention runs through its
plain kernel, so that both of its products are seen. Neurons run unseen and are counted by what they
give. Norms, scales and whatever has no counting rule are listed as uncounted, with their share of
the work; what is computed from parameters alone folds away before deployment and is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from spikebench.energy.batches import FindImages, images_of, number_of
from spikebench.energy.operation_counter import OperationCounter
from spikebench.energy.operations import OperationReport
from spikebench.forms import Form

Forward = Callable[[nn.Module, Any], Any]


def profile_operations(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    images: FindImages | None = None,
    forward: Forward | None = None,
    time_steps: int | None = None,
    form: Form = "as-coded",
    progress: Callable[[int], object] | None = None,
) -> OperationReport:
    """Count the operations of a model over a data set, with one forward pass per batch.

    The model runs in eval mode without gradients and is left as it was found. Only numbers are
    kept from one operation to the next, so the data set may have any length.

    A row is named after the module whose operation it is: the module itself where the weight is
    its own parameter, or where the operation is the only one of a module without submodules;
    otherwise `<module>.<kind>`, `<module>.<kind>_1` and so on, in the order within one call of the
    module. A module that is called many times adds to the same rows.

    Args:
        model: any module, on any device; its neurons are `spikebench.neurons.Neuron`,
            SpikingJelly's, or modules with an attribute `v_threshold`. Neurons that keep their
            state from one call to the next have to be reset by `forward`.
        batches: what `forward` takes, on the model's device.
        images: gives the images of a batch: a tensor `(B, ...)`, a list of B tensors, or B alone,
            with which figures by image are not told apart. By default the batch is such a tensor,
            or a tuple or list that begins with one. Where time comes first, say so:
            `images=lambda batch: batch.shape[1]`.
        forward: runs the model on a batch; `model(batch)` by default.
        time_steps: time steps an image is seen for; by default the attribute `time_steps` of the
            model, or of the first submodule that has one, or 1.
        form: what the report calls the form of the model.
        progress: called after each batch with the number of images counted so far.

    Returns:
        One row per operation and one per layer of neurons, in the order of first execution, and
        what multiplies beyond these.

    Raises:
        TypeError: the number of images in a batch cannot be told.
        ValueError: there is no image to count, or `time_steps` is not positive.

    Example:
        >>> report = profile_operations(nn.Linear(4, 3), [torch.eye(4)])
        >>> report.rows[0].dense_macs, report.rows[0].rate, report.synaptic_operations
        (12.0, 0.25, 3.0)
    """
    forward = forward or _call
    steps = _time_steps(model) if time_steps is None else time_steps
    if steps < 1:
        raise ValueError(f"time_steps is {steps}; an image is seen for at least 1 time step")
    counter = OperationCounter(model, steps)
    total = 0
    with evaluating(model), counter.hooks():
        for batch in batches:
            found = images_of(batch, images)
            if number_of(found) == 0:
                continue
            with torch.no_grad(), _plain_attention(), counter.forward_pass(found):
                forward(model, batch)
            total += number_of(found)
            if progress is not None:
                progress(total)
    if total == 0:
        raise ValueError("there is no image to count: the batches are empty")
    return OperationReport(
        form=form,
        images=total,
        time_steps=steps,
        rows=counter.rows(total),
        neurons=counter.neurons(total),
        uncounted=counter.uncounted(total),
        synaptic_operations_std=counter.total.deviation,
    )


def _call(model: nn.Module, batch: Any) -> Any:
    return model(batch)


def _time_steps(model: nn.Module) -> int:
    found = (getattr(module, "time_steps", None) for module in model.modules())
    return next((steps for steps in found if type(steps) is int), 1)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode; afterwards each of its modules is as it was."""
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
