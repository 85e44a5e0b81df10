"""Normalization: layer, RMS (as Llama, Gemma and torch compose it), batch, group; and softmax."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value

STATISTICS = 4  # bytes of a mean or an inverse deviation, kept in fp32


def layer_norm(
    t: Tape,
    x: Value,
    *,
    affine: bool = True,
    bias: bool = True,
    trainable: bool = True,
    weights: tuple[Value, Value] | None = None,
) -> Value:
    """(x - mean) / sqrt(var + eps) * g + b over the last dimension [ba2016].

    forward   about 8 FLOPs per element; keeps x, and mean and 1/deviation of each row in fp32
    backward  about 14 FLOPs per element, reads dy and x, writes dx; dg and db are sums over rows

    `weights`: g and b that several norms share.
    """
    width = x.shape[-1]
    g, b = weights or (None, None)
    if affine and g is None:
        g = t.parameter(width, trainable=trainable)
        b = t.parameter(width, trainable=trainable) if bias else None
    x = t.normed(x)
    n, rows = x.size, x.size // width
    out = t.new(x.shape, t.wide(x.dtype), x.grad or _trained(g, b))
    t.emit("layer_norm", _present(x, g, b), (out,), vector=8 * n, special=rows)
    if out.grad:
        t.save(x)
        t.keep(2 * STATISTICS * rows)
        _norm_back(t, "layer_norm", x, flops=14, passes=2)
        if g is not None and _trained(g, b):
            read, written = 2 * x.bytes, 2 * g.bytes
            t.backward("reduce", vector=4 * n, read=read, written=written, product=x.dtype)
    return out


def layer_norm_as(t: Tape, x: Value, flavor: str, *, heads: int = 0) -> Value:
    """LayerNorm of x over its last dimension as transformers' models write it [ba2016].

    layer     as `layer_norm`
    plain     without scale and shift, in fp32 (OLMo)
    one_plus  with a scale of 1 + g, which is computed and kept (Nemotron)
    cohere    without shift, composed of single kernels in fp32; `heads`: a scale for every head
    """
    if flavor == "layer":
        return layer_norm(t, x)
    if flavor == "plain":
        return t.cast(layer_norm(t, t.cast(x, "fp32"), affine=False), x.dtype)
    if flavor == "one_plus":
        g, b = (t.parameter(x.shape[-1]) for _ in range(2))
        out = layer_norm(t, x, weights=(g, b))
        scale = t.new((x.shape[-1],), g.dtype, g.grad)
        t.emit("elementwise", (), (scale,), vector=scale.size, read=scale.bytes)
        if out.grad:
            t.save(scale)
        return out
    g = t.parameter(*((heads, 1) if heads else ()), x.shape[-1])
    if t.implementation("layer_norm", "composed") == "fused":
        return _rms_norm_fused(t, x, g)
    full = t.cast(x, "fp32")
    mean = pointwise.mean(t, full)
    square = pointwise.unary(t, "pow", pointwise.add(t, full, mean))
    variance = pointwise.unary(t, "add_scalar", pointwise.mean(t, square))
    inverse = pointwise.unary(t, "rsqrt", variance)
    normal = pointwise.mul(t, pointwise.add(t, full, mean), inverse)
    return t.cast(pointwise.mul(t, _wide_weight(t, g), normal), x.dtype)


def _wide_weight(t: Tape, g: Value) -> Value:
    """A weight's copy in fp32; the weight itself if it has that format."""
    full = t.cast(g, "fp32")
    if full is not g:
        full.kind = "weight_copy"
    return full


def _trained(*weights: Value | None) -> bool:
    """Whether any of these weights has a gradient."""
    return any(w is not None and w.grad for w in weights)


def _present(*values: Value | None) -> tuple[Value, ...]:
    return tuple(v for v in values if v is not None)


def _norm_back(t: Tape, kind: str, x: Value, *, flops: int, passes: int) -> None:
    """The backward of a norm: reads `passes` times the bytes of x, writes dx if x needs it."""
    read, written = passes * x.bytes, x.bytes if x.grad else 0
    t.backward(kind, vector=flops * x.size, read=read, written=written, product=x.dtype)


def rms_norm(
    t: Tape, x: Value, *, flavor: str = "llama", affine: bool = True, scale: Value | None = None
) -> Value:
    """x / sqrt(mean(x^2) + eps) * g over the last dimension [zhang2019].

    `scale` is g where two norms share it.

    Composed of single kernels as in transformers, or one fused kernel if the stack has it. In bf16
    the composed form keeps 6 bytes per element, the fused one 2. Flavors of the composed form:

    llama    normalize, cast down, multiply by g
    gemma    multiply by 1 + g in fp32, then cast
    gpt_oss  multiply by g, then cast
    t5       scale x itself instead of its fp32 copy
    helium   multiply by an fp32 copy of g, then cast
    gemma4   as helium, with a power of -1/2 in place of the inverse root
    torch    the same as the first, as torch.nn.functional.rms_norm composes it
    """
    g = scale or (t.parameter(x.shape[-1]) if affine else None)
    if t.implementation("rms_norm", "composed") == "fused":
        return _rms_norm_fused(t, x, g)
    full = t.cast(x, "fp32")
    square = pointwise.unary(t, "pow", full)
    variance = pointwise.unary(t, "add_scalar", pointwise.mean(t, square))
    inverse = pointwise.unary(t, "pow" if flavor == "gemma4" else "rsqrt", variance)
    if flavor == "t5":
        assert g is not None, "T5 norms have a scale"
        return pointwise.mul(t, t.cast(pointwise.mul(t, x, inverse), g.dtype), g)
    normal = pointwise.mul(t, full, inverse)
    if g is None:
        return t.cast(normal, x.dtype)
    if flavor in ("gpt_oss", "torch"):
        return t.cast(pointwise.mul(t, normal, g), x.dtype)
    if flavor == "llama":
        return pointwise.mul(t, t.cast(normal, x.dtype), g)
    weight = _wide_weight(t, g) if flavor in ("helium", "gemma4") else t.cast(g, "fp32")
    if flavor == "gemma":
        weight = pointwise.unary(t, "add_scalar", weight)
    return t.cast(pointwise.mul(t, normal, weight), x.dtype)


