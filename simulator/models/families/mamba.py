"""Mamba. The scan runs step by step, as in transformers without the mamba-ssm kernels."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families.transformer import activate, causal_loss
from roofcast.simulator.work.ops import conv, embedding, linear, norm, pointwise, scan
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's MambaConfig, with its defaults."""

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

    @property
    def context(self) -> int:
        """Sequence length of training [tokens]; the architecture has no limit."""
        return 2048

    @property
    def inner(self) -> int:
        """Inner width of the mixer."""
        return int(self.expand * self.hidden_size)

    @property
    def rank(self) -> int:
        """Width of the low-rank projection to the step size."""
        if isinstance(self.time_step_rank, str):
            return -(-self.hidden_size // 16)
        return self.time_step_rank


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
        h = mixer(t, c, h)
    with t.op("residual", "add"):
        return pointwise.add(t, t.cast(x, "fp32") if c.residual_in_fp32 else x, h)


def mixer(t: Tape, c: Config, x: Value) -> Value:
    """Selective state space model [gu2023]; x and the result are [batch, tokens, width]."""
    batch, length, _ = x.shape
    inner, n = c.inner, c.state_size
    with t.op("in_proj", "linear"):
        both = linear.linear(t, x, 2 * inner, bias=c.use_bias)
        u, gate = (t.view(both, batch, inner, length) for _ in range(2))
    with t.op("A_log", "exp"):
        a = pointwise.unary(t, "exp", t.cast(t.parameter(inner, n), "fp32"))
        a = pointwise.unary(t, "neg", a)
    with t.op("conv1d", "conv"):
        u, kernel = t.cast(u, t.precision.weights), c.conv_kernel
        u = conv.conv(
            t, u, inner, kernel, padding=kernel - 1, groups=inner, bias=c.use_conv_bias, dims=1
        )
        u = activate(t, c.hidden_act, t.view(u, batch, inner, length))
        u = t.cast(u, both.dtype)
    with t.op("x_proj", "linear"):
        parts = linear.linear(t, token_rows(t, u), c.rank + 2 * n, bias=False)
    with t.op("dt_proj", "linear"):
        dt = linear.linear(t, t.view(parts, batch, length, c.rank), inner, bias=False)
        bias = t.cast(t.view(t.parameter(inner), 1, inner, 1), dt.dtype)
        dt = pointwise.add(t, t.view(dt, batch, inner, length), bias)
        dt = pointwise.unary(t, "softplus", dt)
    with t.op("scan", "scan"):
        b, states = (t.view(parts, batch, 1, length, n) for _ in range(2))
        y = scan.selective_scan(t, u, dt, b, states, a, fp32_weight(t, t.parameter(inner)))
    with t.op("gate", "silu"):
        y = pointwise.mul(t, y, pointwise.unary(t, "silu", gate))
    with t.op("out_proj", "linear"):
        return linear.linear(t, token_rows(t, t.cast(y, x.dtype)), c.hidden_size, bias=c.use_bias)


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
