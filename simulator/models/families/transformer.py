"""Shared parts of transformer families: heads, rotary embeddings, masks, gated MLPs, LM head."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.simulator.models.families.heads import Head, headed
from roofcast.simulator.work.ops import linear, loss, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

Tables = tuple[Value, Value]  # cos and sin of rotary embeddings
Masks = Callable[..., Value | None]  # called with the attention window of a layer, or nothing


def heads_of(t: Tape, x: Value, heads: int, dim: int, *, shared: bool = False) -> Value:
    """x [B, S, H D] viewed as [B, H, S, D].

    If tensor parallelism splits the features, only the rank's heads remain. `shared`: if there are
    fewer heads than ranks, several ranks hold the same head.
    """
    if x.split == "features":
        heads = 1 if shared and heads < t.parallel.tp else t.share(heads, "the attention heads")
    return t.view(x, x.shape[0], heads, x.shape[1], dim)


def projections(
    t: Tape, x: Value, heads: Mapping[str, int], dim: int, *, bias: bool = True, whole: int = 1
) -> list[Value]:
    """A linear layer per entry name -> number of heads, each result viewed as [B, H, S, dim].

    The first entry is the queries; later ones may have fewer heads. Tensor parallelism splits the
    output in units of `whole` features.
    """
    found: list[Value] = []
    for name, n in heads.items():
        with t.op(name, "linear"):
            y = linear.linear(t, x, n * dim, bias=bias, whole=whole)
            found.append(heads_of(t, y, n, dim, shared=bool(found)))
    return found


def normed(t: Tape, name: str, x: Value) -> Value:
    """LayerNorm over the last dimension of x, as an op called `name` [ba2016]."""
    with t.op(name, "layer_norm"):
        return norm.layer_norm(t, x)


def rotary_tables(t: Tape, sequence: int, dim: int, *, wide: bool = False) -> Tables:
    """cos and sin [1, sequence, dim], computed once per step and used by all layers [su2021].

    `wide` tables stay in fp32.
    """
    with t.op("rotary_emb", "rotary"):
        angles = t.new((1, sequence, dim), "fp32")
        t.emit("elementwise", (), (angles,), vector=angles.size)
        cos = pointwise.unary(t, "cos", angles)
        sin = pointwise.unary(t, "sin", angles)
        to = "fp32" if wide else t.precision.activations
        return t.cast(cos, to), t.cast(sin, to)


def rotate(t: Tape, x: Value, cos: Value, sin: Value, *, partial: bool | None = None) -> Value:
    """x cos + rotate_half(x) sin for x [B, H, S, D]; only the tables are kept for backward.

    If the tables are narrower than a head, or `partial` is set, the remaining elements are
    concatenated unchanged.
    """
    width = cos.shape[-1]
    if width < x.shape[-1] or partial:
        turned = rotate(t, t.view(x, *x.shape[:-1], width), cos, sin)
        return pointwise.concat(t, [turned, t.view(x, *x.shape[:-1], x.shape[-1] - width)], -1)
    if t.implementation("rotary", "composed") == "fused":
        return rotate_fused(t, x, cos, sin)
    cos, sin = t.view(cos, 1, 1, *cos.shape[-2:]), t.view(sin, 1, 1, *sin.shape[-2:])
    half = (*x.shape[:-1], x.shape[-1] // 2)
    negated = pointwise.unary(t, "neg", t.view(x, *half))
    turned = pointwise.concat(t, [negated, t.view(x, *half)], -1)
    return pointwise.add(t, pointwise.mul(t, x, cos), pointwise.mul(t, turned, sin))


def rotate_fused(t: Tape, x: Value, cos: Value, sin: Value) -> Value:
    """The rotation as one kernel, forward and backward."""
    out = t.new(x.shape, x.dtype, x.grad)
    flops, read = 6 * x.size, x.bytes + cos.bytes + sin.bytes
    t.emit("elementwise", (x, cos, sin), (out,), vector=flops)
    if out.grad:
        t.save(cos, sin)
        t.backward("elementwise", vector=flops, read=read, written=x.bytes, product=x.dtype)
    return out


def causal_mask(
    t: Tape, sequence: int, batch: int = 1, *, heads: int = 1, dtype: str | None = None
) -> Value:
    """The causal mask [batch, heads, sequence, sequence], made once per step.

    It is added to the scores; with dtype "bool" it marks the visible keys.
    """
    mask = t.new((batch, heads, sequence, sequence), dtype)
    if t.generates:
        return mask
    with t.op("causal_mask", "mask"):
        t.emit("elementwise", (), (mask,), vector=mask.size)
    return mask


def causal_masks(
    t: Tape, sequence: int, batch: int, *, eager: bool = False, always: bool = False
) -> Masks:
    """A function from attention window [tokens] to mask; None where the kernel needs no mask.

    A mask is made when a layer first asks for it. `eager`: the model has eager attention only;
    `always`: the model makes the mask even if the kernel does not need it.
    """
    made: dict[int | None, Value] = {}

    def mask(window: int | None = None) -> Value | None:
        if t.generates:  # the kernel knows what is visible
            return None
        additive = eager or t.implementation("attention", "flash") == "eager"
        needed = additive or always or (window is not None and sequence >= window)
        if needed and window not in made:
            made[window] = causal_mask(t, sequence, batch, dtype=None if additive else "bool")
        return made[window] if needed else None

    return mask


def layers(
    t: Tape, name: str, kinds: Sequence[Any], block: Callable[[Value, Any], Value], x: Value
) -> Value:
    """x through one layer per entry of `kinds`, `block(x, kind)`.

    Equal neighbours are traced once, and so are patterns of kinds that repeat. Inside a pattern,
    each run of equal layers is a block of its own, so that recomputation still works per layer.
    """

    def through(kinds: Sequence[Any], x: Value) -> Value:
        start = 0
        for end in range(1, len(kinds) + 1):
            if end == len(kinds) or kinds[end] != kinds[start]:
                x = t.repeat(name, end - start, lambda x, kind=kinds[start]: block(x, kind), x)
                start = end
        return x

    start = 0
    while start < len(kinds):
        period, repeats = _pattern(kinds[start:])
        part = kinds[start : start + period]
        if period == 1:
            x = through(kinds[start : start + repeats], x)
        else:
            x = t.repeat("", repeats, lambda x, part=part: through(part, x), x)
        start += period * repeats
    return x


LONGEST_PATTERN = 64  # layers


def _pattern(kinds: Sequence[Any]) -> tuple[int, int]:
    """(period, repetitions) of the pattern with which `kinds` begins that covers most of it.

    >>> _pattern("aabaabaabaa"), _pattern("aaab"), _pattern("abab"), _pattern("abcd")
    ((3, 3), (1, 3), (2, 2), (1, 1))
    """
    best = (1, 1)
    for period in range(1, min(len(kinds) // 2, LONGEST_PATTERN) + 1):
        repeats = 1
        while kinds[repeats * period : (repeats + 1) * period] == kinds[:period]:
            repeats += 1
        if repeats > 1 and period * repeats > best[0] * best[1]:
            best = (period, repeats)
        if best[0] * best[1] == len(kinds):
            break
    return best


def gated_mlp(
    t: Tape,
    x: Value,
    width: int,
    out: int,
    *,
    activation: str = "silu",
    bias: bool = False,
    names: Sequence[str] = ("gate_proj", "up_proj", "down_proj"),
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
    """act(gate) * up, where gate and up are the two halves of x."""
    half = (*x.shape[:-1], x.shape[-1] // 2)
    return pointwise.mul(t, activate(t, activation, t.view(x, *half)), t.view(x, *half))


ONE_KERNEL = {  # Hugging Face name -> op, for activations that transformers runs as one kernel
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
FUSED = {  # Hugging Face name -> op of the fused kernel, for activations composed of several
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
    """The activation with this Hugging Face name.

    transformers composes gelu_new, quick_gelu and others of several kernels; a stack may fuse them.
    Raises BadInput for an unknown name.
    """
    if name == "linear":
        return x
    if name == "xielu":
        return _xielu(t, x)
    if name in ONE_KERNEL:
        return pointwise.unary(t, ONE_KERNEL[name], x)
    if name not in FUSED:
        known = ", ".join(sorted((*ONE_KERNEL, *FUSED, "linear", "xielu")))
        raise BadInput(f"no activation {quoted(name)}; known: {known}")
    if t.implementation("gelu", "composed") != "composed":
        return pointwise.unary(t, FUSED[name], x)
    return _composed(t, name, x)


def _xielu(t: Tape, x: Value) -> Value:
    """a x^2 + x/2 where x > 0, b (exp(min(x, eps)) - 1 - x) + x/2 elsewhere [huang2024].

    a and b are the softplus of two learned numbers.
    """
    unary, mul, add = pointwise.unary, pointwise.mul, pointwise.add
    a, b = (unary(t, "softplus", t.parameter(1)) for _ in range(2))
    if t.implementation("gelu", "composed") != "composed":
        return unary(t, "elu", x)
    positive = add(t, mul(t, mul(t, a, x), x), pointwise.scale(t, x))
    power = unary(t, "exp", unary(t, "clamp", x))  # minimum and expm1 keep what these keep
    negative = mul(t, add(t, power, x), unary(t, "add_scalar", b))
    chosen = t.new(x.shape, "bool")
    t.emit("elementwise", (x,), (chosen,), vector=x.size)
    negative = add(t, negative, pointwise.scale(t, x))
    return pointwise.where(t, add(t, positive, negative), chosen)


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
    scaled: bool = False,
) -> Value:
    """The language-model head on hidden [B, S, W] and, in training, the cross-entropy in fp32.

    Labels are shifted by one token. `weight` is a tied vocabulary table; `softcap` limits the
    logits by a tanh, `scaled` multiplies them by a number. Returns the loss, or in inference the
    logits. Where the class of the model has another head, that one is made instead.
    """
    if isinstance(t.head, Head):
        return headed(t, hidden, t.head)
    batch, sequence, width = hidden.shape
    with t.op("lm_head", "linear"):
        if t.generates:  # logits of the last token alone
            hidden = t.view(hidden, batch, 1, width)
        logits = linear.linear(
            t, hidden, vocabulary, bias=bias, weight=weight, parallel=True, narrow=False
        )
    if scaled:
        with t.op("logit_scale", "scale"):
            logits = pointwise.scale(t, logits)
    if softcap:
        with t.op("softcap", "softcap"):
            logits = pointwise.scale(t, pointwise.unary(t, "tanh", pointwise.scale(t, logits)))
    if scaled:
        with t.op("logits_scaling", "mul"):
            logits = pointwise.scale(t, logits)
    if not t.training:
        return logits
    with t.op("loss", "cross_entropy"):
        return loss.cross_entropy(t, logits, loss.shifted_labels(t, batch, sequence), upcast=True)
