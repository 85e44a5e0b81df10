"""BART, its relatives and Whisper: encoder and decoder with layer norms.

A sample of BART is a text and a target, each of `sequence` tokens. A sample of Whisper is 30 s of
audio (a mel spectrogram of 2 x `max_source_positions` frames, whatever `sequence`) and a target of
`sequence` tokens. Relatives differ by the facts in FACTS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import activate, heads_of, normed
from roofcast.simulator.work.ops import attention, conv, embedding, linear, loss, pointwise
from roofcast.simulator.work.tape import Tape, Value

OFFSET = 2  # first rows of BART's position table, never used


class Facts(NamedTuple):
    """What distinguishes a model_type."""

    first: bool = False  # layers normalize before each part, and the stacks at their ends
    normed: bool = True  # the sum of embeddings is normalized
    places: str = "learned"  # positions: learned, fixed (a parameter without gradient), buffer
    offset: int = 0  # rows of the position table that are never used
    each: bool = False  # positions are looked up for every sample, not once
    bias: bool = True  # the logits have a bias that is not trained
    act: str = "gelu"
    attention_dropout: float = 0.0
    scaled: bool = True  # embeddings of tokens are multiplied by a number
    eager: bool = False  # attention of the decoder has no fused kernel


FACTS = {
    "bart": Facts(offset=OFFSET, each=True),
    "blenderbot": Facts(first=True, normed=False),
    "blenderbot-small": Facts(),
    "led": Facts(scaled=False, eager=True),
    "m2m_100": Facts(
        first=True, normed=False, places="buffer", offset=OFFSET, each=True, bias=False, act="relu",
        attention_dropout=0.1,
    ),
    "marian": Facts(normed=False, places="fixed"),
    "mbart": Facts(first=True, offset=OFFSET, each=True),
    "pegasus": Facts(first=True, normed=False, places="fixed"),
    "plbart": Facts(offset=OFFSET, each=True, attention_dropout=0.1),
    "whisper": Facts(first=True, normed=False, each=True, bias=False, scaled=False),
}  # fmt: skip


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's configurations of FACTS, with their defaults."""

    model_type: str
    vocab_size: int
    d_model: int
    encoder_layers: int
    decoder_layers: int
    encoder_attention_heads: int
    decoder_attention_heads: int
    encoder_ffn_dim: int
    decoder_ffn_dim: int
    activation_function: str | None = None
    dropout: float | None = None
    attention_dropout: float | None = None
    activation_dropout: float = 0.0
    scale_embedding: bool = False
    max_position_embeddings: int = 1024
    num_mel_bins: int = 80
    max_source_positions: int = 1500
    max_target_positions: int = 448
    tie_word_embeddings: bool = True
    share_encoder_decoder_embeddings: bool = True
    decoder_vocab_size: int | None = None
    encoder_layerdrop: float | None = 0.0
    decoder_layerdrop: float | None = 0.0
    add_final_layer_norm: bool = False  # unread by transformers, as the next four
    add_bias_logits: bool = False
    normalize_before: bool = False
    normalize_embedding: bool = False
    static_position_embeddings: bool = False

    def __post_init__(self) -> None:
        for heads in (self.encoder_attention_heads, self.decoder_attention_heads):
            if heads < 1 or self.d_model % heads:
                raise ValueError(
                    f"{self.d_model} (d_model) is not divisible by {heads} (attention heads)"
                )
        sizes = (None, self.vocab_size)
        if not self.share_encoder_decoder_embeddings or self.decoder_vocab_size not in sizes:
            raise ValueError("two vocabularies are not modeled; use one table for both stacks")

    @property
    def facts(self) -> Facts:
        """What distinguishes the model_type."""
        return FACTS[self.model_type]

    @property
    def act(self) -> str:
        """Activation of the MLPs."""
        return self.activation_function or self.facts.act

    @property
    def attention_drop(self) -> float:
        """Dropout probability of attention."""
        given = self.attention_dropout
        return self.facts.attention_dropout if given is None else given

    @property
    def speech(self) -> bool:
        """Whether the encoder takes audio (Whisper) rather than text (BART)."""
        return self.model_type == "whisper"

    @property
    def context(self) -> int:
        """Longest sequence [tokens]."""
        return self.max_target_positions if self.speech else self.max_position_embeddings

    @property
    def drop(self) -> float:
        """Dropout probability before a residual is added."""
        default = 0.0 if self.speech else 0.1
        return default if self.dropout is None else self.dropout


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    labels = t.input((batch, sequence), "int64")
    if t.training and (c.encoder_layerdrop or c.decoder_layerdrop):
        t.assumptions.append("encoder_layerdrop, decoder_layerdrop: no layer is dropped")
    if c.speech:
        x, table = audio(t, c, batch), None
    else:
        table = t.vocabulary(c.vocab_size, c.d_model)
        rows = batch if c.facts.each else 1
        x = text(t, c, "encoder", t.input((batch, sequence), "int64"), table, rows)
    with t.scope("encoder"):
        heads, width = c.encoder_attention_heads, c.encoder_ffn_dim
        x = t.repeat("layers", c.encoder_layers, lambda x: block(t, c, x, heads, width), x)
        memory = normed(t, "layer_norm", x) if c.facts.first else x
    with t.scope("decoder"):
        if table is None:
            table = t.vocabulary(c.vocab_size, c.d_model)
        rows = batch if c.speech or c.facts.places == "buffer" else 1
        x = text(t, c, "embed", t.new((batch, sequence), "int64"), table, rows)
        x = decoder(t, c, x, memory)
    with t.op("lm_head", "linear"):
        tied = table if c.tie_word_embeddings else None
        logits = linear.linear(t, x, c.vocab_size, bias=False, weight=tied, parallel=True)
        if c.facts.bias:  # a bias that is not trained
            dtype = logits.dtype if t.precision.autocast is None else "fp32"
            logits = pointwise.add(t, logits, t.buffer(1, logits.shape[-1], dtype=dtype))
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, labels)


