"""LED [beltagy2020]: BART with Longformer's attention in its encoder.

A sample is a text and a target, each of `sequence` tokens.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import number_of
from roofcast.simulator.models.families import encdec, transformer
from roofcast.simulator.models.families.longformer import (
    check_windows,
    padded,
    refuse_cp,
    sliding_attention,
)
from roofcast.simulator.work.ops import linear, loss, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(encdec.Config, frozen=True):
    """Keys of Hugging Face's LEDConfig, with its defaults."""

    attention_window: int | list[int] = 512
    max_encoder_position_embeddings: int = 16384
    max_decoder_position_embeddings: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        check_windows(self.windows)
        if len(self.windows) < self.encoder_layers:
            raise ValueError(
                f"'attention_window' has {number_of(len(self.windows), 'entry', 'entries')} for"
                f" {self.encoder_layers} layers"
            )

    @property
    def windows(self) -> list[int]:
        """The window of every layer of the encoder [tokens]."""
        given = self.attention_window
        return given if isinstance(given, list) else [given] * min(self.encoder_layers, 10_000)

    @property
    def context(self) -> int:
        """Longest text and target [tokens]."""
        return min(self.max_encoder_position_embeddings, self.max_decoder_position_embeddings)


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` tokens: the loss, or in inference the logits."""
    refuse_cp(t)
    labels = t.input((batch, sequence), "int64")
    table, windows = t.vocabulary(c.vocab_size, c.d_model), c.windows[: c.encoder_layers]
    length = padded(t, sequence, windows)
    ids = t.input((batch, sequence), "int64")
    ids = ids if length == sequence else t.new((batch, length), "int64")
    first, last = (
        msgspec.structs.replace(c, max_position_embeddings=rows)
        for rows in (c.max_encoder_position_embeddings, c.max_decoder_position_embeddings)
    )
    x = encdec.text(t, first, "encoder", ids, table, 1)
    hidden = t.new((batch, length), "bool")  # tokens of padding
    with t.scope("encoder"):
        x = transformer.layers(t, "layers", windows, lambda x, w: block(t, c, x, w, hidden), x)
    if length != sequence:
        own = x.shape[1] * sequence // length  # of a rank that holds its own tokens
        x = pointwise.copy(t, pointwise.part(t, x, batch, own, c.d_model))
    memory = x
    with t.scope("decoder"):
        x = encdec.text(t, last, "embed", t.new((batch, sequence), "int64"), table, 1)
        x = encdec.decoder(t, c, x, memory)
    with t.op("lm_head", "linear"):
        tied = table if c.tie_word_embeddings else None
        logits = linear.linear(t, x, c.vocab_size, bias=False, weight=tied, parallel=True)
        dtype = logits.dtype if t.precision.autocast is None else "fp32"
        logits = pointwise.add(t, logits, t.buffer(1, logits.shape[-1], dtype=dtype))
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, labels)


def block(t: Tape, c: Config, x: Value, window: int, hidden: Value) -> Value:
    """A block of the encoder; x and the result are [batch, tokens, width]."""

    def attend(h: Value) -> Value:
        heads, drop = c.encoder_attention_heads, c.attention_drop
        h = sliding_attention(t, h, heads, window, hidden, drop)
        with t.op("output", "linear"):
            return linear.linear(t, h, c.d_model)

    x = encdec.around(t, c, "self_attn", x, attend)
    return encdec.around(t, c, "final", x, lambda h: encdec.mlp(t, c, h, c.encoder_ffn_dim))
