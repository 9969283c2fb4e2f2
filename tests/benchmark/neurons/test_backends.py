from __future__ import annotations

import os
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from torch import nn

from spikebench.energy.profile import profile_operations
from spikebench.neurons import LIF, BackendError, available_backends, backends, use_backend
from tests.benchmark.neurons.forms import (
    CHOSEN,
    assert_same,
    compare,
    currents,
    every_neuron,
    spikes_and_gradients,
)

ROOT = Path(__file__).parents[3]
compiled = pytest.mark.skipif(
    available_backends()["compiled"] is not None, reason=str(available_backends()["compiled"])
)
has_triton = pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")


@compiled
@pytest.mark.parametrize("neuron", CHOSEN, ids=str)
def test_compiled_equals_reference(neuron):
    assert_same(neuron, currents(4, 3, 5, 43), "compiled")


@compiled
@pytest.mark.slow
def test_compiled_equals_reference_for_all_settings():
    assert compare(every_neuron(), "compiled") == 488


@compiled
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_compiled_keeps_the_membrane_in_float32(dtype: torch.dtype):
    assert_same(LIF(), currents(4, 20_000).to(dtype), "compiled")


@compiled
def test_compiled_takes_any_layout_and_size():
    x = currents(4, 2, 8, 6, 10)
    channels_last = x.flatten(0, 1).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    repeated = x[:1].expand(4, -1, -1, -1, -1)
    for view in (channels_last, repeated, x.transpose(1, 2), x[..., ::2], x[:1], x[:, :1, :1]):
        assert_same(LIF(), view, "compiled")
    for form in ("compiled", "reference"):
        with use_backend(form):
            assert LIF()(channels_last)[0].is_contiguous(memory_format=torch.channels_last)
            assert LIF()(x[:, :0]).shape == (4, 0, 8, 6, 10)


@compiled
@pytest.mark.parametrize("neuron", [LIF(), LIF(learn_threshold=True)], ids=str)
def test_compiled_keeps_the_currents_alone_for_the_backward_pass(neuron):
    kept: list[torch.Tensor] = []
    x = currents(4, 1000).requires_grad_()
    with (
        use_backend("compiled"),
        torch.autograd.graph.saved_tensors_hooks(lambda t: (kept.append(t), t)[1], lambda t: t),
    ):
        neuron(x)
    assert sum(t.numel() for t in kept if t.dim()) == x.numel()


@compiled
def test_views_of_any_base_are_one_variant_to_the_compiler():
    """Each form of the base would be another one, and the ninth an error."""
    for rank in range(11):
        assert_same(LIF(tau=2.5), currents(4, *[2] * rank, 50), "compiled")


@compiled
def test_a_compiled_neuron_inside_a_compiled_model():
    model = nn.Sequential(nn.Linear(8, 8), LIF(), nn.Linear(8, 4))
    x = currents(4, 5, 8).requires_grad_()
    expected = model(x)
    with use_backend("compiled"):
        actual = torch.compile(model, fullgraph=True)(x)
    torch.testing.assert_close(actual, expected)
    (grad,) = torch.autograd.grad(actual.sum(), x)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), x)[0])


@compiled
def test_an_operation_count_runs_whatever_the_form():
    x = currents(4, 3, 8)
    with use_backend("compiled"):
        report = profile_operations(nn.Sequential(LIF(), nn.Linear(8, 2)), [x])
    assert 0 < report.rows[0].rate < 1


