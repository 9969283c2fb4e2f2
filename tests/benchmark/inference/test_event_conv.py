import pickle
import platform

import pytest
import torch
from torch import nn
from torch.nn import functional

from spikebench import native
from spikebench.energy.profile import profile_operations
from spikebench.inference import event_conv
from spikebench.inference.event_conv import (
    EventConv2d,
    NotSpikesError,
    event_conv2d,
    use_event_convs,
)

compiled = pytest.mark.skipif(not event_conv.is_available(), reason="no C++ compiler")


def spikes(*shape, rate=0.3, most=1):
    return (torch.rand(shape) < rate) * torch.randint(1, most + 1, shape).float()


def assert_equals_dense(x, weight, bias, stride, padding):
    out = event_conv2d(x, weight, bias, stride, padding)
    x, weight = x.double(), weight.double()
    bias = torch.zeros(len(weight)).double() if bias is None else bias.double()
    exact = functional.conv2d(x, weight, bias, stride, padding)
    # the worst of n additions, each rounded to float32: n half units in the last place of the total
    additions = functional.conv2d(x, torch.ones_like(weight), None, stride, padding)
    total = functional.conv2d(x, weight.abs(), bias.abs(), stride, padding)
    assert out.shape == exact.shape
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)
    assert ((out - exact).abs() <= (additions + 1) * 2**-24 * total).all()


@compiled
@pytest.mark.parametrize("kernel", [1, 3, 7, (3, 5)])
@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
@pytest.mark.parametrize("padding", [0, 1, 4, (0, 2)])
def test_kernels_strides_and_padding(kernel, stride, padding):
    weight = torch.randn(5, 3, *(kernel if isinstance(kernel, tuple) else (kernel, kernel)))
    assert_equals_dense(spikes(2, 3, 9, 11), weight, torch.randn(5), stride, padding)


@compiled
@pytest.mark.parametrize(
    ("channels", "out_channels"),
    [(1, 1), (16, 16), (17, 33), (32, 128), (64, 120), (100, 360), (300, 32), (515, 130)],
)
@pytest.mark.parametrize("kernel", [1, 3])
def test_channels_of_every_blocking(channels, out_channels, kernel):
    weight = torch.randn(out_channels, channels, kernel, kernel)
    assert_equals_dense(spikes(2, channels, 6, 5), weight, None, 1, kernel // 2)


@compiled
def test_more_rows_than_one_task_and_several_threads():
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            for stride in (1, 2):
                weight = torch.randn(20, 8, 3, 3)
                assert_equals_dense(spikes(5, 8, 37, 41), weight, torch.randn(20), stride, 1)
    finally:
        torch.set_num_threads(threads)


@compiled
@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_silent_and_saturated(rate):
    weight = torch.randn(24, 40, 3, 3)
    assert_equals_dense(spikes(2, 40, 8, 8, rate=rate), weight, torch.randn(24), 1, 1)


@compiled
@pytest.mark.parametrize("channels", [7, 48])
def test_integer_spikes(channels):
    x = spikes(2, channels, 8, 8, most=4)
    x[0, -1, -1, -1] = 255
    assert_equals_dense(x, torch.randn(24, channels, 3, 3), torch.randn(24), 1, 1)


@compiled
def test_any_layout_of_the_input():
    weight, bias = torch.randn(8, 20, 3, 3), torch.randn(8)
    x = spikes(4, 20, 12, 10)
    for view in (
        x,
        x.to(memory_format=torch.channels_last),
        x[::2],
        x[:, :, ::2, 1::2],
        x.transpose(2, 3),
        x[:1].expand(3, -1, -1, -1),
    ):
        assert_equals_dense(view, weight, bias, 1, 1)


@compiled
def test_empty_batch():
    assert event_conv2d(torch.zeros(0, 4, 6, 6), torch.randn(3, 4, 3, 3)).shape == (0, 3, 4, 4)


@compiled
@pytest.mark.parametrize("value", [0.5, -1.0, 256.0, float("nan"), float("inf")])
@pytest.mark.parametrize("channels", [3, 32])
def test_values_that_are_no_spikes_are_refused(value, channels):
    x = spikes(2, channels, 6, 6)
    x[1, channels // 2, 3, 3] = value
    with pytest.raises(NotSpikesError, match=r"0\.\.255"):
        event_conv2d(x, torch.randn(4, channels, 3, 3))


@compiled
@pytest.mark.parametrize(
    ("x", "reason"),
    [
        (torch.zeros(2, 40, 6, 6), "40 channels"),
        (torch.zeros(3, 6, 6), r"\(3, 6, 6\)"),
        (torch.zeros(2, 3, 6, 6).double(), "torch.float64"),
        (torch.zeros(2, 3, 2, 6), r"\(2, 3, 2, 6\)"),
    ],
)
def test_inputs_that_do_not_fit(x, reason):
    with pytest.raises(ValueError, match=reason):
        event_conv2d(x, torch.randn(4, 3, 3, 3))


@compiled
def test_weights_of_another_type_are_refused():
    with pytest.raises(ValueError, match="torch.float64"):
        EventConv2d(nn.Conv2d(3, 4, 3).eval()).double()(torch.zeros(2, 3, 6, 6))


@compiled
def test_operator_contract():
    conv = EventConv2d(nn.Conv2d(6, 20, 3, 2, 1).eval())
    x = spikes(2, 6, 9, 8)
    torch.library.opcheck(
        torch.ops.spikebench.event_conv2d,
        (x, conv.packed, 20, [3, 3], [2, 2], [1, 1]),
        test_utils=("test_schema", "test_faketensor"),
    )


@compiled
def test_module_keeps_parameters_and_follows_loading():
    dense, other = nn.Conv2d(6, 20, 3), nn.Conv2d(6, 20, 3)
    event = EventConv2d(dense.eval())
    x = spikes(2, 6, 9, 8)
    assert event.weight is dense.weight
    assert event.state_dict().keys() == dense.state_dict().keys()
    torch.testing.assert_close(event(x), dense(x))
    event.load_state_dict(other.state_dict())
    torch.testing.assert_close(event(x), other(x))
    torch.testing.assert_close(pickle.loads(pickle.dumps(event))(x), other(x))


@compiled
def test_dense_while_training():
    event, x = EventConv2d(nn.Conv2d(6, 20, 3)), spikes(2, 6, 9, 8)
    event(x).sum().backward()
    with torch.no_grad():
        event.weight -= event.weight.grad
    expected = event(x)
    out = event.eval()(x)
    assert event.packed is not None
    torch.testing.assert_close(out, expected)


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(4, 4, 3).double(),
    ],
)
def test_other_convolutions_are_refused(conv):
    with pytest.raises(ValueError, match="no event-driven form"):
        EventConv2d(conv)


