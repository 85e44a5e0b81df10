"""RWKV-7 [peng2025]: a delta rule with a decay per channel, whose rates are low-rank functions of
the token, and an MLP per layer; both read the token before, too.

Sizes are those of flash-linear-attention's RWKV7Config, whose checkpoints are on the Hugging Face
Hub; transformers has no RWKV-7.
"""

from __future__ import annotations

import math

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.transformer import causal_loss, normed
from roofcast.simulator.work.ops import delta_channels, embedding, linear, norm, pointwise
from roofcast.simulator.work.ops import states as states_of
from roofcast.simulator.work.ops.delta import Delta, Gated
from roofcast.simulator.work.tape import Tape, Value

RANK_STEP = 32  # ranks are multiples of it
# of default ranks: factor of the width's power, and that power
RANKS = {"decay": (1.8, 0.5), "a": (1.8, 0.5), "v": (1.3, 0.5), "gate": (0.6, 0.8)}


class Config(msgspec.Struct, frozen=True):
    """Keys of flash-linear-attention's RWKV7Config, with its defaults."""

    vocab_size: int = 65536
    hidden_size: int = 2048
    num_hidden_layers: int = 24
    intermediate_size: int | None = None
    hidden_ratio: float | None = 4.0
    head_dim: int = 64
    num_heads: int | None = None
    value_dim: list[int] | int | None = None
    decay_low_rank_dim: int | None = None
    gate_low_rank_dim: int | None = None
    a_low_rank_dim: int | None = None
    v_low_rank_dim: int | None = None
    norm_first: bool = True
    norm_bias: bool = True
    hidden_act: str = "sqrelu"
    attn_mode: str = "chunk"
    max_position_embeddings: int = 4096
    fuse_norm: bool = True
    fuse_cross_entropy: bool = True
    tie_word_embeddings: bool = False

    def __post_init__(self) -> None:
        values = self.value_dim if isinstance(self.value_dim, list) else [self.value_dim]
        if any(v not in (None, self.hidden_size) for v in values):
            raise ValueError("value_dim other than hidden_size is not modeled; leave it out")
        if self.head_dim < 1 or self.hidden_size % self.head_dim:
            raise ValueError(
                f"{self.hidden_size} (hidden_size) is not divisible by {self.head_dim} (head_dim)"
            )

    @property
    def context(self) -> int:
        """Sequence length of training [tokens]; the architecture has no limit."""
        return self.max_position_embeddings

    @property
    def inner(self) -> int:
        """Width of the MLP."""
        return self.intermediate_size or int((self.hidden_ratio or 4) * self.hidden_size)

    def rank(self, name: str) -> int:
        """Inner width of a low-rank function."""
        given = getattr(self, f"{name}_low_rank_dim")
        factor, power = RANKS[name]
        steps = round(factor * self.hidden_size**power / RANK_STEP)
        return given or max(RANK_STEP, RANK_STEP * steps)


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """Embedding, norm, n x [norm, time mixing, norm, channel mixing], norm, head."""
    heads = c.hidden_size // c.head_dim
    if t.parallel.cp > 1:
        raise BadInput(
            f"cp {t.parallel.cp}: RWKV passes a state along the sequence, which is not cut here;"
            " use cp 1"
        )
    if heads % t.parallel.tp:
        near = math.gcd(heads, t.parallel.tp)
        raise BadInput(f"tp {t.parallel.tp} does not divide the {heads} heads; use tp {near}")
    t.assumptions.append(
        "wkv recurrence: the kernels of flash-linear-attention, in chunks; masked products counted"
        " in full"
    )
    ids = t.input((batch, sequence), "int64")
    with t.scope("model"):
        with t.op("embeddings", "embedding"):
            table = t.vocabulary(c.vocab_size, c.hidden_size)
            x = embedding.embedding(t, ids, c.vocab_size, c.hidden_size, weight=table)
        x = normed(t, "pre_norm", x) if c.norm_first else x
        first: list[Value] = []  # values of the first layer, which all others read
        kinds = [layer == 0 for layer in range(c.num_hidden_layers)]
        x = transformer.layers(t, "layers", kinds, lambda x, own: block(t, c, x, own, first), x)
        x = normed(t, "norm", x)
    return causal_loss(t, x, c.vocab_size, weight=table if c.tie_word_embeddings else None)


