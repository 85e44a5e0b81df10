"""Mamba-2: state-space layers only."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families.mixers import Mamba2, mamba2
from roofcast.simulator.models.families.transformer import causal_loss
from roofcast.simulator.work.ops import embedding, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's Mamba2Config, with its defaults."""

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_heads: int = 128
    head_dim: int = 64
    state_size: int = 128
    n_groups: int = 8
    expand: int = 2
    conv_kernel: int = 4
    chunk_size: int = 256
    use_bias: bool = False
    use_conv_bias: bool = True
    hidden_act: str = "silu"
    residual_in_fp32: bool = True
    tie_word_embeddings: bool = False

    @property
    def context(self) -> int:
        """Sequence length of training [tokens]; the architecture has no limit."""
        return 2048

    @property
    def mixer(self) -> Mamba2:
        """Sizes of the mixers."""
        return Mamba2(
            hidden=self.hidden_size,
            heads=self.num_heads,
            dim=self.head_dim,
            groups=self.n_groups,
            state=self.state_size,
            chunk=self.chunk_size,
            kernel=self.conv_kernel,
            bias=self.use_bias,
            conv_bias=self.use_conv_bias,
            act=self.hidden_act,
        )


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, mixer], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("backbone"):
        with t.op("embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
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
        h = mamba2(t, h, c.mixer)
    with t.op("residual", "add"):
        return pointwise.add(t, t.cast(x, "fp32") if c.residual_in_fp32 else x, h)
