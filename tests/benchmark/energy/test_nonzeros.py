import shutil

import pytest
import torch

from spikebench.energy import nonzeros
from spikebench.energy.nonzeros import count_nonzeros

compiled = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler"
)


def values(*shape):
    """Zeros of both signs, ones, other values, infinities and what is no number."""
    few = torch.tensor([0.0, -0.0, 1.0, 1.0, 0.25, -1.0, 2.0, float("inf"), float("nan")])
    generator = torch.Generator().manual_seed(sum(shape))
    return few[torch.randint(len(few), shape, generator=generator)]


SHAPES = [(3, 40, 300), (1, 70, 257), (200, 50), (2, 9000), (9000, 1), (4, 1, 4096), (5, 2048, 1)]


@compiled
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_kernel_counts_as_pytorch_does(shape, channels_last, monkeypatch):
    x = values(*shape)
    if channels_last and x.dim() > 2:
        x = x.transpose(1, 2).contiguous().transpose(1, 2)
    monkeypatch.setattr(nonzeros, "_SMALL", 0)
    found = count_nonzeros(x)
    assert torch.equal(found.by_sample, (x != 0).flatten(1).sum(1).double())
    assert found.ones == int((x == 1).sum())
    if x.dim() > 2:
        assert torch.equal(found.by_position, (x != 0).sum(1).int())
    else:
        assert found.by_position is None


@pytest.mark.parametrize(
    "x",
    [
        values(3, 4, 5).double(),
        values(3, 4, 5).bfloat16(),
        values(4, 5, 3).transpose(0, 2),
        values(7),
        torch.tensor(1.0),
        values(0, 3),
        torch.tensor([[True, False], [True, True]]),
        torch.tensor([[3, 0], [1, 1]]),
    ],
)
def test_what_the_kernel_does_not_take(x, monkeypatch):
    monkeypatch.setattr(nonzeros, "_SMALL", 0)
    found = count_nonzeros(x)
    first_axis = x.reshape(max(1, len(x) if x.dim() else 1), -1) if x.numel() else x
    assert torch.equal(found.by_sample, (first_axis != 0).sum(1).double())
    assert found.ones == int((x == 1).sum())


def test_without_a_compiler(monkeypatch):
    monkeypatch.setattr(nonzeros, "_kernels", lambda: None)
    x = values(3, 40, 300)
    found = count_nonzeros(x)
    assert found.by_position is None
    assert torch.equal(found.by_sample, (x != 0).flatten(1).sum(1).double())
    assert found.ones == int((x == 1).sum())


def test_long_sums_do_not_round(monkeypatch):
    monkeypatch.setattr(nonzeros, "_kernels", lambda: None)
    monkeypatch.setattr(nonzeros, "_EXACT_IN_FLOAT32", 2**10)
    assert count_nonzeros(torch.ones(2, 2**11)).by_sample.tolist() == [2**11, 2**11]


@compiled
def test_counts_with_and_without_the_kernel_are_the_same(monkeypatch):
    from torch import nn

    from spikebench.energy.profile import profile_operations
    from tests.benchmark.energy.models import spikes

    model = nn.Sequential(nn.Conv2d(8, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 32 * 32, 3))
    batches = [spikes(2, 8, 32, 32), spikes(2, 8, 32, 32).to(memory_format=torch.channels_last)]
    with_kernel = profile_operations(model, batches)
    monkeypatch.setattr(nonzeros, "_kernels", lambda: None)
    assert profile_operations(model, batches) == with_kernel