def block(t: Tape, c: Config, x: Value, own: bool, first: list[Value]) -> Value:
    """One layer; x and the result are [batch, tokens, width]."""
    h = normed(t, "attn_norm", x)
    with t.scope("attn"):
        h = time_mixing(t, c, h, own, first)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, h)
    h = normed(t, "ffn_norm", x)
    with t.scope("ffn"):
        with t.op("key", "linear"):
            h = linear.linear(t, mixed(t, h, step_back(t, h)), c.inner, bias=False)
            h = pointwise.unary(t, "pow", pointwise.unary(t, "relu", h))
        with t.op("value", "linear"):
            h = linear.linear(t, h, c.hidden_size, bias=False)
    with t.op("residual_ffn", "add"):
        return pointwise.add(t, x, h)


def step_back(t: Tape, x: Value) -> Value:
    """Every token's predecessor, less the token itself."""
    states_of.held(t, x.shape[-1])
    return pointwise.add(t, pointwise.copy(t, x), pointwise.unary(t, "neg", x))


def mixed(t: Tape, x: Value, change: Value) -> Value:
    """x + change m for a weight m of every channel."""
    return pointwise.add(t, x, pointwise.mul(t, change, t.parameter(1, 1, x.shape[-1])))


def low_rank(t: Tape, c: Config, name: str, x: Value, act: str | None, *, bias: bool) -> Value:
    """Two linear layers with an activation between them."""
    with t.op(f"{name}_lora", "linear"):
        low = linear.linear(t, x, c.rank(name), bias=False, parallel=False)
        low = low if act is None else pointwise.unary(t, act, low)
        return linear.linear(t, low, c.hidden_size, bias=bias)


def projected(t: Tape, name: str, x: Value, width: int) -> Value:
    """A linear layer without a bias, as an op called `name`."""
    with t.op(name, "linear"):
        return linear.linear(t, x, width, bias=False)


def time_mixing(t: Tape, c: Config, x: Value, own: bool, first: list[Value]) -> Value:
    """out(norm(wkv) * gate) of x [batch, tokens, width]."""
    with t.op("token_shift", "pad"):
        change = step_back(t, x)
        xr, xw, xk, xv, xa, xg = (mixed(t, x, change) for _ in range(6))
    r = projected(t, "r_proj", xr, c.hidden_size)
    w = low_rank(t, c, "decay", xw, "tanh", bias=True)
    k, v = (projected(t, f"{n}_proj", y, c.hidden_size) for n, y in (("k", xk), ("v", xv)))
    if own:
        first[:] = [v]
    else:
        share = low_rank(t, c, "v", xv, None, bias=True)
        with t.op("v_first", "lerp"):
            rest = pointwise.add(t, first[0], pointwise.unary(t, "neg", v))
            v = pointwise.add(t, v, pointwise.mul(t, rest, pointwise.unary(t, "sigmoid", share)))
    a = low_rank(t, c, "a", xa, None, bias=True)
    gate = low_rank(t, c, "gate", xg, "sigmoid", bias=False)
    batch, length, width = r.shape
    shape = batch, length, width // c.head_dim, c.head_dim
    with t.op("wkv", "wkv"):
        w = pointwise.scale(t, pointwise.unary(t, "sigmoid", w))
        a = pointwise.unary(t, "sigmoid", a)
        key = pointwise.mul(t, k, t.parameter(width))
        key = t.view(delta_channels.unit_length(t, t.view(key, *shape)), batch, length, width)
        less = pointwise.mul(t, pointwise.unary(t, "add_scalar", a), t.parameter(width))
        k = pointwise.mul(t, k, pointwise.unary(t, "add_scalar", less))
        d = Delta(shape[2], shape[2], c.head_dim, c.head_dim)
        y = delta_channels.fused_low_rank(t, Gated(r, k, v, w, a), key, d)
    with t.op("g_norm", "group_norm"):
        pair = t.parameter(width), t.parameter(width)
        y = t.view(norm.layer_norm(t, t.view(y, *shape), weights=pair), batch, length, width)
    with t.op("gate", "mul"):
        bonus = pointwise.mul(t, pointwise.mul(t, r, k), t.parameter(width))
        bonus = pointwise.total(t, t.view(bonus, *shape))
        y = pointwise.add(t, t.view(y, *shape), pointwise.mul(t, bonus, t.view(v, *shape)))
        y = pointwise.mul(t, t.view(y, batch, length, width), gate)
    return projected(t, "o_proj", y, c.hidden_size)