def decoder(t: Tape, c: Config, x: Value, memory: Value) -> Value:
    """The decoder's layers on x [batch, tokens, width]; `memory` is the encoder's output."""
    batch, eager = memory.shape[0], c.facts.eager
    masks = transformer.causal_masks(t, x.shape[1], batch, eager=eager)
    heads, width = c.decoder_attention_heads, c.decoder_ffn_dim
    x = t.repeat(
        "layers", c.decoder_layers, lambda x: block(t, c, x, heads, width, masks(), memory), x
    )
    return normed(t, "layer_norm", x) if c.facts.first else x


def audio(t: Tape, c: Config, batch: int) -> Value:
    """Whisper's input: two convolutions over the spectrogram, and fixed positions.

    The second convolution halves the number of frames.
    """
    frames = t.input((batch, c.num_mel_bins, 2 * c.max_source_positions))
    with t.scope("encoder"):
        with t.op("conv1", "conv"):
            x = conv.conv(t, frames, c.d_model, 3, padding=1, dims=1)
        with t.op("gelu1", "gelu"):
            x = pointwise.unary(t, "gelu", x)
        with t.op("conv2", "conv"):
            x = conv.conv(t, x, c.d_model, 3, stride=2, padding=1, dims=1)
        with t.op("gelu2", "gelu"):
            x = pointwise.unary(t, "gelu", x)
        with t.op("embed_positions", "add"):
            positions = t.parameter(c.max_source_positions, c.d_model, trainable=False)
            x = pointwise.add(t, t.view(x, batch, c.max_source_positions, c.d_model), positions)
            return pointwise.dropout(t, x, c.drop)


