import gc
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from spikebench.energy.profile import profile_operations
from spikebench.neurons import ILIF, LIF, Neuron
from tests.benchmark.energy.models import Call, MatMul, names, only_row, reals, spikes


@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_grad_mode_of_the_caller_does_not_matter(context):
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(18, 2), nn.ReLU())
    expected = profile_operations(model, [spikes(2, 1, 5, 5)])
    with context():
        assert profile_operations(model, [spikes(2, 1, 5, 5)]) == expected


def test_names_of_modules_and_functionals():
    def forward(self, x):
        x = self.first(x)
        y = F.linear(x, self.first.weight)
        return self.product(x, y.T) + x @ y.T + y @ x.T

    model = nn.Sequential(Call(forward, first=nn.Linear(4, 4), product=MatMul()))
    report = profile_operations(model, [reals(3, 4), reals(3, 4)])
    assert names(report) == ["0.first", "0.linear", "0.product", "0.matmul", "0.matmul_1"]


def test_the_model_itself_is_named_by_kind():
    assert only_row(nn.Conv2d(1, 1, 1), torch.ones(1, 1, 2, 2)).name == "conv2d"
    assert only_row(Call(lambda self, x: x @ x.T), torch.ones(1, 2)).name == "matmul"


def test_names_are_unique():
    model = Call(lambda self, x: self.linear(x) @ F.linear(x, self.linear.weight).T)
    model.linear = nn.Linear(2, 2)
    report = profile_operations(model, [reals(3, 2)])
    assert names(report) == ["linear", "linear_1", "matmul"]


def test_own_weight_used_at_every_time_step_is_one_row():
    class StepLinear(nn.Linear):
        def forward(self, x):
            return torch.stack([super(StepLinear, self).forward(step) for step in x])

    model = nn.Sequential(StepLinear(3, 2))
    row = only_row(model, spikes(4, 5, 3), forward=lambda m, x: m(x), time_steps=1)
    assert row.name == "0"
    assert row.dense_macs * 4 == 4 * 5 * 3 * 2


def test_slices_of_one_weight_are_several_rows():
    model = nn.Sequential(nn.MultiheadAttention(4, 2))
    report = profile_operations(
        model, [reals(3, 2, 4)], forward=lambda m, x: m[0](x, x.clone(), x + 1)
    )
    assert names(report) == [
        *("0.linear", "0.linear_1", "0.linear_2"),
        *("0.matmul", "0.matmul_1"),
        "0.linear_3",
    ]


def test_a_module_called_on_several_levels_is_one_row():
    head = nn.Conv2d(2, 3, 3, padding=1)
    model = Call(lambda self, x: [self.head(level) for level in (x, x[..., ::2, ::2])], head=head)
    row = only_row(model, spikes(1, 2, 8, 8))
    assert row.name == "head"
    assert row.dense_macs == (64 + 16) * 9 * 2 * 3


def test_a_submodule_run_without_call_of_the_model():
    model = Call(lambda self, x: self.fc(x) @ x.T, fc=nn.Linear(2, 2))
    report = profile_operations(model, [reals(3, 2)], forward=lambda m, x: m.forward(x))
    assert names(report) == ["fc", "matmul"]


def test_batches_accumulate():
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), LIF(), nn.Conv2d(3, 2, 3))
    x = spikes(6, 2, 6, 6)
    seen = []
    whole = profile_operations(model, [x], time_steps=1)
    parts = profile_operations(model, iter(x.split(2)), time_steps=1, progress=seen.append)
    assert seen == [2, 4, 6]
    assert parts.rows[0] == whole.rows[0]
    assert parts.images == 6


def test_firing_rates_of_neurons():
    class Foreign(nn.Module):
        v_threshold = 0.5

        def forward(self, x):
            return (x >= self.v_threshold).float()

    model = nn.Sequential(LIF(), Foreign())
    x = 4 * reals(3, 5)
    report = profile_operations(model, [x])
    assert report.rows == []
    fired = LIF()(x).mean().item()
    assert report.firing_rates == pytest.approx({"0": fired, "1": fired})


def test_a_neuron_inside_a_neuron_counts_once():
    class Wrapper(Neuron):
        def __init__(self):
            super().__init__()
            self.inner = LIF()

        def forward(self, x):
            return self.inner(x)

    report = profile_operations(nn.Sequential(Wrapper(), LIF()), [reals(3, 5)])
    assert list(report.firing_rates) == ["0", "1"]