@has_triton
def test_triton_equals_reference_for_all_settings():
    """In Triton's interpreter, which runs the kernels' code on the CPU."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("forms.py")), "triton"],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["488"]


@has_triton
@pytest.mark.parametrize("neuron", [CHOSEN[0], CHOSEN[2], CHOSEN[4], CHOSEN[7]], ids=str)
def test_triton_kernels_compile_for_a_gpu(neuron):
    """No GPU is needed to compile for one; the interpreter takes more than the compiler does."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from spikebench.neurons import triton_kernels as kernels

    learnt = {
        "leak_ptr": None if neuron.leak is None else "*fp32",
        "theta_ptr": None if neuron.learnt_threshold is None else "*fp32",
    }
    constants = kernels._constants(neuron.dynamics, neuron.leak, neuron.learnt_threshold)
    options = {"enable_fp_fusion": constants.pop("enable_fp_fusion")}
    constants |= {"T": 4, **{name: None for name, kind in learnt.items() if kind is None}}
    backward = {"DETACH": False, "SURROGATE": neuron.dynamics.surrogate, "ALPHA": 4.0}
    for kernel, more in (
        (kernels._forward_kernel, {}),
        (kernels._backward_kernel, backward),
    ):
        values = constants | more
        kinds = {"n": "i32", "x_step": "i32", "leak_out_ptr": "*fp32", "theta_out_ptr": "*fp32"}
        signature = {
            name: "constexpr" if name in values else kinds.get(name) or learnt.get(name) or "*bf16"
            for name in kernel.arg_names
        }
        places = {(kernel.arg_names.index(name),): value for name, value in values.items()}
        source = ASTSource(kernel, signature, places)
        ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["ptx"]
        assert "fma.rn" not in ptx  # a contracted multiply and add would flip spikes
        assert "st.local" not in ptx  # membranes stay in registers


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("form", ["triton", "compiled"])
@pytest.mark.parametrize("neuron", CHOSEN, ids=str)
def test_forms_agree_on_cuda(neuron, form: str):
    assert_same(neuron.cuda(), currents(4, 3, 5, 43, device="cuda"), form)
    neuron.cpu()


def test_auto_falls_back_with_one_warning(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CXX", "")
    backends.available_backends.cache_clear()
    backends._warn_once.cache_clear()
    try:
        with use_backend("auto"):
            with pytest.warns(UserWarning, match=r"no C\+\+ compiler"):
                first = LIF()(currents(2, 5))
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                LIF()(currents(2, 6))  # once is enough
        assert torch.equal(first, LIF()(currents(2, 5)))
        with use_backend("compiled"), pytest.raises(BackendError, match="compiled"):
            LIF()(currents(2, 5))
    finally:
        monkeypatch.undo()
        backends.available_backends.cache_clear()


def test_auto_falls_back_where_compiling_fails(monkeypatch: pytest.MonkeyPatch):
    def broken(*_):
        raise torch._dynamo.exc.TorchDynamoException("Python.h: no such file\nand more")

    monkeypatch.setattr(
        backends, "available_backends", lambda device: dict.fromkeys(("reference", "compiled"))
    )
    monkeypatch.setattr(backends, "_form", broken)
    monkeypatch.setattr(backends, "_broken", {})
    with use_backend("auto"), pytest.warns(UserWarning, match=r"Python.h: no such file$"):
        spikes, _ = spikes_and_gradients(LIF(), currents(2, 5), "auto")
    assert torch.equal(spikes, spikes_and_gradients(LIF(), currents(2, 5), "reference")[0])
    with warnings.catch_warnings(), use_backend("auto"):
        warnings.simplefilter("error")
        LIF()(currents(2, 5))  # not tried again
    with use_backend("compiled"), pytest.raises(torch._dynamo.exc.TorchDynamoException):
        LIF()(currents(2, 5))


def test_a_form_that_cannot_run_here_is_an_error_with_the_reason():
    with pytest.raises(BackendError) as caught:
        use_backend("cupy").__enter__()
    assert str(caught.value) == (
        "unknown neuron backend 'cupy'; expected one of auto, reference, compiled, triton"
    )
    if find_spec("triton") and not os.environ.get("TRITON_INTERPRET"):
        with use_backend("triton"), pytest.raises(BackendError, match="triton"):
            LIF()(currents(2, 5))


def test_the_environment_is_read_when_a_neuron_runs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SPIKEBENCH_NEURONS", "fast")
    with pytest.raises(BackendError, match="'fast'"):
        LIF()(currents(2, 5))
    with use_backend("reference"):
        LIF()(currents(2, 5))
    monkeypatch.setenv("SPIKEBENCH_NEURONS", "reference")
    LIF()(currents(2, 5))


@compiled
def test_a_second_derivative_is_refused():
    x = currents(2, 5).requires_grad_()
    with use_backend("compiled"):
        (grad,) = torch.autograd.grad(LIF()(x * x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_currents_without_time_are_refused():
    with pytest.raises(ValueError, match=r"\(0, 3\)"):
        LIF()(torch.zeros(0, 3))
