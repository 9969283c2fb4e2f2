"""The forms of a neuron, all with the same spikes and gradients, and the choice among them.

    reference   plain PyTorch, differentiated by autograd; runs anywhere
    compiled    torch.compile of `dynamics.forward` and `dynamics.backward`: one loop each
    triton      one fused CUDA kernel forward, one backward

The compiled and the Triton form keep only the currents for the backward pass. "auto" takes Triton
on CUDA and the compiled form elsewhere; it falls back with one warning if Triton or a compiler is
missing. float64, which is for comparisons, always runs the reference.
"""

from __future__ import annotations

import os
import shutil
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from spikebench.errors import UserError
from spikebench.neurons import dynamics
from spikebench.neurons.dynamics import Dynamics

BACKENDS = ("auto", "reference", "compiled", "triton")
_HALF = (torch.float16, torch.bfloat16)


class BackendError(UserError, ValueError):
    """A neuron backend is unknown or cannot run here; the message says why."""


def _checked(name: str) -> str:
    if name not in BACKENDS:
        raise BackendError(
            f"unknown neuron backend {name!r}; expected one of {', '.join(BACKENDS)}"
        )
    return name


_chosen: str | None = None
"""What `use_backend` chose; None where SPIKEBENCH_NEURONS decides."""
_broken: dict[str, str] = {}
"""Forms that failed when "auto" tried them here, and why."""


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run all neurons of this process in one form; SPIKEBENCH_NEURONS sets the default.

    Args:
        name: "auto", "reference", "compiled" or "triton".

    Raises:
        BackendError: there is no such form.
    """
    global _chosen
    previous, _chosen = _chosen, _checked(name)
    try:
        yield
    finally:
        _chosen = previous


def requested_backend() -> str:
    """The backend asked for; the environment is read at each call, not at import.

    Raises:
        BackendError: SPIKEBENCH_NEURONS names none.
    """
    return _chosen or _checked(os.environ.get("SPIKEBENCH_NEURONS", "auto"))


@lru_cache
def available_backends(device: str = "cpu") -> dict[str, str | None]:
    """Every form, and why it cannot run on a type of device; None if it can.

    Example:
        >>> available_backends()["reference"] is None
        True
    """
    triton = None if find_spec("triton") else "the package triton is not installed"
    if device == "cuda" and triton is None:
        triton = _reason_against_triton()
    compiled = triton
    if device == "cpu":
        compilers = (os.environ.get("CXX", ""), "g++", "clang++")
        found = any(map(shutil.which, compilers))
        compiled = None if found else "no C++ compiler found; install g++"
        if not triton and not os.environ.get("TRITON_INTERPRET"):
            triton = "Triton kernels run on CUDA"
    return {"reference": None, "compiled": compiled, "triton": triton}


def _reason_against_triton() -> str | None:
    """Why Triton cannot launch kernels here: it compiles its launcher with a C compiler."""
    from triton.runtime import driver

    try:
        driver.active.get_current_target()
    except Exception as error:
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return None


def run(
    d: Dynamics, x: Tensor, leak: Tensor | None = None, threshold: Tensor | None = None
) -> Tensor:
    """Currents `(T, ...)` to spikes of the same shape, type and memory layout, in the chosen form.

    Half precision currents are widened first: the membrane is kept in float32.

    Raises:
        BackendError: the form that was asked for by name cannot run here.
    """
    if x.dim() < 1 or x.shape[0] < 1:
        raise ValueError(f"currents of shape {tuple(x.shape)}; expected (T, ...) with T at least 1")
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode() or x.numel() == 0:
        # An outer compiler fuses the reference itself; a counter sees nothing inside a kernel.
        return _reference(d, x, leak, threshold)
    requested = name = requested_backend()
    if requested == "auto":
        name = _automatic(x)
    elif (reason := available_backends(x.device.type)[name]) is not None:
        raise BackendError(f"neuron backend {name!r} cannot run here: {reason}")
    if name == "triton" and x.dtype == torch.float64:
        raise BackendError("neuron backend 'triton' computes in float32; float64 needs another")
    flat, restore = _as_matrix(x)
    if name == "reference":
        return restore(_reference(d, flat, leak, threshold))
    try:
        return restore(_Fused.apply(name, d, flat, leak, threshold))
    except (torch._dynamo.exc.TorchDynamoException, OSError, ImportError) as error:
        if requested != "auto":
            raise
        _give_up(name, error)
        return run(d, x, leak, threshold)


def _reference(d: Dynamics, x: Tensor, leak: Tensor | None, threshold: Tensor | None) -> Tensor:
    wide = x.float() if x.dtype in _HALF else x
    return dynamics.forward(d, wide, leak, threshold).to(x.dtype)


def _automatic(x: Tensor) -> str:
    if x.dtype == torch.float64:
        return "reference"
    available = available_backends(x.device.type)
    for name in ("triton", "compiled") if x.device.type == "cuda" else ("compiled",):
        reason = available[name] or _broken.get(name)
        if reason is None:
            return name
        _warn_once(name, reason)
    return "reference"


def _give_up(name: str, error: Exception) -> None:
    lines = [line for line in str(error).splitlines() if line.strip()]
    _broken[name] = f"{type(error).__name__}: {lines[0] if lines else ''}"
    _warn_once(name, _broken[name])


@lru_cache
def _warn_once(name: str, reason: str) -> None:
    warnings.warn(f"neurons run slower: no {name} form here: {reason}", stacklevel=2)


def _as_matrix(x: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    """View `(T, ...)` as `(T, N)`, in memory order, and the way back."""
    strides = x.stride()
    order = [0, *sorted(range(1, x.dim()), key=lambda axis: -strides[axis])]
    inner = x.permute(order)
    shape = inner.shape
    inverse = [order.index(axis) for axis in range(x.dim())]
    return inner.reshape(len(x), -1), lambda flat: flat.view(shape).permute(inverse)


class _Fused(torch.autograd.Function):
    """A neuron over `(T, N)` that keeps its currents alone."""

    @staticmethod
    def forward(
        ctx: Any, name: str, d: Dynamics, x: Tensor, leak: Tensor | None, threshold: Tensor | None
    ) -> Tensor:
        ctx.save_for_backward(x, leak, threshold)
        ctx.name, ctx.dynamics = name, d
        form = _form(name, "forward", d, *_kind(x, leak, threshold))
        return form(x, leak, threshold)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[None, None, Tensor, Tensor | None, Tensor | None]:
        x, leak, threshold = ctx.saved_tensors
        form = _form(ctx.name, "backward", ctx.dynamics, *_kind(x, leak, threshold))
        return None, None, *form(x, grad, leak, threshold)


def _kind(x: Tensor, leak: Tensor | None, threshold: Tensor | None) -> tuple[Any, ...]:
    return len(x), x.dtype, x.device, leak is None, threshold is None


@cache
def _form(name: str, direction: str, d: Dynamics, *variant: Any) -> Callable[..., Any]:
    """A compiled or Triton function for one neuron and one kind of input.

    Each kind (T, type, device, what is learnt) has a function of its own.
    """
    if name == "triton":
        from spikebench.neurons import triton_kernels

        return getattr(triton_kernels, direction)(d)

    def forward(x: Tensor, leak: Tensor | None, threshold: Tensor | None) -> Tensor:
        return _reference(d, x, leak, threshold)

    def backward(
        x: Tensor, grad: Tensor, leak: Tensor | None, threshold: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        wide, wide_grad = (x.float(), grad.float()) if x.dtype in _HALF else (x, grad)
        grad_x, grad_leak, grad_threshold = dynamics.backward(d, wide, wide_grad, leak, threshold)
        return grad_x.to(x.dtype), grad_leak, grad_threshold

    function = forward if direction == "forward" else backward
    # torch.compile counts its variants by code object, and gives up after eight of them
    own = types.FunctionType(
        function.__code__.replace(co_name=f"neuron_{direction}"),
        function.__globals__,
        closure=function.__closure__,
    )
    compiled = torch.compile(own, dynamic=True, fullgraph=True)
    # the compiler would guard the base of a view as well; `data` is no view
    return lambda *tensors: compiled(*(None if x is None else x.data for x in tensors))
