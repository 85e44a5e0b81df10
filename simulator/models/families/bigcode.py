"""GPT-BigCode (StarCoder, SantaCoder): GPT-2 with one key-value head."""

from __future__ import annotations

from roofcast.simulator.models.families import gpt2, transformer
from roofcast.simulator.models.families.transformer import activate, causal_loss, heads_of, normed
from roofcast.simulator.work.ops import attention, embedding, linear, pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(gpt2.Config, frozen=True):
    """Keys of Hugging Face's GPTBigCodeConfig: those of GPT-2 and one more, with its defaults."""

    activation_function: str = "gelu_pytorch_tanh"
    multi_query: bool = True

    @property
    def groups(self) -> int:
        """Number of key-value heads."""
        return 1 if self.multi_query else self.n_head


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embeddings of tokens and positions, n x [norm, attention, norm, MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("transformer"):
        with t.op("wte", "embedding"):
            table = t.vocabulary(c.vocab_size, c.n_embd)
            x = embedding.embedding(t, ids, c.vocab_size, c.n_embd, weight=table)
        with t.op("wpe", "embedding"):
            places = t.new((1, sequence), "int64")
            positions = embedding.embedding(t, places, c.n_positions, c.n_embd)
        with t.op("drop", "dropout"):
            x = pointwise.dropout(t, pointwise.add(t, x, positions), c.embd_pdrop)
        mask = transformer.causal_masks(t, sequence, batch)()
        x = t.repeat("h", c.n_layer, lambda x: block(t, c, x, mask), x)
        x = normed(t, "ln_f", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value, mask: Value | None) -> Value:
    """One block; x and the result are [batch, tokens, width]."""
    h = normed(t, "ln_1", x)
    with t.scope("attn"):
        h = self_attention(t, c, h, mask)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, pointwise.dropout(t, h, c.resid_pdrop), x)
    h = normed(t, "ln_2", x)
    with t.scope("mlp"):
        with t.op("c_fc", "linear"):
            h = linear.linear(t, h, c.n_inner or 4 * c.n_embd)
        with t.op("act", c.activation_function):
            h = activate(t, c.activation_function, h)
        with t.op("c_proj", "linear"):
            h = linear.linear(t, h, c.n_embd)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, x, pointwise.dropout(t, h, c.resid_pdrop))


def self_attention(t: Tape, c: Config, h: Value, mask: Value | None) -> Value:
    """Self-attention; h and the result are [batch, tokens, width]."""
    heads, groups, dim = c.n_head, c.groups, c.n_embd // c.n_head
    with t.op("c_attn", "linear"):
        if t.parallel.tp > 1 and groups < heads:  # every rank has the key-value head
            q = linear.linear(t, h, heads * dim)
            k = v = linear.linear(t, h, 2 * groups * dim, whole=2 * groups * dim)
        else:
            q = k = v = linear.linear(t, h, (heads + 2 * groups) * dim)
    with t.op("attention", "attention"):
        q, k, v = (
            heads_of(t, t.view(x, *x.shape[:2], n * dim), n, dim, shared=n < heads)
            for x, n in ((q, heads), (k, groups), (v, groups))
        )
        h = attention.attention(
            t, q, k, v, causal=True, mask=mask, softmax_fp32=True, dropout=c.attn_pdrop
        )
    with t.op("c_proj", "linear"):
        return linear.linear(t, h, c.n_embd)
