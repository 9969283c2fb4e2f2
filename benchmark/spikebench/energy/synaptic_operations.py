"""Synaptic operations of one call: for every non-zero input the weights that it meets.

Each function adds one call of an operation to its row. Exact counts are whole numbers, by sample;
where an operand carries integers, the same count is made with each non-zero weighed by its size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from spikebench.energy.kernel_coverage import kernel_coverage
from spikebench.energy.running_rows import RunningRow
from spikebench.energy.tensor_statistics import SampleShape, TensorRead, merged_axes, sum_samples


class Convolution(NamedTuple):
    """A convolution as PyTorch runs it, of one, two or three axes.

    Attributes:
        weight_shape: `(C_out, C_in / groups, *kernel)`; if transposed,
            `(C_in, C_out / groups, *kernel)`.
        stride: for each axis, or one for all; so are `padding` and `dilation`.
    """

    weight_shape: Sequence[int]
    stride: Sequence[int]
    padding: Sequence[int]
    dilation: Sequence[int]
    transposed: bool = False
    groups: int = 1

    @property
    def kind(self) -> str:
        """Return the name of the row, such as conv2d."""
        return f"conv{'_transpose' if self.transposed else ''}{len(self.weight_shape) - 2}d"


def count_convolution(
    row: RunningRow, read: TensorRead, convolution: Convolution, output: Tensor
) -> None:
    """Count a convolution of `(N, C, ...)`.

    An input meets as many kernel positions as outputs read it, and at each of them all filters of
    its group: a spike in the corner of a padded 3x3 convolution with 16 filters meets 2 * 2
    positions, so 64 weights, and one in the middle 3 * 3, so 144.
    """
    x, statistics, samples = read
    kernel = convolution.weight_shape[2:]
    per_axis = zip(
        x.shape[2:],
        output.shape[2:],
        kernel,
        *(
            list(value) * (len(kernel) // len(value))
            for value in (convolution.stride, convolution.padding, convolution.dilation)
        ),
        strict=True,
    )
    positions = [kernel_coverage(*axis, convolution.transposed, x.device) for axis in per_axis]
    if convolution.transposed:
        filters = convolution.weight_shape[1]
    else:
        filters = convolution.weight_shape[0] // convolution.groups
    unpadded = x.shape[0] * x.shape[1] * filters * prod(axis.total for axis in positions)
    weights_of_an_input = filters * prod(kernel)

    row.operands[0].add(read)
    row.weights = prod(convolution.weight_shape)
    row.dense += (x if convolution.transposed else output).numel() * prod(
        convolution.weight_shape[1:]
    )
    row.unpadded += unpadded
    row.outputs += output.numel()

    def met(weigh: bool) -> Tensor:
        if unpadded == x.numel() * weights_of_an_input:  # every input meets the whole kernel
            return read.by_sample(weigh) * weights_of_an_input
        counts = statistics.sums(merged_axes(x), (1,), weigh).view(len(x), *x.shape[2:])
        for axis in reversed(positions):
            counts = counts @ axis.counts
        return sum_samples(counts, samples) * filters

    row.add(_weighed(met, row, [read]), samples)


def count_linear(row: RunningRow, read: TensorRead, weights_of_an_input: int) -> None:
    """Count a product of activations and a weight: every input meets the same number of weights."""
    row.operands[0].add(read)

    def met(weigh: bool) -> Tensor:
        return read.by_sample(weigh) * weights_of_an_input

    row.add(_weighed(met, row, [read]), read.samples)


def count_matmul(
    row: RunningRow, first: TensorRead, second: TensorRead, samples: SampleShape
) -> None:
    """Count a product of two activations, `(..., n, k) @ (..., k, m)`.

    A value of the first meets the non-zeros in one row of the second. So for each k the non-zeros
    in column k of the first times those in row k of the second: [[1, 0], [1, 1]] @ [[1, 1], [0, 1]]
    has 2 * 2 + 1 * 1 = 5 pairs.
    """
    for operand, read in zip(row.operands, (first, second), strict=True):
        operand.add(read)

    def met(weigh_first: bool, weigh_second: bool) -> Tensor:
        in_columns = _sums(first, -2, weigh_first)
        in_rows = _sums(second, -1, weigh_second)
        return sum_samples(in_columns * in_rows, samples)

    row.add(_weighed(met, row, [first, second]), samples)


def count_mask(row: RunningRow, reads: Sequence[TensorRead], samples: SampleShape) -> None:
    """Count a product of two activations value by value, one of which is spikes.

    The operands of the row hold these reads already, with their samples on one axis.
    """
    first, second = (read.values for read in reads)

    def met(weigh_first: bool, weigh_second: bool) -> Tensor:
        pairs = _magnitudes(first, weigh_first) * _magnitudes(second, weigh_second)
        return sum_samples(pairs, samples)

    row.add(_weighed(met, row, reads), samples)
    size = prod(torch.broadcast_shapes(first.shape, second.shape))
    row.dense += size
    row.unpadded += size
    row.outputs += size


def _sums(read: TensorRead, axis: int, weigh: bool) -> Tensor:
    """Sums of non-zeros along an axis of matrices; of a vector, each value stands for itself."""
    x = read.values
    if x.dim() == 1:
        return _magnitudes(x, weigh)
    return read.statistics.sums(x, (x.dim() + axis,), weigh)


def _magnitudes(x: Tensor, weigh: bool) -> Tensor:
    """1 for each non-zero value, or its magnitude."""
    return x.abs().double() if weigh else x.bool().double()


def _weighed(
    met: Callable[..., Tensor], row: RunningRow, reads: Sequence[TensorRead]
) -> list[Tensor]:
    """What met by sample, and the same weighed by the magnitudes of each operand in turn.

    Args:
        met: counts, with one flag for each operand that says whether its magnitudes are summed.
        row: the row of the operation, with these reads added to its operands.
        reads: its operands.
    """
    plain = met(*[False] * len(reads))
    counts = [plain]
    for number, (operand, read) in enumerate(zip(row.operands, reads, strict=True)):
        weigh, unit = False, 1
        if operand.kind != "real":
            weigh, unit = read.statistics.weighing(read.values)
        if weigh:
            counts.append(met(*(number == other for other in range(len(reads)))))
        else:
            counts.append(plain if unit == 1 else plain * unit)
    return counts
