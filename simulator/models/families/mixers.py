"""Layers that hybrids of attention and recurrences share: Mamba-2 and the causal convolution."""

from __future__ import annotations

import math
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families.transformer import activate
from roofcast.simulator.work.ops import conv, linear, state_space
from roofcast.simulator.work.ops.state_space import Heads, Scanned
from roofcast.simulator.work.tape import Tape, Value

COMPOSED = (
    "{}: composed of PyTorch's ops, as transformers runs it where {} is not installed; its kernels"
    " run under --stack fsdp-fused or megatron"
)
FUSED = "{}: the kernels of {}; masked products counted in full"


class Mamba2(NamedTuple):
    """Sizes of a Mamba-2 mixer of the whole model."""

    hidden: int
    heads: int
    dim: int
    groups: int
    state: int
    chunk: int
    kernel: int = 4
    bias: bool = False
    conv_bias: bool = True
    act: str = "silu"
    norm: bool = True  # a gated norm behind the scan; without it, only the gate
    gate_first: bool = True  # the gate is applied before the norm
    scaled: bool = False  # the projection's outputs are scaled by constants (Falcon-H1)

    def of_rank(self, t: Tape) -> Heads:
        """Sizes of a tensor-parallel rank; raises BadInput if tp does not divide them."""
        tp = t.parallel.tp
        if self.heads % tp or self.groups % tp:
            near = math.gcd(self.heads, self.groups, tp)
            raise BadInput(
                f"tp {tp}: state-space layers with {self.heads} heads and {self.groups} group(s) of"
                f" B and C cannot be cut over it; use tp {near}"
            )
        return Heads(self.heads // tp, self.dim, self.groups // tp, self.state, self.chunk)


def kernels_of(t: Tape, what: str, library: str) -> bool:
    """Whether the stack runs the kernels of `library`; records as an assumption which run.

    Raises BadInput for context parallelism: a recurrence passes its state from rank to rank.
    """
    if t.parallel.cp > 1:
        raise BadInput(
            f"cp {t.parallel.cp}: {what} passes a state along the sequence, which is not cut here;"
            " use cp 1"
        )
    fused = t.implementation("scan", "composed") == "fused"
    text = (FUSED if fused else COMPOSED).format(what, library)
    if text not in t.assumptions:
        t.assumptions.append(text)
    return fused


def causal_conv(
    t: Tape,
    x: Value,
    kernel: int,
    *,
    bias: bool,
    act: str | None,
    fused: bool = False,
    keep: bool = True,
) -> Value:
    """A causal depthwise convolution of x[B, C, S], and its activation.

    Composed, the convolution also computes the kernel - 1 outputs behind the end. The fused kernel
    of causal-conv1d keeps its input only; `keep=False` where the caller keeps it.
    """
    batch, channels, length = x.shape
    if fused:
        return _conv_fused(t, x, kernel, bias, act is not None, keep)
    out = conv.conv(
        t, x, channels, kernel, padding=kernel - 1, groups=channels, bias=bias, dims=1
    )
    out = t.view(out, batch, channels, length)
    return out if act is None else activate(t, act, out)


def _conv_fused(
    t: Tape, x: Value, kernel: int, bias: bool, activated: bool, keep: bool
) -> Value:
    """causal_conv1d_fn of causal-conv1d."""
    batch, channels, length = x.shape
    w = t.low(t.parameter(channels, 1, kernel))
    ins = (x, w, t.low(t.parameter(channels))) if bias else (x, w)
    out = t.new(x.shape, x.dtype, x.grad or w.grad)
    flops, n = 2 * kernel * x.size, x.size
    shape = batch, channels, channels, length, length, kernel, 1, channels
    vector, special = (3 * n, 2 * n) if activated else (0, 0)
    t.emit(
        "depthwise", ins, (out,), matrix=flops, vector=vector, special=special, shape=shape
    )
    if out.grad:
        if keep:
            t.save(x)
        read, written = 2 * x.bytes, x.bytes
        t.backward(
            "depthwise",
            matrix=2 * flops,
            vector=2 * vector,
            special=special,
            read=read,
            written=written,
            product=out.dtype,
            shape=shape,
        )
    return out


def mamba2(t: Tape, x: Value, m: Mamba2) -> Value:
    """A Mamba-2 mixer [dao2024] of x [batch, tokens, width]."""
    h = m.of_rank(t)
    fused = kernels_of(t, "state-space scan", "mamba-ssm")
    with t.op("in_proj", "linear"):
        full = 2 * m.heads * m.dim + 2 * m.groups * m.state + m.heads
        both = linear.linear(t, x, full, bias=m.bias)
        batch, length = both.shape[:2]
    with t.op("A_log", "exp"):
        a = state_space.decay_rate(t, h.heads)
    with t.op("conv1d", "conv"):
        u = t.view(both, batch, h.convolved, length)
        u = causal_conv(
            t, u, m.kernel, bias=m.conv_bias, act=m.act, fused=fused, keep=not fused
        )
    with t.op("scan", "scan"):
        y, gate = _scan(t, both, u, a, h, fused)
    y = _gated(t, m, h, y, gate, fused)
    with t.op("out_proj", "linear"):
        y = t.cast(y, x.dtype)
        out = linear.linear(t, y, m.hidden, bias=m.bias)
        if fused:  # mamba_ssm computes the product's operand again in backward
            t.saved.pop(y.storage, None)
        return out


def _scan(
    t: Tape, both: Value, u: Value, a: Value, h: Heads, fused: bool
) -> tuple[Value, Value]:
    """The scan of the convolved x, B and C, and the gate."""
    batch, length = both.shape[:2]
    gate = t.view(both, batch, length, h.inner)
    x = t.view(u, batch, length, h.inner)
    b, c = (t.view(u, batch, length, h.groups * h.state) for _ in range(2))
    s = Scanned(x, t.view(both, batch, length, h.heads), b, c)
    if fused:
        t.save(both)
        return state_space.fused_scan(t, s, a, t.parameter(h.heads), t.parameter(h.heads), h), gate
    s = s._replace(dt=state_space.step_size(t, s.dt, h.heads))
    return state_space.chunk_scan(t, s, a, t.parameter(h.heads), h), gate


def _gated(t: Tape, m: Mamba2, h: Heads, y: Value, gate: Value, fused: bool) -> Value:
    """y with its gate and norm."""
    with t.op("norm", "rms_norm"):
        weight = t.parameter(h.inner)
        if fused:
            return state_space.fused_gated_norm(t, y, gate, weight, h.groups)
        return state_space.gated_norm(t, y, gate, weight=weight, groups=h.groups)
