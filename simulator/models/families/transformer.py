"""What transformer families share: rotary positions, causal masks, gated MLPs, the causal head."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops import linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value


def heads_of(t: Tape, x: Value, heads: int, dim: int, *, shared: bool = False) -> Value:
    """[B, S, H * D] seen as [B, H, S, D]; of cut features a rank's own heads, or the one it shares
    with others.
    """
    if x.split == "features":
        heads = 1 if shared and heads < t.parallel.tp else t.share(heads, "the attention heads")
    return t.view(x, x.shape[0], heads, x.shape[1], dim)


def normed(t: Tape, name: str, x: Value) -> Value:
    """LayerNorm over the width of x[batch, tokens, width], as an op of that name [ba2016]."""
    with t.op(name, "layer_norm"):
        return norm.layer_norm(t, x)


def rotary_tables(t: Tape, sequence: int, dim: int) -> tuple[Value, Value]:
    """cos and sin of every position, made once a step and shared by every layer [su2021]."""
    with t.op("rotary_emb", "rotary"):
        angles = t.new((1, sequence, dim), "fp32")
        t.emit("elementwise", (), (angles,), vector=angles.size)
        cos = pointwise.unary(t, "cos", angles)
        sin = pointwise.unary(t, "sin", angles)
        return t.cast(cos, t.precision.activations), t.cast(sin, t.precision.activations)


def rotate(t: Tape, x: Value, cos: Value, sin: Value, *, partial: bool | None = None) -> Value:
    """x cos + rotate_half(x) sin on [B, H, S, D]; the tables are all that is kept, shared by every
    layer.

    Where the tables are narrower than a head, or `partial` is set, the rest is put beside as it is.
    """
    width = cos.shape[-1]
    if width < x.shape[-1] or partial:
        turned = rotate(t, t.view(x, *x.shape[:-1], width), cos, sin)
        return pointwise.concat(t, [turned, t.view(x, *x.shape[:-1], x.shape[-1] - width)], -1)
    if t.implementation("rotary", "composed") == "fused":
        out = t.new(x.shape, x.dtype, x.grad)
        t.emit("elementwise", (x, cos, sin), (out,), vector=6 * x.size)
        if out.grad:
            t.save(cos, sin)
            t.backward(
                "elementwise",
                vector=6 * x.size,
                read=x.bytes + cos.bytes + sin.bytes,
                written=x.bytes,
                product=x.dtype,
            )
        return out
    cos, sin = t.view(cos, 1, 1, *cos.shape[-2:]), t.view(sin, 1, 1, *sin.shape[-2:])
    turned = pointwise.concat(
        t,
        [
            pointwise.unary(t, "neg", t.view(x, *x.shape[:-1], x.shape[-1] // 2)),
            t.view(x, *x.shape[:-1], x.shape[-1] // 2),
        ],
        -1,
    )
    return pointwise.add(t, pointwise.mul(t, x, cos), pointwise.mul(t, turned, sin))


def causal_mask(
    t: Tape, sequence: int, batch: int = 1, *, heads: int = 1, dtype: str | None = None
) -> Value:
    """What is added to scores to hide later keys, or which are seen (bool); made once a step."""
    mask = t.new((batch, heads, sequence, sequence), dtype)
    with t.op("causal_mask", "mask"):
        t.emit("elementwise", (), (mask,), vector=mask.size)
    return mask


def causal_masks(t: Tape, sequence: int, batch: int, *, eager: bool = False, always: bool = False):
    """The mask of a layer by its window: made when first asked for, None where the kernel needs
    none.
    """
    made = {}

    def mask(window: int | None = None) -> Value | None:
        additive = eager or t.implementation("attention", "flash") == "eager"
        needed = additive or always or (window is not None and sequence >= window)
        if needed and window not in made:
            made[window] = causal_mask(t, sequence, batch, dtype=None if additive else "bool")
        return made[window] if needed else None

    return mask


def layers(t: Tape, name: str, kinds: list, block, x: Value) -> Value:
    """x through one layer a kind, `block(x, kind)`. Equal neighbours are traced once, and so is a
    pattern that repeats.

    The pattern's ops stand in blocks of their own kind, so that each layer still recomputes as one.
    """
    period = next(
        p
        for p in range(1, len(kinds) + 1)
        if all(kinds[i] == kinds[i - p] for i in range(p, len(kinds)))
    )
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


def gated_mlp(
    t: Tape,
    x: Value,
    width: int,
    out: int,
    *,
    activation: str = "silu",
    bias: bool = False,
    names=("gate_proj", "up_proj", "down_proj"),
) -> Value:
    """down(act(gate(x)) * up(x)) [shazeer2020]."""
    with t.op(names[0], "linear"):
        gate = linear.linear(t, x, width, bias=bias)
    with t.op(names[1], "linear"):
        up = linear.linear(t, x, width, bias=bias)
    with t.op("act_fn", activation):
        h = pointwise.mul(t, activate(t, activation, gate), up)
    with t.op(names[2], "linear"):
        return linear.linear(t, h, out, bias=bias)


def gated(t: Tape, x: Value, activation: str) -> Value:
    """act(gate) * up of the two halves of x."""
    half = (*x.shape[:-1], x.shape[-1] // 2)
    return pointwise.mul(t, activate(t, activation, t.view(x, *half)), t.view(x, *half))


ONE_KERNEL = {  # Hugging Face's names for activations that are one kernel there
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "hardswish": "hardswish",
    "leaky_relu": "leaky_relu",
    "mish": "mish",
    "relu": "relu",
    "relu6": "relu6",
    "sigmoid": "sigmoid",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
FUSED = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    "gelu_10": "gelu",
    "quick_gelu": "silu",
    "relu2": "relu",
}


def activate(t: Tape, name: str, x: Value) -> Value:
    """An activation by its Hugging Face name. gelu_new, quick_gelu and others are composed of
    single kernels there.
    """
    if name == "linear":
        return x
    if name in ONE_KERNEL:
        return pointwise.unary(t, ONE_KERNEL[name], x)
    if name not in FUSED:
        raise BadInput(
            f"no activation {name!r}; known: {', '.join(sorted((*ONE_KERNEL, *FUSED, 'linear')))}"
        )
    if t.implementation("gelu", "composed") != "composed":
        return pointwise.unary(t, FUSED[name], x)
    return _composed(t, name, x)


def _composed(t: Tape, name: str, x: Value) -> Value:
    unary, scale, mul = pointwise.unary, pointwise.scale, pointwise.mul
    if name == "quick_gelu":
        return mul(t, x, unary(t, "sigmoid", scale(t, x)))
    if name == "relu2":
        return unary(t, "pow", unary(t, "relu", x))
    if name == "gelu_10":
        return unary(t, "clamp", unary(t, "gelu", x))
    if name == "gelu_python":
        return mul(t, scale(t, scale(t, x)), unary(t, "add_scalar", unary(t, "erf", scale(t, x))))
    # 0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))
    half = scale(t, x)
    if name == "gelu_fast":
        inner = mul(t, scale(t, x), unary(t, "add_scalar", mul(t, scale(t, x), x)))
    else:
        inner = scale(t, pointwise.add(t, x, scale(t, unary(t, "pow", x))))
    return mul(t, half, unary(t, "add_scalar", unary(t, "tanh", inner)))


def causal_loss(
    t: Tape,
    hidden: Value,
    vocabulary: int,
    *,
    weight: Value | None = None,
    bias: bool = False,
    softcap: bool = False,
) -> Value:
    """The language-model head and its loss: logits in fp32, labels moved by one. `softcap`: logits
    bent by a tanh.
    """
    batch, sequence, _ = hidden.shape
    with t.op("lm_head", "linear"):
        logits = linear.linear(
            t, hidden, vocabulary, bias=bias, weight=weight, parallel=True, narrow=False
        )
    if softcap:
        with t.op("softcap", "softcap"):
            logits = pointwise.scale(t, pointwise.unary(t, "tanh", pointwise.scale(t, logits)))
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, loss.shifted_labels(t, batch, sequence), upcast=True)
