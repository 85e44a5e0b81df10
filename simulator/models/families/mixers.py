"""Layers that hybrids of attention and recurrences share: Mamba-2 and the causal convolution."""

from __future__ import annotations

import math
from typing import NamedTuple

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families.transformer import Tables, activate, projections, rotate
from roofcast.simulator.work.ops import attention, conv, linear, moe, norm, pointwise, state_space
from roofcast.simulator.work.ops import states as states_of
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
    out_bias: bool | None = None  # None: as bias
    act: str = "silu"
    norm: bool = True  # a gated norm behind the scan; without it, only the gate
    gate_first: bool = True  # the gate is applied before the norm
    late: bool = False  # the norm's result is cast last, and rounded once (Falcon-H1)
    scaled: bool = False  # the projection's input and outputs are scaled by constants (Falcon-H1)

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
    states_of.held(t, channels * kernel)
    if fused or t.generates:
        return _conv_fused(t, x, kernel, bias, act is not None, keep)
    wide = t.cast(x, t.precision.weights)
    out = conv.conv(
        t, wide, channels, kernel, padding=kernel - 1, groups=channels, bias=bias, dims=1
    )
    out = t.view(out, batch, channels, length)
    return t.cast(out if act is None else activate(t, act, out), x.dtype)


def _conv_fused(t: Tape, x: Value, kernel: int, bias: bool, activated: bool, keep: bool) -> Value:
    """causal_conv1d_fn of causal-conv1d."""
    batch, channels, length = x.shape
    w = t.low(t.parameter(channels, 1, kernel))
    ins = (x, w, t.low(t.parameter(channels))) if bias else (x, w)
    out = t.new(x.shape, x.dtype, x.grad or w.grad)
    flops, n = 2 * kernel * x.size, x.size
    shape = batch, channels, channels, length, length, kernel, 1, channels
    vector, special = (3 * n, 2 * n) if activated else (0, 0)
    t.emit(
        "depthwise",
        ins,
        (out,),
        matrix=flops,
        vector=vector,
        special=special,
        shape=("forward", *shape),
    )
    if out.grad:
        if keep:
            t.save(x)
        for which, written in (("dgrad", x.bytes), ("wgrad", w.bytes)):
            read = out.bytes + x.bytes
            t.backward(
                "depthwise",
                matrix=flops,
                vector=vector,
                special=special,
                read=read,
                written=written,
                product=out.dtype,
                shape=(which, *shape),
            )
    return out


def mamba2(t: Tape, x: Value, m: Mamba2) -> Value:
    """A Mamba-2 mixer [dao2024] of x [batch, tokens, width]."""
    h = m.of_rank(t)
    fused = kernels_of(t, "state-space scan", "mamba-ssm")
    with t.op("in_proj", "linear"):
        full = 2 * m.heads * m.dim + 2 * m.groups * m.state + m.heads
        read = pointwise.scale(t, x) if m.scaled else x
        both = linear.linear(t, read, full, bias=m.bias)
        if m.scaled:
            numbers = t.buffer(1, 1, both.shape[-1], dtype=t.precision.weights)
            both = pointwise.mul(t, both, numbers)
        batch, length = both.shape[:2]
    with t.op("A_log", "exp"):
        a = state_space.decay_rate(t, h.heads)
    with t.op("conv1d", "conv"):
        u = t.view(both, batch, h.convolved, length)
        u = causal_conv(t, u, m.kernel, bias=m.conv_bias, act=m.act, fused=fused, keep=not fused)
    with t.op("scan", "scan"):
        y, gate = _scan(t, both, u, a, h, fused)
    y = _gated(t, m, h, y, gate, fused)
    with t.op("out_proj", "linear"):
        y = t.cast(y, x.dtype)
        out = linear.linear(t, y, m.hidden, bias=m.bias if m.out_bias is None else m.out_bias)
        if fused:  # mamba_ssm computes the product's operand again in backward
            t.saved.pop(y.storage, None)
        return out


def _scan(t: Tape, both: Value, u: Value, a: Value, h: Heads, fused: bool) -> tuple[Value, Value]:
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
    if not m.norm:
        with t.op("gate", "silu"):
            if fused:
                return state_space.fused_gate(t, y, gate)
            return pointwise.mul(t, y, pointwise.unary(t, "silu", gate))
    with t.op("norm", "rms_norm"):
        weight = t.parameter(h.inner)
        if fused:
            return state_space.fused_gated_norm(t, y, gate, weight, h.groups)
        if m.late:
            return state_space.gated_norm_late(t, y, gate, weight, h.groups, m.gate_first)
        return state_space.gated_norm(t, y, gate, weight=weight, groups=h.groups)


def self_attention(
    t: Tape,
    x: Value,
    heads: tuple[int, int, int],
    mask: Value | None,
    *,
    tables: Tables | None = None,
    partial: bool = False,
    bias: bool = False,
    scaled: bool = False,
    dropout: float = 0.0,
) -> Value:
    """Attention of x [batch, tokens, width] with (query heads, key-value heads, width of a head).

    Without `tables`, it knows no positions. `scaled`: the keys are scaled by a constant.
    """
    count, groups, dim = heads
    names = {"q_proj": count, "k_proj": groups, "v_proj": groups}
    q, k, v = projections(t, x, names, dim, bias=bias, whole=dim)
    if scaled:
        with t.op("k_proj", "scale"):
            k = pointwise.scale(t, k)
    if tables is not None:
        with t.op("rotary", "rotary"):
            q, k = (rotate(t, y, *tables, partial=partial) for y in (q, k))
    with t.op("attention", "attention"):
        h = attention.attention(
            t, q, k, v, causal=True, mask=mask, softmax_fp32=True, dropout=dropout, by_heads=partial
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, x.shape[-1], bias=bias)


class Router(NamedTuple):
    """A router that rates experts by a sigmoid [deepseek2024]."""

    experts: int
    chosen: int  # per token
    groups: int = 1
    groups_chosen: int = 1
    normalised: bool = True


def sigmoid_route(t: Tape, logits: Value, r: Router) -> tuple[Value, Value]:
    """Weights and indices of the chosen experts, of logits [tokens, experts] in fp32.

    An untrained bias affects the choice only.
    """
    scores = pointwise.unary(t, "sigmoid", logits)
    biased = pointwise.add(t, scores, t.buffer(r.experts))
    biased = moe.within_groups(t, biased, r.groups, r.groups_chosen, 2)
    _, ids = moe.top_k(t, biased, r.chosen)
    shares = moe.take(t, scores, ids, *ids.shape)
    if shares.grad:
        t.save(scores)
    if r.normalised:
        shares = moe.normalise(t, shares)
    return pointwise.scale(t, shares), ids


def wide_norm(t: Tape, name: str, x: Value) -> Value:
    """RMSNorm whose result is multiplied by its weight in fp32 and cast last, as an op `name`."""
    with t.op(name, "rms_norm"):
        if t.implementation("rms_norm", "composed") == "fused":
            return norm.rms_norm(t, x)
        w = t.parameter(x.shape[-1])
        full = t.cast(w, "fp32")
        if full is not w:
            full.kind = "weight_copy"
        return t.cast(pointwise.mul(t, full, state_space.normal(t, t.cast(x, "fp32"))), x.dtype)
