"""Mamba, Falcon-Mamba: the scan runs step by step, as in transformers, or by mamba-ssm's kernel."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families.mixers import causal_conv, kernels_of
from roofcast.simulator.models.families.transformer import causal_loss
from roofcast.simulator.work.ops import embedding, linear, norm, pointwise, scan
from roofcast.simulator.work.tape import Tape, Value


class Mamba1(NamedTuple):
    """Sizes of a Mamba mixer."""

    hidden: int
    inner: int
    state: int
    rank: int  # width of the low-rank projection to the step size
    kernel: int
    bias: bool
    conv_bias: bool
    act: str
    norms: str  # of dt, B and C: none | plain | scaled by a weight


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's MambaConfig and FalconMambaConfig, with their defaults."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    state_size: int = 16
    expand: int = 2
    conv_kernel: int = 4
    use_bias: bool = False
    use_conv_bias: bool = True
    hidden_act: str = "silu"
    residual_in_fp32: bool = True
    time_step_rank: int | str = "auto"
    tie_word_embeddings: bool = True
    model_type: str = "mamba"

    @property
    def context(self) -> int:
        """Sequence length of training [tokens]; the architecture has no limit."""
        return 2048

    @property
    def inner(self) -> int:
        """Inner width of the mixer."""
        return int(self.expand * self.hidden_size)

    @property
    def mixer(self) -> Mamba1:
        """Sizes of the mixers."""
        rank = self.time_step_rank
        return Mamba1(
            hidden=self.hidden_size,
            inner=self.inner,
            state=self.state_size,
            rank=rank if isinstance(rank, int) else -(-self.hidden_size // 16),
            kernel=self.conv_kernel,
            bias=self.use_bias,
            conv_bias=self.use_conv_bias,
            act=self.hidden_act,
            norms="plain" if self.model_type == "falcon_mamba" else "none",
        )


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, mixer], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("backbone"):
        with t.op("embeddings", "embedding"):
            table = t.parameter(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        x = t.repeat("layers", c.num_hidden_layers, lambda x: block(t, c, x), x)
        with t.op("norm_f", "rms_norm"):
            x = norm.rms_norm(t, x)
    x = t.cast(x, t.precision.weights)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    with t.op("norm", "rms_norm"):
        h = norm.rms_norm(t, t.cast(x, t.precision.weights))
    with t.scope("mixer"):
        h = mixer(t, c.mixer, h)
    with t.op("residual", "add"):
        return pointwise.add(t, t.cast(x, "fp32") if c.residual_in_fp32 else x, h)


def mixer(t: Tape, m: Mamba1, x: Value) -> Value:
    """Selective state space model [gu2023]; x and the result are [batch, tokens, width]."""
    if t.parallel.tp > 1:
        raise BadInput(
            f"tp {t.parallel.tp}: Mamba layers have no heads to cut; use --dp, --zero or --pp"
        )
    fused = kernels_of(t, "selective scan", "mamba-ssm")
    batch, length, _ = x.shape
    with t.op("in_proj", "linear"):
        both = linear.linear(t, x, 2 * m.inner, bias=m.bias)
        u, gate = (t.view(both, batch, m.inner, length) for _ in range(2))
    with t.op("A_log", "exp"):
        a = pointwise.unary(t, "exp", t.cast(t.parameter(m.inner, m.state), "fp32"))
        a = pointwise.unary(t, "neg", a)
    with t.op("conv1d", "conv"):
        u = causal_conv(t, u, m.kernel, bias=m.conv_bias, act=m.act, fused=fused)
    with t.op("x_proj", "linear"):
        rows = token_rows(t, u)
        parts = linear.linear(t, rows, m.rank + 2 * m.state, bias=False)
        dt, b, c = (t.view(parts, batch, length, n) for n in (m.rank, m.state, m.state))
    if m.norms != "none":
        dt, b, c = (
            _normed(t, name, v, m.norms == "scaled")
            for name, v in (("dt_layernorm", dt), ("b_layernorm", b), ("c_layernorm", c))
        )
    with t.op("dt_proj", "linear"):
        dt = linear.linear(t, dt, m.inner, bias=False)
        if not fused:
            bias = t.cast(t.view(t.parameter(m.inner), 1, m.inner, 1), dt.dtype)
            dt = pointwise.add(t, t.view(dt, batch, m.inner, length), bias)
            dt = pointwise.unary(t, "softplus", dt)
    with t.op("scan", "scan"):
        b, c = (t.view(v, batch, 1, length, m.state) for v in (b, c))
        if fused:
            bias, skip = t.parameter(m.inner), t.parameter(m.inner)
            y = scan.fused_scan(t, u, t.view(dt, *u.shape), b, c, (a, skip, bias, gate))
        else:
            y = scan.selective_scan(t, u, dt, b, c, a, fp32_weight(t, t.parameter(m.inner)))
    if fused and m.norms != "scaled":  # mamba_inner_fn computes these again in backward
        for v in (u, rows, dt):
            t.saved.pop(v.storage, None)
    if not fused:
        with t.op("gate", "silu"):
            y = pointwise.mul(t, y, pointwise.unary(t, "silu", gate))
    with t.op("out_proj", "linear"):
        return linear.linear(t, token_rows(t, t.cast(y, x.dtype)), m.hidden, bias=m.bias)


def _normed(t: Tape, name: str, x: Value, scaled: bool) -> Value:
    """RMSNorm of x, with or without a scale, as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, affine=scaled)


def token_rows(t: Tape, x: Value) -> Value:
    """x [B, I, S] as tokens [B, S, I]: a copy, except for a batch of one."""
    batch, inner, length = x.shape
    return t.view(x, 1, length, inner) if batch == 1 else pointwise.copy(t, x, batch, length, inner)


def fp32_weight(t: Tape, w: Value) -> Value:
    """A weight in fp32, counted as a copy of the weight, like those of autocast."""
    full = t.cast(w, "fp32")
    if full is not w:
        full.kind = "weight_copy"
    return full
