"""The neurons of `dynamics` as two Triton kernels: all time steps forward, all backward.

A program holds the membranes of one block of neurons in registers and walks through time. Forward
it reads the currents once and writes the spikes; backward it charges again from the currents, and
reads and writes the gradients once. Multiplications and additions are not contracted and divisions
are rounded to nearest, so that spikes are those of the reference to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from spikebench.neurons.dynamics import Dynamics

BLOCK = 512


@triton.jit
def _charge(
    x, v, leak, TAU: tl.constexpr, RATE: tl.constexpr, DECAY_INPUT: tl.constexpr,
    REST: tl.constexpr, SCALE_MEMBRANE: tl.constexpr, LEARNT_LEAK: tl.constexpr,
):  # fmt: skip
    if SCALE_MEMBRANE:
        h = (1 - RATE) * v + x
    elif LEARNT_LEAK:
        h = v + (x - (v - REST)) * leak if DECAY_INPUT else v - (v - REST) * leak + x
    elif RATE == 0:
        h = v + x
    elif DECAY_INPUT:
        h = v + tl.div_rn(x - (v - REST), tl.full(x.shape, TAU, tl.float32))
    else:
        h = v - tl.div_rn(v - REST, tl.full(x.shape, TAU, tl.float32)) + x
    return h


@triton.jit
def _fire(h, theta, ROUND: tl.constexpr, LEVELS: tl.constexpr):
    if ROUND:
        u = tl.minimum(tl.maximum(tl.div_rn(h, theta + tl.zeros_like(h)), 0.0), LEVELS)
        s = (u + 12582912.0) - 12582912.0  # 1.5 * 2^23: rounds to nearest, halves to even
    else:
        s = tl.where(h - theta >= 0, 1.0, 0.0)
    return s


@triton.jit
def _reset(h, s, theta, REST: tl.constexpr, HARD: tl.constexpr):
    return s * REST + (1 - s) * h if HARD else h - theta * s


@triton.jit
def _slope(
    h, theta, ROUND: tl.constexpr, LEVELS: tl.constexpr, SURROGATE: tl.constexpr,
    ALPHA: tl.constexpr,
):  # fmt: skip
    """The surrogate of ds / dh."""
    u = h - theta
    if ROUND:
        level = h / theta
        slope = tl.where((level >= 0) & (level <= LEVELS), 1 / theta, 0.0)
    elif SURROGATE == "sigmoid":
        smooth = tl.sigmoid(ALPHA * u)
        slope = ALPHA * smooth * (1 - smooth)
    elif SURROGATE == "arctan":
        scaled = (3.141592653589793 * ALPHA / 2) * u
        slope = (ALPHA / 2) / (1 + scaled * scaled)
    elif SURROGATE == "rectangular":
        slope = tl.where(tl.abs(u) < 0.5 / ALPHA, ALPHA, 0.0)
    else:
        slope = ALPHA * tl.maximum(1 - ALPHA * tl.abs(u), 0.0)
    return slope


@triton.jit
def _forward_kernel(
    x_ptr, spike_ptr, leak_ptr, theta_ptr, n, x_step,
    T: tl.constexpr, TAU: tl.constexpr, RATE: tl.constexpr, DECAY_INPUT: tl.constexpr,
    SCALE_MEMBRANE: tl.constexpr, THETA: tl.constexpr, REST: tl.constexpr, HARD: tl.constexpr,
    ROUND: tl.constexpr, LEVELS: tl.constexpr,
    LEARNT_LEAK: tl.constexpr, LEARNT_THETA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n, x_step = tl.cast(n, tl.int64), tl.cast(x_step, tl.int64)  # T * N may pass 2^31
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    theta = tl.load(theta_ptr) if LEARNT_THETA else THETA
    leak = tl.load(leak_ptr) if LEARNT_LEAK else 0.0
    v = tl.full((BLOCK,), REST, tl.float32)
    for t in tl.static_range(T):
        x = tl.load(x_ptr + t * x_step + at, inside, 0.0).to(tl.float32)
        h = _charge(x, v, leak, TAU, RATE, DECAY_INPUT, REST, SCALE_MEMBRANE, LEARNT_LEAK)
        s = _fire(h, theta, ROUND, LEVELS)
        tl.store(spike_ptr + t * n + at, s, inside)
        v = _reset(h, s, theta, REST, HARD)


@triton.jit
def _backward_kernel(
    x_ptr, grad_ptr, out_ptr, leak_ptr, theta_ptr, leak_out_ptr, theta_out_ptr, n, x_step,
    T: tl.constexpr, TAU: tl.constexpr, RATE: tl.constexpr, DECAY_INPUT: tl.constexpr,
    SCALE_MEMBRANE: tl.constexpr, THETA: tl.constexpr, REST: tl.constexpr, HARD: tl.constexpr,
    ROUND: tl.constexpr, LEVELS: tl.constexpr,
    LEARNT_LEAK: tl.constexpr, LEARNT_THETA: tl.constexpr, DETACH: tl.constexpr,
    SURROGATE: tl.constexpr, ALPHA: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    n, x_step = tl.cast(n, tl.int64), tl.cast(x_step, tl.int64)  # T * N may pass 2^31
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    theta = tl.load(theta_ptr) if LEARNT_THETA else THETA
    leak = tl.load(leak_ptr) if LEARNT_LEAK else 0.0
    if LEARNT_LEAK:
        slope_v = 1 - leak
        slope_x = leak if DECAY_INPUT else 1.0
    else:
        slope_v = 1 - RATE
        slope_x = RATE if DECAY_INPUT else 1.0

    before = ()  # v[t-1]
    charged = ()  # h[t]
    v = tl.full((BLOCK,), REST, tl.float32)
    for t in tl.static_range(T):
        x = tl.load(x_ptr + t * x_step + at, inside, 0.0).to(tl.float32)
        h = _charge(x, v, leak, TAU, RATE, DECAY_INPUT, REST, SCALE_MEMBRANE, LEARNT_LEAK)
        before = before + (v,)  # type: ignore[assignment]
        charged = charged + (h,)  # type: ignore[assignment]
        v = _reset(h, _fire(h, theta, ROUND, LEVELS), theta, REST, HARD)

    grad_v = tl.zeros((BLOCK,), tl.float32)  # of v[t]
    grad_leak = tl.zeros((BLOCK,), tl.float32)
    grad_theta = tl.zeros((BLOCK,), tl.float32)
    for t in tl.static_range(T - 1, -1, -1):
        h = charged[t]
        s = _fire(h, theta, ROUND, LEVELS)
        slope = _slope(h, theta, ROUND, LEVELS, SURROGATE, ALPHA)
        grad_s = tl.load(grad_ptr + t * n + at, inside, 0.0).to(tl.float32)
        if HARD:
            grad_h = grad_v * (1 - s)
            if not DETACH:
                grad_s += grad_v * (REST - h)
        else:
            grad_h = grad_v
            grad_theta -= grad_v * s
            if not DETACH:
                grad_s -= grad_v * theta
        grad_h += grad_s * slope
        grad_theta -= grad_s * slope * h / theta if ROUND else grad_s * slope
        if LEARNT_LEAK:
            drift = REST - before[t]
            if DECAY_INPUT:
                drift += tl.load(x_ptr + t * x_step + at, inside, 0.0).to(tl.float32)
            grad_leak += grad_h * drift
        tl.store(out_ptr + t * n + at, grad_h * slope_x, inside)
        grad_v = grad_h * slope_v
    if LEARNT_LEAK:
        tl.store(leak_out_ptr + tl.program_id(0), tl.sum(tl.where(inside, grad_leak, 0.0)))
    if LEARNT_THETA:
        tl.store(theta_out_ptr + tl.program_id(0), tl.sum(tl.where(inside, grad_theta, 0.0)))


def _constants(d: Dynamics, leak: Tensor | None, threshold: Tensor | None) -> dict[str, Any]:
    return {
        "TAU": d.tau or 0.0,
        "RATE": 1 / d.tau if d.tau else 0.0,
        "DECAY_INPUT": d.decay_input,
        "SCALE_MEMBRANE": d.scale_membrane,
        "THETA": d.threshold,
        "REST": d.v_reset or 0.0,
        "HARD": d.v_reset is not None,
        "ROUND": d.firing == "round",
        "LEVELS": d.levels,
        "LEARNT_LEAK": leak is not None,
        "LEARNT_THETA": threshold is not None,
        "BLOCK": BLOCK,
        "enable_fp_fusion": False,
    }


def _unit_stride(x: Tensor) -> Tensor:
    return x if x.stride(1) == 1 else x.contiguous()


def forward(d: Dynamics) -> Callable[..., Tensor]:
    """A function of currents `(T, N)`, learnt leak and learnt threshold to spikes `(T, N)`."""

    def run(x: Tensor, leak: Tensor | None, threshold: Tensor | None) -> Tensor:
        x = _unit_stride(x)
        time_steps, n = x.shape
        spikes = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        with torch.cuda.device_of(x):
            _forward_kernel[(triton.cdiv(n, BLOCK),)](
                x, spikes, leak, threshold, n, x.stride(0), T=time_steps,
                **_constants(d, leak, threshold),
            )  # fmt: skip
        return spikes

    return run


def backward(d: Dynamics) -> Callable[..., tuple[Tensor, Tensor | None, Tensor | None]]:
    """A function of currents, gradient of the spikes, leak and threshold to their gradients."""

    def run(
        x: Tensor, grad: Tensor, leak: Tensor | None, threshold: Tensor | None
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        x = _unit_stride(x)
        time_steps, n = x.shape
        programs = triton.cdiv(n, BLOCK)
        grad_x = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        # one sum a program: their total does not depend on the order in which programs finish
        sums = torch.empty(2, programs, dtype=torch.float32, device=x.device)
        with torch.cuda.device_of(x):
            _backward_kernel[(programs,)](
                x, grad.contiguous(), grad_x, leak, threshold, sums[0], sums[1], n, x.stride(0),
                T=time_steps, DETACH=d.detach_reset, SURROGATE=d.surrogate, ALPHA=d.alpha,
                **_constants(d, leak, threshold),
            )  # fmt: skip
        return (
            grad_x,
            None if leak is None else sums[0].sum(),
            None if threshold is None else sums[1].sum(),
        )

    return run