def text(t: Tape, c: Config, name: str, ids: Value, table: Value, rows: int) -> Value:
    """Embeddings of tokens and positions; BART normalizes their sum."""
    length, first = ids.shape[1], c.model_type == "blenderbot-small" and name == "embed"
    with t.scope(name):
        with t.op("embed_tokens", "embedding"):
            x = embedding.embedding(t, ids, c.vocab_size, c.d_model, weight=table)
            x = pointwise.scale(t, x) if c.facts.scaled else x
        x = normed(t, "layernorm_embedding", x) if first else x
        with t.op("embed_positions", "embedding"):
            x = pointwise.add(t, x, places(t, c, rows, length))
        if c.facts.normed and not first:
            x = normed(t, "layernorm_embedding", x)
        with t.op("dropout", "dropout"):
            return pointwise.dropout(t, x, c.drop)


def places(t: Tape, c: Config, rows: int, length: int) -> Value:
    """Rows of the position table, [rows, length, width]."""
    count = c.max_target_positions if c.speech else c.max_position_embeddings + c.facts.offset
    ids, how = t.new((rows, length), "int64"), c.facts.places
    if how == "learned":
        return embedding.embedding(t, ids, count, c.d_model)
    if how == "fixed":
        table = t.parameter(count, c.d_model, trainable=False)
    else:
        table = t.buffer(count, c.d_model, dtype=t.precision.weights)
    return embedding.embedding(t, ids, count, c.d_model, weight=table)


def block(
    t: Tape,
    c: Config,
    x: Value,
    heads: int,
    width: int,
    mask: Value | None = None,
    memory: Value | None = None,
) -> Value:
    """A block: self-attention, in a decoder attention to `memory`, and the MLP.

    Whisper and others normalize before each part, BART after it.
    """
    causal = memory is not None
    x = around(t, c, "self_attn", x, lambda h: attend(t, c, h, h, heads, mask, causal=causal))
    if memory is not None:
        x = around(t, c, "encoder_attn", x, lambda h: attend(t, c, h, memory, heads))
    return around(t, c, "final", x, lambda h: mlp(t, c, h, width))


def around(t: Tape, c: Config, name: str, x: Value, body: Callable[[Value], Value]) -> Value:
    """A part with its residual and its norm, before it (Whisper) or after it (BART)."""
    h = normed(t, f"{name}_layer_norm", x) if c.facts.first else x
    with t.scope(name):
        h = body(h)
    with t.op(f"{name}_residual", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.drop))
    return x if c.facts.first else normed(t, f"{name}_layer_norm", x)


def attend(
    t: Tape,
    c: Config,
    x: Value,
    source: Value,
    heads: int,
    mask: Value | None = None,
    *,
    causal: bool = False,
) -> Value:
    """Attention of x [batch, tokens, width] over `source`: x itself or the encoder's output."""
    parts = []
    for name, y in (("q_proj", x), ("k_proj", source), ("v_proj", source)):
        with t.op(name, "linear"):
            h = linear.linear(t, y, c.d_model, bias=not (c.speech and name == "k_proj"))
            h = pointwise.scale(t, h) if c.speech and name == "q_proj" else h
            h = heads_of(t, h, heads, c.d_model // heads)
            parts.append(pointwise.copy(t, h) if c.speech and heads > 1 else h)
    with t.op("attention", "attention"):
        h = attention.attention(
            t,
            *parts,
            causal=causal,
            mask=mask,
            dropout=c.attention_drop,
            by_heads=c.speech,
            memory=source is not x,
            eager=c.facts.eager,
        )
    with t.op("out_proj", "linear"):
        return linear.linear(t, h, c.d_model)


def mlp(t: Tape, c: Config, x: Value, width: int) -> Value:
    """The MLP of x [batch, tokens, width]."""
    with t.op("fc1", "linear"):
        h = linear.linear(t, x, width)
    with t.op("activation_fn", c.act):
        h = pointwise.dropout(t, activate(t, c.act, h), c.activation_dropout)
    with t.op("fc2", "linear"):
        return linear.linear(t, h, c.d_model)
