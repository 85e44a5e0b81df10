"""T5 (also v1.1, Flan). From its config.json. A sample is a text of `sequence` tokens and a target
of as many.
"""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import activate, heads_of
from roofcast.simulator.work.ops import attention, embedding, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape


class Config(msgspec.Struct, frozen=True):
    """Hugging Face T5Config, with its defaults for what may be left out."""

    vocab_size: int
    d_model: int
    d_kv: int
    d_ff: int
    num_layers: int
    num_heads: int
    num_decoder_layers: int | None = None
    relative_attention_num_buckets: int = 32
    dropout_rate: float = 0.1
    feed_forward_proj: str = "relu"
    # v1.1 says false; its head is tied all the same, only not scaled
    tie_word_embeddings: bool = True
    n_positions: int = 512

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.n_positions

    @property
    def gated(self) -> bool:
        """Is the MLP gated?"""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """Activation of the MLP."""
        name = self.feed_forward_proj.removeprefix("gated-")
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else name


def build(t: Tape, c: Config, batch: int, sequence: int):
    """One step over `batch` samples of `sequence` tokens, to its loss."""
    ids, labels = t.input((batch, sequence), "int64"), t.input((batch, sequence), "int64")
    table = t.vocabulary(c.vocab_size, c.d_model)
    memory = stack(t, c, "encoder", ids, table, None)
    x = stack(t, c, "decoder", t.new((batch, sequence), "int64"), table, memory)
    with t.op("lm_head", "linear"):
        x = pointwise.scale(t, x) if c.tie_word_embeddings else x
        logits = linear.linear(t, x, c.vocab_size, bias=False, weight=table, parallel=True)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, labels)


def stack(t: Tape, c: Config, name: str, ids, table, memory):
    """Embedding, n x [self-attention (, attention to `memory`), MLP], norm. The first layer's
    position bias serves all.
    """
    batch, length = ids.shape
    eager = t.implementation("attention", "flash") == "eager"
    with t.scope(name):
        with t.op("embed_tokens", "embedding"):
            x = embedding.embedding(t, ids, c.vocab_size, c.d_model, weight=table)
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.dropout_rate)
        with t.op("relative_attention_bias", "embedding"):
            buckets = t.new((length, length), "int64")
            t.emit("elementwise", (), (buckets,), vector=10 * buckets.size, special=buckets.size)
            bias = embedding.embedding(t, buckets, c.relative_attention_num_buckets, c.num_heads)
            bias = t.view(bias, 1, c.num_heads, length, length)
        mask = transformer.causal_mask(t, length, batch) if memory is not None and eager else None
        # no bias across
        nothing = (
            t.new((1, c.num_heads, length, memory.shape[1]), t.precision.autocast)
            if memory is not None
            else None
        )
        count = c.num_layers if memory is None else c.num_decoder_layers or c.num_layers
        x = t.repeat("block", count, lambda x: block(t, c, x, bias, mask, memory, nothing), x)
        x = normed(t, "final_layer_norm", x)
        with t.op("dropout", "dropout"):
            return pointwise.dropout(t, x, c.dropout_rate)


def normed(t: Tape, name: str, x):
    """T5's RMSNorm of x[batch, tokens, width], as an op of that name."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor="t5")


def block(t: Tape, c: Config, x, bias, mask, memory, nothing):
    """One layer: x[batch, tokens, width] in and out."""
    h = normed(t, "self.layer_norm", x)
    with t.scope("self"):
        h = attend(t, c, h, h, bias=bias, mask=mask, causal=memory is not None)
    with t.op("self.residual", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.dropout_rate))
    if memory is not None:
        h = normed(t, "cross.layer_norm", x)
        with t.scope("cross"):
            h = attend(t, c, h, memory, mask=nothing)
        with t.op("cross.residual", "add"):
            x = pointwise.add(t, x, pointwise.dropout(t, h, c.dropout_rate))
    h = normed(t, "ff.layer_norm", x)
    with t.scope("ff"):
        h = mlp(t, c, h)
    with t.op("ff.residual", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, c.dropout_rate))


def attend(t: Tape, c: Config, x, source, *, bias=None, mask=None, causal=False):
    """Attention of x[batch, tokens, width] over `source`, itself or what the encoder left."""
    heads = []
    for name, y in (("q", x), ("k", source), ("v", source)):
        with t.op(name, "linear"):
            heads.append(
                heads_of(
                    t, linear.linear(t, y, c.num_heads * c.d_kv, bias=False), c.num_heads, c.d_kv
                )
            )
    with t.op("attention", "attention"):
        if bias is not None and t.implementation("attention", "flash") != "eager":
            bias = for_kernel(t, bias, causal)
        h = attention.attention(
            t, *heads, causal=causal, bias=bias, mask=mask, dropout=c.dropout_rate
        )
    with t.op("o", "linear"):
        return linear.linear(t, h, c.d_model, bias=False)


def for_kernel(t: Tape, bias, causal: bool):
    """The bias as a fused kernel takes it, anew in each layer: later keys hidden (keeps one byte a
    place), laid out by heads.
    """
    if causal:
        bias = pointwise.where(t, bias, t.new((1, 1, *bias.shape[-2:]), "bool"))
    return pointwise.copy(t, bias) if bias.shape[1] > 1 else bias


def mlp(t: Tape, c: Config, x):
    """The MLP of x[batch, tokens, width]."""
    with t.op("wi", "linear"):
        h = linear.linear(t, x, c.d_ff, bias=False)
    with t.op("act", c.activation):
        h = activate(t, c.activation, h)
    if c.gated:
        with t.op("wi_1", "linear"):
            h = pointwise.mul(t, h, linear.linear(t, x, c.d_ff, bias=False))
    with t.op("dropout", "dropout"):
        h = t.cast(pointwise.dropout(t, h, c.dropout_rate), t.precision.weights)
    with t.op("wo", "linear"):
        return linear.linear(t, h, c.d_model, bias=False)
