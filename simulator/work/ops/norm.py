"""Normalisations: layer, RMS (as Llama, Gemma and torch write it), batch, group; softmax."""

from __future__ import annotations

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value

STATISTICS = 4  # bytes of a mean or an inverse deviation: kept in fp32


def layer_norm(t: Tape, x: Value, *, affine: bool = True, bias: bool = True) -> Value:
    """(x - mean) / sqrt(var + eps) * g + b over the last dimension [ba2016].

    forward   about 8 FLOPs an element; keeps x, and mean and 1/deviation in fp32 a row
    backward  about 14 FLOPs an element, reads dy and x, writes dx; dg and db are sums over rows
    """
    width = x.shape[-1]
    g = t.parameter(width) if affine else None
    b = t.parameter(width) if affine and bias else None
    x = t.full(x)
    rows = x.size // width
    out = t.new(x.shape, x.dtype, x.grad or (affine and t.training))
    t.emit(
        "layer_norm",
        tuple(v for v in (x, g, b) if v is not None),
        (out,),
        vector=8 * x.size,
        special=rows,
    )
    if out.grad:
        t.save(x)
        t.keep(2 * STATISTICS * rows)
        t.backward(
            "layer_norm",
            vector=14 * x.size,
            read=2 * x.bytes,
            written=x.bytes if x.grad else 0,
            product=x.dtype,
        )
        if affine:
            t.backward(
                "reduce", vector=4 * x.size, read=2 * x.bytes, written=2 * g.bytes, product=x.dtype
            )
    return out


def rms_norm(t: Tape, x: Value, *, flavor: str = "llama", affine: bool = True) -> Value:
    """x / sqrt(mean(x^2) + eps) * g [zhang2019].

    Composed of single kernels as transformers writes it, or fused into one where the stack has such
    a kernel: the composed form keeps 6 bytes an element in bf16, the fused one 2. Flavors: llama
    (normalised, cast down, times g), gemma (times 1 + g in fp32, cast last), gpt_oss (times g, cast
    last), t5 (x itself is scaled, not its fp32 copy), torch (as torch.nn.functional.rms_norm
    composes it).
    """
    g = t.parameter(x.shape[-1]) if affine else None
    if t.implementation("rms_norm", "composed") == "fused":
        return _rms_norm_fused(t, x, g)
    full = t.cast(x, "fp32")
    square = pointwise.unary(t, "pow", full)
    inverse = pointwise.unary(
        t, "rsqrt", pointwise.unary(t, "add_scalar", pointwise.mean(t, square))
    )
    if flavor == "t5":
        return pointwise.mul(t, t.cast(pointwise.mul(t, x, inverse), g.dtype), g)
    normal = pointwise.mul(t, full, inverse)
    if g is None:
        return t.cast(normal, x.dtype)
    if flavor == "gpt_oss":
        return t.cast(pointwise.mul(t, normal, g), x.dtype)
    if flavor == "llama":
        return pointwise.mul(t, t.cast(normal, x.dtype), g)
    weight = t.cast(g, "fp32")
    if flavor == "gemma":
        weight = pointwise.unary(t, "add_scalar", weight)
    return t.cast(pointwise.mul(t, normal, weight), x.dtype)


def _rms_norm_fused(t: Tape, x: Value, g: Value | None) -> Value:
    rows = x.size // x.shape[-1]
    out = t.new(x.shape, x.dtype, x.grad or (g is not None and t.training))
    t.emit(
        "layer_norm",
        tuple(v for v in (x, g) if v is not None),
        (out,),
        vector=4 * x.size,
        special=rows,
    )
    if out.grad:
        t.save(x)
        t.keep(STATISTICS * rows)
        t.backward(
            "layer_norm", vector=10 * x.size, read=2 * x.bytes, written=x.bytes, product=x.dtype
        )
    return out


