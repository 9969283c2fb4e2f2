import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from spikebench.energy.profile import profile_operations
from spikebench.energy.tensor_statistics import TensorStatistics
from tests.benchmark.energy.models import Call, MatMul, names, only_row, reals, spikes


class Passing(nn.Module):
    """A neuron that fires what it reads."""

    v_threshold = 1.0

    def forward(self, x):
        return x


CONVOLUTIONS = [nn.Conv1d, nn.Conv2d, nn.Conv3d]
TRANSPOSED = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d]


def meetings(layer, x):
    """Brute force: the layer with weights of one on the non-zero mask counts every meeting."""
    ones = layer.double()
    nn.init.ones_(ones.weight)
    if ones.bias is not None:
        nn.init.zeros_(ones.bias)
    with torch.no_grad():
        return int(ones((x != 0).double()).sum())


@st.composite
def convolutions(draw):
    axes = draw(st.integers(1, 3))
    transposed = draw(st.booleans())
    several = st.lists(st.integers(1, 3), min_size=axes, max_size=axes).map(tuple)
    kernel, stride, dilation = draw(several), draw(several), draw(several)
    padding = tuple(draw(st.integers(0, k)) for k in kernel)
    size = tuple(draw(st.integers(1, 7)) for _ in range(axes))
    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    if transposed:
        outs = [
            (n - 1) * s - 2 * p + d * (k - 1) + 1
            for n, s, p, d, k in zip(size, stride, padding, dilation, kernel, strict=True)
        ]
        options["output_padding"] = tuple(
            draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)
        )
    else:
        outs = [
            n + 2 * p - d * (k - 1)
            for n, p, d, k in zip(size, padding, dilation, kernel, strict=True)
        ]
    assume(min(outs) >= 1)
    layer = (TRANSPOSED if transposed else CONVOLUTIONS)[axes - 1](*channels, kernel, **options)
    return layer, (draw(st.integers(1, 3)), channels[0], *size)


@given(convolutions(), st.sampled_from([0.0, 0.4, 1.0]), st.booleans())
@settings(max_examples=150, deadline=None)
def test_convolution_counts_every_weight_that_a_nonzero_meets(case, rate, binary):
    layer, shape = case
    x = spikes(*shape, rate=rate)
    x = x if binary else x * reals(*shape)
    row = only_row(layer, x)
    images = shape[0]
    assert row.exact_synaptic_operations * images == pytest.approx(meetings(layer, x), rel=1e-15)
    assert row.dense_macs_unpadded * images == pytest.approx(
        meetings(layer, torch.ones(shape)), rel=1e-15
    )
    assert row.rate == (x != 0).double().mean().item()
    with FlopCounterMode(display=False) as flops:
        layer(x.double())
    assert row.dense_macs * images == pytest.approx(flops.get_total_flops() / 2, rel=1e-15)


def test_kind_names_the_axes():
    conv, transposed = nn.Conv3d(1, 1, 1), nn.ConvTranspose1d(1, 1, 1)
    assert only_row(conv, torch.ones(1, 1, 2, 2, 2)).kind == "conv3d"
    assert only_row(transposed, torch.ones(1, 1, 2)).kind == "conv_transpose1d"


def test_counts_do_not_round_where_float32_would():
    x = torch.ones(1, 8, 2**22)
    x[0, 0, 0] = 0
    row = only_row(nn.Conv1d(8, 1, 3, padding=1), x)
    assert row.exact_synaptic_operations == 3 * 8 * 2**22 - 2 * 8 - 2


def test_long_sums_do_not_round():
    x = torch.ones(2**24 + 4, 1, dtype=torch.uint8)
    x[0] = 0
    assert TensorStatistics(x).sums(x, (0,)).item() == 2**24 + 3


@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6), (2, 1, 3, 6)])
@pytest.mark.parametrize("bias", [True, False])
def test_linear(shape, bias):
    x = spikes(*shape)
    row = only_row(nn.Linear(6, 7, bias=bias), x)
    assert row.kind == "linear"
    assert row.dense_macs * shape[0] == row.dense_macs_unpadded * shape[0] == x.numel() * 7
    assert row.exact_synaptic_operations * shape[0] == pytest.approx(x.sum().item() * 7)


def test_a_weight_on_the_left_is_a_linear_operation_too():
    model = Call(lambda self, x: self.fc.weight @ x, fc=nn.Linear(4, 3))
    row = only_row(model, spikes(2, 4, 5))
    assert (row.name, row.kind) == ("linear", "linear")
    assert row.exact_synaptic_operations == spikes(2, 4, 5).sum() * 3 / 2


