"""T5 (also v1.1, Flan), mT5 and UMT5. A sample is a text and a target, `sequence` tokens each."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import activate, projections
from roofcast.simulator.work.ops import attention, embedding, linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's T5Config, MT5Config and UMT5Config, with their defaults."""

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
    # false in v1.1, whose head is tied nevertheless, but without the scaling of the states
    tie_word_embeddings: bool = True
    n_positions: int = 512
    model_type: str = "t5"

    @property
    def shared(self) -> bool:
        """Whether the position bias of the first layer serves all layers; UMT5's have their own."""
        return self.model_type != "umt5"

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.n_positions

    @property
    def gated(self) -> bool:
        """Whether the MLP is gated."""
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """Activation of the MLP."""
        name = self.feed_forward_proj.removeprefix("gated-")
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else name


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
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


def stack(t: Tape, c: Config, name: str, ids: Value, table: Value, memory: Value | None) -> Value:
    """Embedding, n x [self-attention, cross-attention, MLP], norm.

    `memory` is the encoder's output; without it, the stack is the encoder and has no
    cross-attention.
    """
    batch, length = ids.shape
    eager = t.implementation("attention", "flash") == "eager"
    with t.scope(name):
        with t.op("embed_tokens", "embedding"):
            x = embedding.embedding(t, ids, c.vocab_size, c.d_model, weight=table)
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.dropout_rate)
        bias = biased(t, c, length) if c.shared else None
        mask = transformer.causal_mask(t, length, batch) if memory is not None and eager else None
        across = None  # no bias between decoder and encoder
        if memory is not None and c.shared:
            across = unbiased(t, c, length, memory.shape[1])
        count = c.num_layers if memory is None else c.num_decoder_layers or c.num_layers
        x = t.repeat("block", count, lambda x: block(t, c, x, bias, mask, memory, across), x)
        x = normed(t, "final_layer_norm", x)
        with t.op("dropout", "dropout"):
            return pointwise.dropout(t, x, c.dropout_rate)


def biased(t: Tape, c: Config, length: int) -> Value:
    """The learned bias [1, heads, length, length] of attention by relative position."""
    with t.op("relative_attention_bias", "embedding"):
        buckets = t.new((length, length), "int64")
        t.emit("elementwise", (), (buckets,), vector=10 * buckets.size, special=buckets.size)
        bias = embedding.embedding(t, buckets, c.relative_attention_num_buckets, c.num_heads)
        return t.view(bias, 1, c.num_heads, length, length)


def unbiased(t: Tape, c: Config, length: int, keys: int) -> Value:
    """The zeros that transformers adds to the scores of attention to the encoder's output."""
    return t.new((1, c.num_heads, length, keys), t.precision.autocast)


def tokens_of(t: Tape, x: Value) -> int:
    """Tokens of x [batch, tokens, width] over all ranks."""
    return x.shape[1] * t.parallel.tp if x.split == "tokens" else x.shape[1]


def normed(t: Tape, name: str, x: Value) -> Value:
    """T5's RMSNorm of x [batch, tokens, width], as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor="t5")


def block(
    t: Tape,
    c: Config,
    x: Value,
    bias: Value | None,
    mask: Value | None,
    memory: Value | None,
    across: Value | None,
) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = normed(t, "self.layer_norm", x)
    with t.scope("self"):
        bias = biased(t, c, tokens_of(t, x)) if bias is None else bias
        h = attend(t, c, h, h, bias=bias, mask=mask, causal=memory is not None)
    with t.op("self.residual", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.dropout_rate))
    if memory is not None:
        h = normed(t, "cross.layer_norm", x)
        with t.scope("cross"):
            if across is None:
                across = unbiased(t, c, tokens_of(t, x), tokens_of(t, memory))
            h = attend(t, c, h, memory, mask=across)
        with t.op("cross.residual", "add"):
            x = pointwise.add(t, x, pointwise.dropout(t, h, c.dropout_rate))
    h = normed(t, "ff.layer_norm", x)
    with t.scope("ff"):
        h = mlp(t, c, h)
    with t.op("ff.residual", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, c.dropout_rate))


def attend(
    t: Tape,
    c: Config,
    x: Value,
    source: Value,
    *,
    bias: Value | None = None,
    mask: Value | None = None,
    causal: bool = False,
) -> Value:
    """Attention of x [batch, tokens, width] over `source`: x itself or the encoder's output."""
    q = projections(t, x, {"q": c.num_heads}, c.d_kv, bias=False)
    kv = projections(t, source, {"k": c.num_heads, "v": c.num_heads}, c.d_kv, bias=False)
    with t.op("attention", "attention"):
        if bias is not None and t.implementation("attention", "flash") != "eager":
            bias = for_kernel(t, bias, causal)
        h = attention.attention(
            t,
            *q,
            *kv,
            causal=causal,
            bias=bias,
            mask=mask,
            dropout=c.dropout_rate,
            memory=source is not x,
        )
    with t.op("o", "linear"):
        return linear.linear(t, h, c.d_model, bias=False)


def for_kernel(t: Tape, bias: Value, causal: bool) -> Value:
    """The position bias as a fused kernel takes it, prepared anew in each layer.

    Later keys are hidden (one byte per element is kept), and the result is laid out by heads.
    """
    if causal:
        bias = pointwise.where(t, bias, t.new((1, 1, *bias.shape[-2:]), "bool"))
    return pointwise.copy(t, bias) if bias.shape[1] > 1 else bias


def mlp(t: Tape, c: Config, x: Value) -> Value:
    """The MLP of x [batch, tokens, width]."""
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