@pytest.mark.parametrize(
    ("owner", "given_steps", "expected"), [(None, None, 1), ("model", None, 4), ("model", 2, 2)]
)
def test_time_steps(owner, given_steps, expected):
    model = nn.Sequential(nn.Linear(2, 2))
    if owner:
        model[0].time_steps = 4
    report = profile_operations(model, [torch.ones(1, 2)], time_steps=given_steps)
    assert report.time_steps == expected
    assert report.rows[0].dense_macs == 4 / expected
    assert report.rows[0].exact_synaptic_operations == 4


def test_nothing_to_count():
    with pytest.raises(ValueError, match="no image"):
        profile_operations(nn.Identity(), [])
    with pytest.raises(ValueError, match="0"):
        profile_operations(nn.Identity(), [], time_steps=0)


def hook_count(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


@pytest.mark.parametrize("fails", [False, True])
def test_the_model_is_left_as_it_was_found(fails):
    def forward(model, x):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        model(x)
        if fails:
            model(x[:, :1])

    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.Sequential(nn.Dropout(), LIF()))
    model.train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if fails:
        with pytest.raises(RuntimeError, match="channels"):
            profile_operations(model, [spikes(1, 2, 3, 3)], forward=forward)
    else:
        profile_operations(model, [spikes(1, 2, 3, 3)], forward=forward)
    assert hook_count(model) == 0
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert torch.is_grad_enabled()


def test_an_error_that_the_model_catches_does_not_shift_names():
    def forward(self, x):
        try:
            self.inner(x)
        except ZeroDivisionError:
            return x @ x.T

    inner = nn.Sequential(Call(lambda self, x: 1 / 0))
    report = profile_operations(nn.Sequential(Call(forward, inner=inner)), [reals(2, 2)])
    assert names(report) == ["0.matmul"]


def test_no_activation_outlives_its_use():
    alive = []

    def forward(self, x):
        hidden = self.fc(x)
        alive.append(weakref.ref(hidden))
        del x
        out = self.neuron(hidden) @ hidden.T
        del hidden
        gc.collect()
        assert alive[-1]() is None
        return out

    model = Call(forward, fc=nn.Linear(3, 3), neuron=LIF())
    profile_operations(model, (reals(4, 3) for _ in range(2)))
    assert len(alive) == 2


def test_a_threshold_kept_beside_layers_makes_no_neuron():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.v_threshold = 1.0
            self.fc, self.neuron = nn.Linear(3, 4), LIF()

        def forward(self, x):
            return self.neuron(self.fc(x))

    class Holder(nn.Module):
        v_threshold = 1.0

        def __init__(self):
            super().__init__()
            self.neuron = LIF()

        def forward(self, x):
            return self.neuron(x)

    report = profile_operations(nn.Sequential(Net(), Holder()), [reals(2, 3)])
    assert names(report) == ["0.fc"]
    assert list(report.firing_rates) == ["0.neuron", "1.neuron"]


def test_neurons_of_spikingjelly_without_a_threshold():
    jelly = pytest.importorskip("spikingjelly.activation_based.neuron")
    model = nn.Sequential(jelly.PSN(2), nn.Linear(3, 2))
    report = profile_operations(model, [reals(2, 2, 3)], images=lambda x: x.shape[1], time_steps=2)
    assert names(report) == ["1"]
    assert report.images == 2
    assert report.rows[0].dense_macs == 3 * 2
    assert not report.rows[0].encodes


def test_neurons_run_by_forward_alone():
    model = Call(lambda self, x: self.fc(self.neuron.forward(x)), neuron=LIF(), fc=nn.Linear(3, 2))
    report = profile_operations(model, [4 * reals(2, 3)])
    assert list(report.firing_rates) == ["neuron"]
    assert not report.rows[0].encodes


def test_batches_without_images_are_passed_over():
    model = nn.Sequential(nn.Linear(3, 2))
    with_empty = profile_operations(model, [torch.ones(2, 3), torch.ones(0, 3), torch.ones(2, 3)])
    assert with_empty == profile_operations(model, [torch.ones(4, 3)])


def test_sparse_weights_are_listed():
    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("weight", torch.eye(3).to_sparse())

        def forward(self, x):
            return torch.sparse.mm(self.weight, x)

    report = profile_operations(Sparse(), [reals(3, 3)])
    assert report.rows == []
    assert {one.reason for one in report.uncounted} == {"no rule"}


def test_integers_as_binary_spikes_are_one_update():
    for spike_driven in (False, True):
        model = nn.Sequential(ILIF(levels=4, spike_driven=spike_driven))
        report = profile_operations(model, [4 * reals(2, 3, 5)], images=lambda x: 3, time_steps=2)
        (row,) = report.neurons
        assert (row.neurons, row.updates, row.state_bytes) == (5, 10, 20)
