"""RecurrentGemma (Griffin): gated linear recurrences, and windowed attention every third layer."""

from __future__ import annotations

import msgspec

from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.mixers import causal_conv, kernels_of
from roofcast.simulator.models.families.transformer import (
    activate,
    causal_loss,
    gated_mlp,
    projections,
    rotary_tables,
    rotate,
)
from roofcast.simulator.work.ops import attention, embedding, linear, norm, pointwise, scan
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's RecurrentGemmaConfig, with its defaults."""

    vocab_size: int = 256000
    hidden_size: int = 2560
    intermediate_size: int = 7680
    num_hidden_layers: int = 26
    num_attention_heads: int = 10
    num_key_value_heads: int | None = None
    lru_width: int | None = None
    attention_window_size: int = 2048
    conv1d_width: int = 4
    hidden_activation: str = "gelu_pytorch_tanh"
    block_types: list[str] = msgspec.field(
        default_factory=lambda: ["recurrent", "recurrent", "attention"]
    )
    attention_bias: bool = False
    attention_dropout: float = 0.0
    partial_rotary_factor: float = 0.5
    tie_word_embeddings: bool = True

    def __post_init__(self) -> None:
        known = "recurrent", "attention"
        bad = next((k for k in self.block_types if k not in known), None)
        if bad is not None or not self.block_types:
            raise ValueError(f"block_types: kinds of layers are wanted, of {', '.join(known)}")

    @property
    def context(self) -> int:
        """Sequence length of training [tokens]; the architecture has no limit."""
        return 8192

    @property
    def kinds(self) -> list[bool]:
        """For every layer, whether it attends."""
        of = self.block_types
        return [of[n % len(of)] == "attention" for n in range(self.num_hidden_layers)]

    @property
    def dim(self) -> int:
        """Width of one head."""
        return self.hidden_size // self.num_attention_heads


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, n x [norm, recurrence or attention, norm, MLP], norm, head."""
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embed_tokens", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size, tied="embedding")
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
            x = pointwise.scale(t, x)
            if x.dtype != "bf16":
                t.keep(x.bytes // x.size)  # the factor, which is a bf16 number in the model
        masks = transformer.causal_masks(t, sequence, batch)
        mask = masks(c.attention_window_size) if any(c.kinds) else None
        x = transformer.layers(
            t, "layers", c.kinds, lambda x, attends: block(t, c, x, mask, attends), x
        )
        x = normed(t, "final_norm", x)
    weight = table if c.tie_word_embeddings else None
    return causal_loss(t, x, c.vocab_size, weight=weight, softcap=True)


def normed(t: Tape, name: str, x: Value) -> Value:
    """Gemma's RMSNorm of x, as an op called `name`."""
    with t.op(name, "rms_norm"):
        return norm.rms_norm(t, x, flavor="gemma")


def block(t: Tape, c: Config, x: Value, mask: Value | None, attends: bool) -> Value:
    """One layer; x and the result are [batch, tokens, width]."""
    h = normed(t, "temporal_pre_norm", x)
    with t.scope("temporal_block"):
        h = self_attention(t, c, h, mask) if attends else recurrence(t, c, h)
    with t.op("residual_mixer", "add"):
        x = pointwise.add(t, h, x)
    h = normed(t, "channel_pre_norm", x)
    with t.scope("mlp_block"):
        width, act = c.intermediate_size // 2, c.hidden_activation
        h = gated_mlp(t, h, width, c.hidden_size, activation=act, bias=True)
    with t.op("residual_mlp", "add"):
        return pointwise.add(t, h, x)


def self_attention(t: Tape, c: Config, x: Value, mask: Value | None) -> Value:
    """Windowed attention; every layer computes its own angles."""
    groups, dim = c.num_key_value_heads or c.num_attention_heads, c.dim
    names = {"q_proj": c.num_attention_heads, "k_proj": groups, "v_proj": groups}
    q, k, v = projections(t, x, names, dim, bias=c.attention_bias, whole=dim)
    tables = rotary_tables(t, q.shape[2], int(dim * c.partial_rotary_factor))
    with t.op("rotary", "rotary"):
        q, k = (rotate(t, y, *tables, partial=True) for y in (q, k))
    with t.op("attention", "attention"):
        h = attention.attention(
            t,
            q,
            k,
            v,
            causal=True,
            mask=mask,
            softmax_fp32=True,
            window=c.attention_window_size,
            dropout=c.attention_dropout,
            by_heads=True,
        )
    with t.op("o_proj", "linear"):
        return linear.linear(t, h, c.hidden_size, bias=True)


def recurrence(t: Tape, c: Config, x: Value) -> Value:
    """out(gelu(y(x)) * RG-LRU(conv(x'(x)))) [de2024]."""
    fused = kernels_of(t, "gated linear recurrence", "a scan over channels")
    width = c.lru_width or c.hidden_size
    with t.op("linear_y", "linear"):
        y = linear.linear(t, x, width)
    with t.op("act_fn", c.hidden_activation):
        y = activate(t, c.hidden_activation, y)
    with t.op("linear_x", "linear"):
        u = linear.linear(t, x, width)
        batch, length, own = u.shape
    with t.op("conv_1d", "conv"):
        u = causal_conv(t, t.view(u, batch, own, length), c.conv1d_width, bias=True, act=None)
        u = t.view(u, batch, length, own)
    with t.op("rg_lru", "scan"):
        heads = c.num_attention_heads * own // width
        h = scan.gated_recurrence(t, *rg_lru(t, u, heads), fused=fused)
        h = pointwise.mul(t, h, y)
    with t.op("linear_out", "linear"):
        return linear.linear(t, h, c.hidden_size)


def rg_lru(t: Tape, u: Value, heads: int) -> tuple[Value, Value]:
    """The gates a and the driven inputs of the recurrence of u [batch, tokens, width].

    a = exp(-8 r softplus(p)), and sqrt(1 - a^2) i u for two gates r and i, which are products of
    blocks of u with square matrices.
    """
    batch, length, width = u.shape
    rate, block = t.parameter(width), width // heads
    rows = t.view(u, heads, length, block)
    if batch > 1:
        rows = pointwise.copy(t, u, heads, batch * length, block)
    gates = []
    for _ in range(2):
        weight, bias = t.parameter(heads, block, block), t.parameter(heads, 1, block)
        product = linear.matmul(t, rows, weight)
        t.emit("elementwise", (product, bias), (product,), vector=product.size)
        product = pointwise.copy(t, product, batch, length, width)
        gates.append(pointwise.unary(t, "sigmoid", product))
    inputs, recurrent = gates
    log = pointwise.scale(t, recurrent)
    log = pointwise.mul(t, log, pointwise.unary(t, "softplus", rate))
    a = pointwise.unary(t, "exp", log)
    square = pointwise.unary(t, "exp", pointwise.scale(t, log))
    driven = pointwise.mul(t, u, inputs)
    rest = pointwise.unary(t, "add_scalar", pointwise.unary(t, "neg", square))
    root = pointwise.unary(t, "log", rest)  # a root with a bounded gradient keeps its argument
    starts = [t.new((1, length, 1), "bool") for _ in range(2)]
    t.emit("elementwise", (), tuple(starts), vector=2 * length)
    root = pointwise.unary(t, "add_scalar", pointwise.mul(t, root, starts[0]))
    driven = pointwise.mul(t, driven, root)
    return pointwise.mul(t, a, starts[1]), driven