def _rms_norm_fused(t: Tape, x: Value, g: Value | None) -> Value:
    rows = x.size // x.shape[-1]
    out = t.new(x.shape, t.wide(x.dtype), x.grad or _trained(g))
    t.emit("layer_norm", _present(x, g), (out,), vector=4 * x.size, special=rows)
    if out.grad:
        t.save(x)
        t.keep(STATISTICS * rows)
        read, written = 2 * x.bytes, x.bytes
        t.backward("layer_norm", vector=10 * x.size, read=read, written=written, product=x.dtype)
    return out


def batch_norm(t: Tape, x: Value, *, affine: bool = True) -> Value:
    """Normalize each channel of x[B, C, ...] over batch and space [ioffe2015].

    training   two passes over x forward (statistics, then apply); keeps x and two fp32 numbers per
               channel; backward reads dy and x twice, writes dx
    inference  a scale and a shift

    Implementations of a software stack: `passes` is the above. `persistent` keeps x on the chip
    between the passes and fuses with neighboring ops, as NVIDIA's NHWC kernels do. `decomposed`, as
    under a compiler, computes the sums over the batch in a kernel of its own; the rest is pointwise
    and fuses with its neighbors. Raises BadInput for any other.
    """
    channels, n = x.shape[1], x.size
    ins = (x, t.parameter(channels), t.parameter(channels)) if affine else (x,)
    out = t.new(x.shape, x.dtype, x.grad or _trained(*ins[1:]))
    if not t.training:
        t.emit("elementwise", ins, (out,), vector=2 * n)
        return out
    how = t.implementation("batch_norm", "passes")
    if how not in ("passes", "persistent", "decomposed"):
        raise BadInput(
            f"implementations.batch_norm is {how!r}; use 'passes', 'persistent' or 'decomposed'"
        )
    kind, passes = ("batch_norm", 2) if how == "passes" else ("elementwise", 1)
    if how == "decomposed":
        t.emit("batch_norm", (), (), vector=3 * n, special=channels, read=x.bytes)
        if out.grad:
            t.backward("batch_norm", vector=5 * n, read=2 * x.bytes, product=x.dtype)
    t.emit(kind, ins, (out,), vector=7 * n, special=channels, read=passes * x.bytes)
    if out.grad:
        t.save(x)
        t.keep(2 * STATISTICS * channels)
        _norm_back(t, kind, x, flops=11, passes=2 * passes)
    return out


def instance_norm(t: Tape, x: Value) -> Value:
    """Normalize each channel of each sample of x[B, C, ...] over space [ulyanov2016].

    Runs as batch norm of one sample with B C channels, in training and inference. Scale and shift
    are first repeated for every sample; the repeated scale is kept beside what batch norm keeps.
    """
    channels, rows = x.shape[1], x.shape[0] * x.shape[1]
    g, b = (pointwise.copy(t, t.parameter(channels), rows) for _ in range(2))
    out = t.new(x.shape, x.dtype, x.grad or _trained(g, b))
    t.emit("batch_norm", (x, g, b), (out,), vector=7 * x.size, special=rows, read=2 * x.bytes)
    if out.grad:
        t.save(x, g)
        t.keep(2 * STATISTICS * rows)
        _norm_back(t, "batch_norm", x, flops=11, passes=4)
    return out


def group_norm(t: Tape, x: Value, groups: int, *, affine: bool = True) -> Value:
    """Normalize groups of channels of each sample of x[B, C, ...] [wu2018].

    Keeps x, and the statistics in the format of x.
    """
    g, b = (t.parameter(x.shape[1]), t.parameter(x.shape[1])) if affine else (None, None)
    x = t.normed(x)
    n, rows = x.size, x.shape[0] * groups
    out = t.new(x.shape, t.wide(x.dtype), x.grad or _trained(g, b))
    ins = _present(x, g, b)
    t.emit("layer_norm", ins, (out,), vector=8 * n, special=rows, read=2 * x.bytes)
    if out.grad:
        t.save(x)
        t.keep(2 * (x.bytes // x.size) * x.shape[0] * groups)
        _norm_back(t, "layer_norm", x, flops=14, passes=4)
    return out


def softmax(t: Tape, x: Value, *, dtype: str | None = None) -> Value:
    """exp(x - max) / sum over the last dimension; keeps its result.

    With `dtype`, as in torch, the softmax is computed and returned in that format.
    """
    x = t.cast(x, dtype) if dtype else t.normed(x)
    out = t.new(x.shape, t.wide(x.dtype), x.grad)
    t.emit("softmax", (x,), (out,), vector=4 * x.size, special=x.size)
    if out.grad:
        t.save(out)
        read, written = 2 * out.bytes, x.bytes
        t.backward("softmax", vector=4 * x.size, read=read, written=written, product=x.dtype)
    return out