@pytest.mark.parametrize(
    ("left", "right"),
    [((3, 4), (4, 5)), ((2, 3, 4), (2, 4, 5)), ((2, 1, 3, 4), (6, 4, 5)), ((2, 3, 4), (4,))],
)
def test_matmul_counts_pairs_of_nonzeros_that_meet(left, right):
    a, b = spikes(*left), reals(*right) * spikes(*right, rate=0.6, seed=1)
    row = only_row(MatMul(), (a, b), forward=lambda model, batch: model(*batch))
    met = ((a != 0).double() @ (b != 0).double()).sum().item()
    dense = (torch.ones(left) @ torch.ones(right)).sum().item()
    assert row.kind == "matmul"
    assert row.exact_synaptic_operations * left[0] == pytest.approx(met)
    assert row.dense_macs * left[0] == pytest.approx(dense)
    assert (row.value_kind, row.other_value_kind) == ("binary", "real")
    assert row.rate == pytest.approx(a.mean().item())
    assert row.other_rate == pytest.approx((b != 0).double().mean().item())


@pytest.mark.parametrize("function", [torch.addmm, torch.baddbmm])
def test_products_that_add(function):
    shape = (3, 3) if function is torch.addmm else (2, 3, 3)
    row = only_row(Call(lambda self, x: function(reals(*shape), x, x)), spikes(*shape))
    met = (spikes(*shape) @ spikes(*shape)).sum().item()
    assert row.exact_synaptic_operations * shape[0] == pytest.approx(met)


def test_both_products_of_fused_attention_are_counted():
    def attend(self, x):
        return F.scaled_dot_product_attention(x, x, x)

    report = profile_operations(Call(attend), [spikes(2, 4, 5, 8)])
    assert names(report) == ["matmul", "matmul_1"]
    assert [row.dense_macs for row in report.rows] == [4 * 5 * 5 * 8] * 2
    assert report.rows[0].value_kind == "scaled"


def test_a_transformer_layer_has_no_hidden_operation():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    report = profile_operations(layer, [reals(2, 5, 8)])
    per_token = 4 * 8 * 8 + 2 * 8 * 16
    assert report.dense_macs == 5 * per_token + 2 * 5 * 5 * 8
    assert torch.backends.mha.get_fastpath_enabled()


def test_dense_macs_of_resnet18():
    vision = pytest.importorskip("torchvision")
    model = vision.models.resnet18().eval()
    x = reals(2, 3, 64, 64)
    with FlopCounterMode(display=False) as flops:
        model(x)
    report = profile_operations(model, [x])
    assert report.dense_macs * 2 * 2 == flops.get_total_flops()
    assert len(report.rows) == 21
    assert set(names(report)) <= {name for name, _ in model.named_modules()}
    assert report.rows[0].name == "conv1"
    assert {row.value_kind for row in report.rows} == {"real"}


def test_what_is_computed_from_parameters_alone_folds_away():
    class Factored(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(2, 4), nn.Linear(3, 2)

        def forward(self, x):
            return F.linear(x, (self.left.weight @ self.right.weight).to(x.dtype))

    row = only_row(nn.Sequential(Factored()), spikes(5, 3))
    assert (row.kind, row.dense_macs) == ("linear", 12)


def test_autocast_copies_of_weights_are_weights():
    model = nn.Sequential(nn.Linear(4, 3), Call(lambda self, x: x @ x.T))

    def forward(model, x):
        with torch.autocast("cpu", torch.bfloat16):
            return model(x)

    report = profile_operations(model, [spikes(2, 4)], forward=forward)
    assert [row.kind for row in report.rows] == ["linear", "matmul"]


def test_a_buffer_overwritten_with_activations_is_no_weight():
    def forward(self, x):
        memory = torch.zeros_like(self.fc.weight)
        memory.copy_(x)
        return self.fc(memory)

    row = only_row(Call(forward, fc=nn.Linear(3, 3)), spikes(3, 3))
    assert row.rate == pytest.approx(spikes(3, 3).mean().item())


@pytest.mark.parametrize(
    ("tensors", "kind"),
    [
        ([[0, 0], [0, 0]], "binary"),
        ([[0, 1], [1, 0]], "binary"),
        ([[0, 0.25], [0.25, 0]], "scaled"),
        ([[0, 0.25], [0, 0]], "scaled"),
        ([[0, -1], [0, 0]], "scaled"),
        ([[0, 0.25], [0, 0.5]], "real"),
        ([[0, 0.25], [0, 1]], "real"),
        ([[0, 1], [0, 2]], "integer"),
        ([[0, 3], [1, 2]], "integer"),
        ([[-1, 1], [0, 0]], "integer"),
        ([[0, 1], [0.5, 1]], "real"),
        ([[0.5, 1], [1, 1]], "real"),
        ([[0, 1], [1e-30, 1]], "real"),
        ([[0, 1], [0, float("inf")]], "real"),
        ([[0, 1], [0, float("nan")]], "real"),
    ],
)
def test_value_kind_over_the_data_set(tensors, kind):
    batches = [torch.tensor([values], dtype=torch.float32) for values in tensors]
    model = nn.Linear(2, 1)
    assert only_row(model, *batches).value_kind == kind
    assert only_row(model, *reversed(batches)).value_kind == kind
    assert only_row(model, torch.cat(batches)).value_kind == kind


def test_no_rois_count_nothing():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(12, 2))
    report = profile_operations(
        model, [torch.ones(1)], forward=lambda m, _: m(torch.zeros(0, 2, 4, 4))
    )
    assert report.dense_macs == report.synaptic_operations == 0
    assert [(row.rate, row.value_kind) for row in report.rows] == [(0.0, "binary")] * 2


