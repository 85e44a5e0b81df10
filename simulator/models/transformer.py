"""What transformer families share: rotary positions, causal masks, gated MLPs, the causal head."""

from __future__ import annotations

from simulator.ops import linear, loss, pointwise
from simulator.tape import Tape, Value


def heads_of(t: Tape, x: Value, heads: int, dim: int) -> Value:
    """[B, S, H * D] seen as [B, H, S, D]."""
    return t.view(x, x.shape[0], heads, x.shape[1], dim)


def rotary_tables(t: Tape, sequence: int, dim: int) -> tuple[Value, Value]:
    """cos and sin of every position, made once a step and shared by every layer [su2021]."""
    with t.op("rotary_emb", "rotary"):
        angles = t.new((1, sequence, dim), "fp32")
        t.emit("elementwise", (), (angles,), vector=angles.size)
        cos = pointwise.unary(t, "cos", angles)
        sin = pointwise.unary(t, "sin", angles)
        return t.cast(cos, t.precision.activations), t.cast(sin, t.precision.activations)


def rotate(t: Tape, x: Value, cos: Value, sin: Value) -> Value:
    """x cos + rotate_half(x) sin on [B, H, S, D]; the tables are all that is kept, shared by every layer."""
    if t.implementation("rotary", "composed") == "fused":
        out = t.new(x.shape, x.dtype, x.grad)
        t.emit("elementwise", (x, cos, sin), (out,), vector=6 * x.size)
        if out.grad:
            t.save(cos, sin)
            t.backward("elementwise", vector=6 * x.size, read=x.bytes + cos.bytes + sin.bytes, written=x.bytes, product=x.dtype)
        return out
    cos, sin = t.view(cos, 1, 1, *cos.shape[-2:]), t.view(sin, 1, 1, *sin.shape[-2:])
    turned = pointwise.concat(t, [pointwise.unary(t, "neg", t.view(x, *x.shape[:-1], x.shape[-1] // 2)),
                                  t.view(x, *x.shape[:-1], x.shape[-1] // 2)], -1)  # fmt: skip
    return pointwise.add(t, pointwise.mul(t, x, cos), pointwise.mul(t, turned, sin))


def causal_mask(t: Tape, sequence: int, batch: int = 1) -> Value:
    """The additive mask of the eager path, made once a step."""
    mask = t.new((batch, 1, sequence, sequence))
    with t.op("causal_mask", "mask"):
        t.emit("elementwise", (), (mask,), vector=mask.size)
    return mask


def layers(t: Tape, name: str, kinds: list, block, x: Value) -> Value:
    """x through one layer a kind, `block(x, kind)`. Equal neighbours are traced once, and so is a pattern that repeats.

    The pattern's ops stand in blocks of their own kind, so that each layer still recomputes as one.
    """
    period = next(p for p in range(1, len(kinds) + 1) if all(kinds[i] == kinds[i - p] for i in range(p, len(kinds))))
    whole = len(kinds) // period

    def through(kinds, x):
        start = 0
        for end in range(1, len(kinds) + 1):
            if end == len(kinds) or kinds[end] != kinds[start]:
                x = t.repeat(name, end - start, lambda x, kind=kinds[start]: block(x, kind), x)
                start = end
        return x

    if whole == 1 or period == 1:
        return through(kinds, x)
    x = t.repeat("", whole, lambda x: through(kinds[:period], x), x)
    return through(kinds[whole * period :], x)


def gated_mlp(t: Tape, x: Value, width: int, out: int, *, activation: str = "silu", bias: bool = False, names=("gate_proj", "up_proj", "down_proj")) -> Value:
    """down(act(gate(x)) * up(x)) [shazeer2020]."""
    with t.op(names[0], "linear"):
        gate = linear.linear(t, x, width, bias=bias)
    with t.op(names[1], "linear"):
        up = linear.linear(t, x, width, bias=bias)
    with t.op("act_fn", activation):
        h = pointwise.mul(t, activate(t, activation, gate), up)
    with t.op(names[2], "linear"):
        return linear.linear(t, h, out, bias=bias)


def activate(t: Tape, name: str, x: Value) -> Value:
    """An activation by its Hugging Face name. gelu_new and quick_gelu are composed of single kernels there."""
    if name in ("gelu_new", "gelu_fast") and t.implementation("gelu", "composed") == "composed":
        # 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
        half = pointwise.scale(t, x)
        inner = pointwise.add(t, x, pointwise.scale(t, pointwise.unary(t, "pow", x)))
        bend = pointwise.unary(t, "tanh", pointwise.scale(t, inner))
        return pointwise.mul(t, half, pointwise.unary(t, "add_scalar", bend))
    if name == "quick_gelu" and t.implementation("gelu", "composed") == "composed":
        return pointwise.mul(t, x, pointwise.unary(t, "sigmoid", pointwise.scale(t, x)))
    return pointwise.unary(t, {"gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh", "quick_gelu": "silu", "swish": "silu"}.get(name, name), x)


def causal_loss(t: Tape, hidden: Value, vocabulary: int, *, weight: Value | None = None, bias: bool = False, labels: bool = True) -> Value:
    """The language-model head and its loss: logits in fp32, labels moved by one."""
    batch, sequence, _ = hidden.shape
    with t.op("lm_head", "linear"):
        logits = linear.linear(t, hidden, vocabulary, bias=bias, weight=weight)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, loss.shifted_labels(t, batch, sequence), upcast=True)
