"""RWKV-4: a recurrence over channels and a gated MLP per layer, both mixed with the last token."""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families.mixers import kernels_of
from roofcast.simulator.models.families.transformer import causal_loss, normed
from roofcast.simulator.work.ops import embedding, linear, pointwise, scan
from roofcast.simulator.work.ops import states as states_of
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's RwkvConfig, with its defaults."""

    vocab_size: int = 50277
    context_length: int = 1024
    hidden_size: int = 4096
    num_hidden_layers: int = 32
    attention_hidden_size: int | None = None
    intermediate_size: int | None = None
    tie_word_embeddings: bool = False

    @property
    def context(self) -> int:
        """Longest sequence of training [tokens]."""
        return self.context_length


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, norm, n x [norm, time mixing, norm, channel mixing], norm, head."""
    if t.parallel.tp > 1:
        raise BadInput(
            f"tp {t.parallel.tp}: RWKV layers have no heads to cut; use --dp, --zero or --pp"
        )
    ids = t.input((batch, sequence), "int64")
    with t.scope("rwkv"):
        with t.op("embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        x = normed(t, "pre_ln", x)
        x = t.repeat("blocks", c.num_hidden_layers, lambda x: block(t, c, x), x)
        x = normed(t, "ln_out", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value) -> Value:
    """One layer; x and the result are [batch, tokens, width]."""
    h = normed(t, "ln1", x)
    with t.scope("attention"):
        h = time_mixing(t, c, h)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "ln2", x)
    with t.scope("feed_forward"):
        h = channel_mixing(t, c, h)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, h)


def mixed(t: Tape, name: str, x: Value, before: Value, out: int) -> Value:
    """A linear layer of x m + before (1 - m) for a weight m; `before` are the tokens before."""
    with t.op(name, "linear"):
        m = t.parameter(1, 1, x.shape[-1])
        rest = pointwise.unary(t, "add_scalar", pointwise.unary(t, "neg", m))
        h = pointwise.add(t, pointwise.mul(t, x, m), pointwise.mul(t, before, rest))
        return linear.linear(t, h, out, bias=False)


def shifted(t: Tape, x: Value) -> Value:
    """Every token's predecessor."""
    with t.op("time_shift", "pad"):
        states_of.held(t, x.shape[-1])
        return pointwise.copy(t, x)


def time_mixing(t: Tape, c: Config, x: Value) -> Value:
    """out(sigmoid(r) * wkv(k, v)) [peng2023] of x [batch, tokens, width]."""
    fused = kernels_of(t, "wkv recurrence", "RWKV's CUDA kernel")
    before, width = shifted(t, x), c.attention_hidden_size or c.hidden_size
    key, value, gate = (mixed(t, n, x, before, width) for n in ("key", "value", "receptance"))
    with t.op("wkv", "scan"):
        gate = pointwise.unary(t, "sigmoid", gate)
        y = scan.wkv(t, key, value, fused=fused)
        y = pointwise.mul(t, gate, y)
    with t.op("output", "linear"):
        return linear.linear(t, y, c.hidden_size, bias=False)


def channel_mixing(t: Tape, c: Config, x: Value) -> Value:
    """sigmoid(r) * value(relu(k)^2) of x [batch, tokens, width]."""
    before = shifted(t, x)
    key = mixed(t, "key", x, before, c.intermediate_size or 4 * c.hidden_size)
    with t.op("square", "pow"):
        key = pointwise.unary(t, "pow", pointwise.unary(t, "relu", key))
    with t.op("value", "linear"):
        value = linear.linear(t, key, c.hidden_size, bias=False)
    gate = mixed(t, "receptance", x, before, c.hidden_size)
    with t.op("gate", "sigmoid"):
        return pointwise.mul(t, pointwise.unary(t, "sigmoid", gate), value)