class Fire(nn.Module):
    def forward(self, x):
        return (x > 1).float()


def tiny_model():
    torch.manual_seed(0)
    shared = nn.Conv2d(8, 8, 1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), Fire(), nn.Conv2d(8, 8, 3), Fire(), shared, Fire(), shared
    ).eval()


def fake_times(monkeypatch, dense_ms, event_ms):
    """A clock that a call of either form advances."""
    now = [0.0]

    def slow(form, milliseconds):
        forward = form.forward

        def timed(self, x):
            now[0] += milliseconds / 1000
            return forward(self, x)

        return timed

    monkeypatch.setattr(EventConv2d, "forward", slow(EventConv2d, event_ms))
    monkeypatch.setattr(nn.Conv2d, "forward", slow(nn.Conv2d, dense_ms))
    monkeypatch.setattr(event_conv.time, "perf_counter", lambda: now[0])


@compiled
def test_the_faster_form_is_chosen_for_spikes_alone(monkeypatch):
    fake_times(monkeypatch, dense_ms=3, event_ms=2)
    model, images = tiny_model(), torch.randn(2, 3, 8, 8)
    before = model(images)
    report = use_event_convs(model, [images, images])
    assert [layer.name for layer in report.layers] == ["0", "2", "4"]
    image_layer, first, shared = report.layers
    assert image_layer.event_ms == float("inf")
    assert image_layer.rate == 1
    assert first.dense_ms == pytest.approx(6)
    assert first.event_ms == pytest.approx(4)
    assert shared.event_ms == pytest.approx(8)
    assert type(model[0]) is nn.Conv2d
    assert type(model[2]) is EventConv2d
    assert model[4] is model[6]
    assert type(model[4]) is EventConv2d
    assert 0 < first.rate < 1
    torch.testing.assert_close(model(images), before)
    assert str(report).splitlines()[2].endswith("event")


@compiled
def test_dense_stays_where_it_wins(monkeypatch):
    fake_times(monkeypatch, dense_ms=1, event_ms=2)
    model = tiny_model()
    report = use_event_convs(model, [torch.randn(2, 3, 8, 8)])
    assert not any(layer.event_driven for layer in report.layers)
    assert not any(isinstance(module, EventConv2d) for module in model.modules())


def test_training_mode_is_refused():
    with pytest.raises(ValueError, match="training mode"):
        use_event_convs(tiny_model().train(), [])


def test_dense_with_one_warning_where_there_is_no_compiler(monkeypatch, recwarn):
    monkeypatch.setenv("CXX", "no-such-compiler")
    event_conv._library.cache_clear()
    try:
        event, x = EventConv2d(nn.Conv2d(3, 4, 3).eval()), torch.randn(2, 3, 6, 6)
        torch.testing.assert_close(event(x), event_conv2d(x, event.weight, event.bias))
        assert use_event_convs(tiny_model(), [x]).layers == []
    finally:
        event_conv._library.cache_clear()
    (warning,) = recwarn
    assert "stay dense" in str(warning.message)
    assert "no-such-compiler" in str(warning.message)


@compiled
@pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for x86-64 without AVX-512")
def test_plain_vectors(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(native, "FLAGS", (*native.FLAGS, "-mno-avx512f"))
    event_conv._library.cache_clear()
    try:
        x = spikes(2, 20, 9, 9, most=3)
        assert_equals_dense(x, torch.randn(40, 20, 3, 3), torch.randn(40), 1, 1)
        assert len(list((tmp_path / "spikebench").iterdir())) == 1
    finally:
        event_conv._library.cache_clear()


@compiled
def test_they_are_counted_as_what_they_replace():
    dense = nn.Sequential(nn.Conv2d(3, 20, 3, 2, 1)).eval()
    event = nn.Sequential(EventConv2d(dense[0]))
    images = [spikes(2, 3, 8, 7, most=3)]
    expected, found = (profile_operations(model, images) for model in (dense, event))
    assert found == expected