def test_integers_are_accumulated_as_often_as_they_say():
    integers = torch.tensor([[[0.0, 3, 1]], [[2, 0, 4]]])
    model = nn.Sequential(Passing(), nn.Conv1d(1, 2, 3, padding=1))
    row = only_row(model, integers)
    assert (row.value_kind, row.value_range, row.magnitude) == ("integer", (0, 4), 10 / 6)
    ones = torch.ones(1, 1, 3)
    assert row.exact_synaptic_operations == 2 * F.conv1d(integers, ones, padding=1).sum() / 2
    assert row.accumulations == row.magnitude
    linear = only_row(nn.Sequential(Passing(), nn.Linear(3, 5)), integers[:, 0])
    assert linear.exact_synaptic_operations == 5 * 10 / 2


def test_integers_that_no_neuron_fired_are_multiplied():
    pixels = torch.randint(0, 256, (2, 1, 3, 3), generator=torch.Generator().manual_seed(0))
    row = only_row(nn.Conv2d(1, 2, 1), pixels.float())
    assert (row.value_kind, row.encodes, row.accumulations) == ("integer", True, None)
    assert row.exact_synaptic_operations == 2 * (pixels != 0).sum() / 2


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([[0.0, 1], [1, 1]], [[5.0, 0], [2, 3]], 2 + 3),  # spikes choose what is added
        ([[0.0, 2], [1, 1]], [[5.0, 0], [2, 3]], 2 * 2 + 1 + 2),
        ([[0.5, 2], [1, 1]], [[5.0, 0], [2, 3]], 2 * 5 + 2 * 5),
        ([[0.5, 2], [1, 1]], [[0.5, 0], [2, 3]], 2 * 1 + 2 * 2),
    ],
)
def test_products_of_integers(left, right, expected):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.passing = Passing()

        def forward(self, pair):
            a, b = self.passing(pair)
            return a @ b

    row = only_row(Product(), torch.tensor([left, right]), forward=lambda m, x: m(x))
    assert row.exact_synaptic_operations * 2 == expected


def masking(product):
    def forward(self, pair):
        x, mask = pair
        return product(x, self.fire(mask))

    return Call(forward, fire=Passing())


def test_masks():
    x, mask = spikes(2, 3, 4, 4), spikes(2, 3, 1, 4, seed=1)
    for product in (lambda a, b: a * b, torch.mul, lambda a, b: a.clone().mul_(b)):
        row = only_row(masking(product), (x, mask))
        assert row.kind == "mul"
        assert row.dense_macs == 3 * 4 * 4
        assert row.exact_synaptic_operations == int((x * mask).sum()) / 2
        assert [row.rate, row.other_rate] == pytest.approx([x.mean().item(), mask.mean().item()])


def test_gates_of_real_values_are_elementwise_arithmetic():
    report = profile_operations(Call(lambda self, x: x * x.sigmoid()), [reals(2, 3)])
    assert report.rows == []
    assert [one.operation for one in report.uncounted] == ["aten::sigmoid", "aten::mul"]
    assert [one.multiplications for one in report.uncounted] == [3.0, 3.0]


def test_statistics_see_writes_in_place():
    def forward(self, x):
        self.fc(x)
        x.zero_()
        return self.again(x)

    model = Call(forward, fc=nn.Linear(3, 1), again=nn.Linear(3, 1))
    report = profile_operations(model, [torch.ones(2, 3)])
    assert [row.rate for row in report.rows] == [1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_number_types(dtype):
    row = only_row(nn.Conv2d(4, 2, 3, padding=1).to(dtype), spikes(2, 4, 9, 9).to(dtype))
    reference = only_row(nn.Conv2d(4, 2, 3, padding=1), spikes(2, 4, 9, 9))
    assert row == reference


def test_memory_formats_do_not_matter():
    x = spikes(2, 4, 9, 9)
    conv = nn.Conv2d(4, 2, 3, padding=1)
    assert only_row(conv, x.to(memory_format=torch.channels_last)) == only_row(conv, x)
    assert only_row(conv, x.transpose(2, 3)).exact_synaptic_operations == pytest.approx(
        meetings(conv, x.transpose(2, 3)) / 2
    )