def batch_norm(t: Tape, x: Value, *, affine: bool = True) -> Value:
    """Normalise each channel of [B, C, ...] over batch and space [ioffe2015].

    training   two passes over x forward (statistics, then apply), keeps x and two fp32 numbers a
               channel;
               backward reads dy and x twice, writes dx
    inference  a scale and a shift

    A stack with `batch_norm = "persistent"` keeps x on the chip between the passes, and fuses what
    stands beside the norm, as NVIDIA's NHWC kernels do. With `batch_norm = "decomposed"`, as under
    a compiler, the sums over the batch are a kernel of their own and the rest is a pointwise op
    that fuses with its neighbours.
    """
    channels = x.shape[1]
    g, b = (t.parameter(channels), t.parameter(channels)) if affine else (None, None)
    ins = (x, g, b) if affine else (x,)
    out = t.new(x.shape, x.dtype, x.grad or (affine and t.training))
    if not t.training:
        t.emit("elementwise", ins, (out,), vector=2 * x.size)
        return out
    how = t.implementation("batch_norm", "passes")
    if how not in ("passes", "persistent", "decomposed"):
        raise BadInput(
            f"implementations.batch_norm is {how!r}; wanted 'passes', 'persistent' or 'decomposed'"
        )
    kind, passes = ("batch_norm", 2) if how == "passes" else ("elementwise", 1)
    if how == "decomposed":
        t.emit("batch_norm", (), (), vector=3 * x.size, special=channels, read=x.bytes)
        if out.grad:
            t.backward("batch_norm", vector=5 * x.size, read=2 * x.bytes, product=x.dtype)
    t.emit(kind, ins, (out,), vector=7 * x.size, special=channels, read=passes * x.bytes)
    if out.grad:
        t.save(x)
        t.keep(2 * STATISTICS * channels)
        t.backward(
            kind,
            vector=11 * x.size,
            read=2 * passes * x.bytes,
            written=x.bytes if x.grad else 0,
            product=x.dtype,
        )
    return out


def instance_norm(t: Tape, x: Value) -> Value:
    """Normalise each channel of each sample over space [ulyanov2016]: batch norm of one sample with
    B C channels, in both modes.

    Scale and shift are repeated for every sample first, and the repeated scale is kept beside what
    batch norm keeps.
    """
    channels, rows = x.shape[1], x.shape[0] * x.shape[1]
    g, b = (pointwise.copy(t, t.parameter(channels), rows) for _ in range(2))
    out = t.new(x.shape, x.dtype, x.grad or t.training)
    t.emit("batch_norm", (x, g, b), (out,), vector=7 * x.size, special=rows, read=2 * x.bytes)
    if out.grad:
        t.save(x, g)
        t.keep(2 * STATISTICS * rows)
        t.backward(
            "batch_norm",
            vector=11 * x.size,
            read=4 * x.bytes,
            written=x.bytes if x.grad else 0,
            product=x.dtype,
        )
    return out


def group_norm(t: Tape, x: Value, groups: int, *, affine: bool = True) -> Value:
    """Normalise groups of channels of one sample [wu2018]; statistics are kept in the input's
    format.
    """
    g, b = (t.parameter(x.shape[1]), t.parameter(x.shape[1])) if affine else (None, None)
    x = t.full(x)
    out = t.new(x.shape, x.dtype, x.grad or (affine and t.training))
    t.emit(
        "layer_norm",
        (x, g, b) if affine else (x,),
        (out,),
        vector=8 * x.size,
        special=x.shape[0] * groups,
        read=2 * x.bytes,
    )
    if out.grad:
        t.save(x)
        t.keep(2 * (x.bytes // x.size) * x.shape[0] * groups)
        t.backward(
            "layer_norm",
            vector=14 * x.size,
            read=4 * x.bytes,
            written=x.bytes if x.grad else 0,
            product=x.dtype,
        )
    return out


def softmax(t: Tape, x: Value, *, dtype: str | None = None) -> Value:
    """exp(x - max) / sum over the last dimension; keeps its result. `dtype` as torch's argument:
    computed and returned in it.
    """
    x = t.cast(x, dtype) if dtype else t.full(x)
    out = t.new(x.shape, x.dtype, x.grad)
    t.emit("softmax", (x,), (out,), vector=4 * x.size, special=x.size)
    if out.grad:
        t.save(out)
        t.backward(
            "softmax", vector=4 * x.size, read=2 * out.bytes, written=x.bytes, product=x.dtype
        )
    return out
