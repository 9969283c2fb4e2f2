"""Small models and inputs that the tests of the operation count share."""

import torch
from torch import nn

from spikebench.energy.profile import profile_operations


class MatMul(nn.Module):
    def forward(self, a, b):
        return a @ b


class Call(nn.Module):
    """A model from a function of itself and its input."""

    def __init__(self, function, **children):
        super().__init__()
        self.function = function
        for name, child in children.items():
            setattr(self, name, child)

    def forward(self, x):
        return self.function(self, x)


def spikes(*shape, rate=0.3, seed=0):
    return (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) < rate).float()


def reals(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def only_row(model, *batches, **options):
    (row,) = profile_operations(model, batches, **options).rows
    return row


def names(report):
    return [row.name for row in report.rows]
