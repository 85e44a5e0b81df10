"""Matrix products: linear layers and batched products, forward and backward.

A product C[m, n] = A[m, k] B[k, n] is 2 m n k FLOPs.
"""

from __future__ import annotations

from collections.abc import Sequence

from roofcast.hwdb.formats import is_stored
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value
from roofcast.simulator.work.tuning import Tuning, check_rank


def product_format(t: Tape, dtype: str, weight: Value | None = None) -> str:
    """Operand format of a product on operands that are held in `dtype`.

    In training that of the precision policy if they are in its format, else their own. A policy
    that quantizes weights for inference uses its format where a quantized `weight` is multiplied.
    """
    p, asked = t.precision, t.asked
    if asked is not None and asked.precision is not None and weight is not None:
        return asked.precision if is_stored(weight.dtype) else dtype
    if t.matrices and not t.training:
        return p.product if weight is not None and t.quantized(weight) else dtype
    return p.product if dtype == (p.autocast or p.activations) else dtype


def narrowed(t: Tape, x: Value, out: Value, product: str) -> Value:
    """The operand x of an fp8, int8 or fp4 product as the product reads it, and the casts for it:
    of x, and of the gradient in backward.

    x is cast once, however many layers read it. In training, a cast writes its tensor twice: as it
    is and transposed, for the weight's gradient, and x stays what the layer keeps. Weights keep
    their casts over a step.
    """
    width = WIDTH.get(product, 4)  # tf32 is held as fp32
    if width >= WIDTH[x.dtype]:
        return x
    if not t.training:
        return t.quantize(x, product)
    if x.storage not in t.narrow:
        t.narrow.add(x.storage)
        t.emit("cast", (), (), vector=x.size, read=x.bytes, written=2 * width * x.size)
    if out.grad:
        t.backward("cast", vector=out.size, read=out.bytes, written=2 * width * out.size)
    return x


def keep_operand(t: Tape, x: Value, product: str) -> None:
    """Keep the operand x of a product for the gradient of its weight.

    Transformer Engine (`linear = "te"`) keeps the cast of an 8-bit or 4-bit product instead, one
    however many layers read x. Source: github NVIDIA/TransformerEngine, pytorch/module/linear.py.
    """
    share = WIDTH.get(product, 4) / WIDTH[x.dtype]
    if share >= 1.0 or t.implementation("linear", "") != "te":
        t.save(x)
        return
    if x.storage not in t.kept_casts:
        cast = t.new(x.shape, x.dtype, True)
        cast.held = share * x.held
        t.kept_casts[x.storage] = cast
    t.save(t.kept_casts[x.storage])


def linear(
    t: Tape,
    x: Value,
    out_features: int,
    *,
    bias: bool | Value = True,
    weight: Value | None = None,
    trainable: bool = True,
    parallel: bool | None = None,
    whole: int = 1,
    narrow: bool = True,
) -> Value:
    """y[T, out] = x[T, in] W^T + b.

        forward   2 T in out FLOPs; keeps x (once, however many layers share it)
        backward  dx = dy W and dW = dy^T x, 2 T in out FLOPs each; dx only if x needs a gradient;
                  db = sum of dy

    The bias is added in the epilogue of the product. `weight` and `bias` may be values that several
    layers share.

    Tensor parallelism [shoeybi2019]: a layer of a repeated block is column-parallel if its input is
    whole, and row-parallel if its input is split by features. `parallel` makes a layer outside of
    blocks column-parallel (True), or keeps any layer whole (False). `whole` is the smallest number
    of columns to keep together, for a head that several ranks share. With `narrow=False` the
    product runs in the operands' own format even if the precision policy has an 8-bit or 4-bit one.
    """
    w = weight
    head = not t.in_block and bool(parallel or not narrow)
    # heads of language models, products with the vocabulary, are not quantized
    narrow = narrow and (t.training or not parallel)
    if t.parallel.tp > 1 and parallel is not False:
        if x.split == "features":
            if t.merged and t.parallel.sp and _adapts(t, head):
                out = t.leave(_plain(t, x, out_features, bias, w, trainable, narrow, head))
                return _adapted_rows(t, x, out)
            return t.leave(_linear(t, x, out_features, bias, w, trainable, narrow, head))
        if w is not None and w.split:
            return _columns(_linear(t, t.enter(x), w.shape[0], bias, w, trainable, narrow, head))
        if w is None and (parallel or t.in_block):
            columns = _own_columns(t, out_features, bool(parallel), whole)
            y = _linear(t, t.enter(x), columns, bias, w, trainable, narrow, head, x)
            return _columns(y)
    return _linear(t, x, out_features, bias, w, trainable, narrow, head)


def _own_columns(t: Tape, out_features: int, padded: bool, whole: int) -> int:
    """Columns of a layer per tensor-parallel rank; if `padded`, the last rank may get padding."""
    tp = t.parallel.tp
    if padded:
        return -(-out_features // tp)
    return t.share(out_features, "the columns of a layer") if out_features // whole >= tp else whole


def _columns(out: Value) -> Value:
    """The result of a column-parallel layer: one rank's share of the features."""
    out.split = "features"
    return out


def _linear(
    t: Tape,
    x: Value,
    out_features: int,
    bias: bool | Value,
    weight: Value | None,
    trainable: bool,
    narrow: bool,
    head: bool,
    source: Value | None = None,
) -> Value:
    """A linear layer, with its adapter where one is asked for. source: x before its tokens were
    gathered.
    """
    out = _plain(t, x, out_features, bias, weight, trainable, narrow, head)
    if not _adapts(t, head):
        return out
    assert t.tuning is not None, "layers with an adapter have a tuning"
    return _adapted(t, x, out, t.tuning, source)


def _adapts(t: Tape, head: bool) -> bool:
    """Whether the layer has an adapter; noted among those that could have one."""
    if not t.training or t.tuning is None:
        return False
    t.linears.setdefault(t.node.name, t.repeats)
    if t.tuning.adapts(t.node, head):
        t.adapted.setdefault(t.node.name, t.repeats)
        return True
    return False


def _adapted_rows(t: Tape, x: Value, out: Value) -> Value:
    """out + B(A(dropout(x))) for a layer whose input is split by features, as NeMo computes it.

    A's partial results, r per token, are summed over the ranks; each rank computes its share of B's
    outputs for all tokens and exchanges them for all outputs of its own tokens, where `out` is.
    Source: github NVIDIA/NeMo, ParallelLinearAdapter with a2a_experimental: all2all_hp2sp.
    """
    tuning = t.tuning
    assert tuning is not None and tuning.rank is not None, "an adapter has a rank"
    rank, k, wide = tuning.rank, x.shape[-1], out.shape[-1]
    check_rank(rank, wide, k * t.parallel.tp, t.node.name)
    dtype = tuning.precision or t.precision.weights
    down = t.parameter(rank, k, dtype=dtype, adapter=True)
    h = pointwise.dropout(t, t.cast(x, dtype), tuning.dropout)
    h = _plain(t, h, rank, False, down, True, _sixteen(t), False)
    t.send("all_reduce", "tp", h.bytes)
    t.send("all_reduce", "tp", h.bytes, phase="backward")
    columns = t.share(wide, "the outputs of an adapter")
    up = t.parameter(columns, rank, dtype=dtype, adapter=True)
    h = _plain(t, h, columns, False, up, True, _sixteen(t), False)
    t.send("all_to_all", "tp", h.bytes)
    t.send("all_to_all", "tp", h.bytes, phase="backward")
    own = t.new(out.shape, h.dtype, True)
    own.split = out.split
    return t.cast(pointwise.add(t, out, pointwise.scale(t, own)), out.dtype)


def _adapted(t: Tape, x: Value, out: Value, tuning: Tuning, source: Value | None = None) -> Value:
    """out + B(A(dropout(x))) times a number, as PEFT computes it [hu2021].

        forward   2 T r (in + out) FLOPs for A[r, in] and B[out, r]; keeps x for A's gradient and
                  the r results of A for B's
        backward  the gradients of A and B, and of x

    Adapters in another format than x read a copy of x, each its own, and the result is cast back.
    Source: github huggingface/peft, src/peft/tuners/lora/layer.py, Linear.forward. Where a stack
    multiplies queries, keys and values as one (`lora = "merged"`), layers with the same input share
    A: github NVIDIA/NeMo, adapter lora_kqv_adapter. An adapter that gathers its input itself
    (`lora = "merged_apart"`) drops and gathers `source`, the rank's own tokens.
    """
    assert tuning.rank is not None, "an adapter has a rank"
    rank, k, wide = tuning.rank, x.shape[-1], out.shape[-1]
    check_rank(rank, wide, k, t.node.name)
    dtype = tuning.precision or t.precision.weights
    h = t.lowered.get(x.storage) if t.merged else None
    if h is None:
        down = t.parameter(rank, k, dtype=dtype, adapter=True)
        apart = t.own_gather and source is not None and source.split == "tokens"
        read = source if apart and source is not None else x
        h = pointwise.dropout(t, t.cast(read, dtype), tuning.dropout)
        h = t.gather(h) if apart else h
        h = t.lowered[x.storage] = _plain(t, h, rank, False, down, True, _sixteen(t), False)
    up = t.parameter(wide, rank, dtype=dtype, adapter=True)
    h = _plain(t, h, wide, False, up, True, _sixteen(t), False)
    if t.implementation("lora", "") == "padded":
        t.save(h)  # LitGPT copies it into the width of a fused layer; the copy keeps its source
    if tuning.dora:
        return t.cast(_directed(t, out, h, (rank, k), dtype), out.dtype)
    return t.cast(pointwise.add(t, out, pointwise.scale(t, h)), out.dtype)


def _directed(t: Tape, out: Value, h: Value, shape: tuple[int, int], dtype: str) -> Value:
    """out and the adapter's result h, with the length of each column of the weights replaced by a
    trained magnitude [liu2024dora].

        s = magnitude / ||W + B A||          a number per output; the norm has no gradient
        y = out + (s - 1) out + s h

    PEFT makes B A of a unit matrix by the adapters' own layers, 2 in r (in + out) FLOPs, adds W and
    takes the norm, in every pass. Keeps out and h for s. shape: rank and inputs of the adapter.
    Source: github huggingface/peft, src/peft/tuners/lora/dora.py, DoraLinearLayer.forward.
    """
    rank, k = shape
    wide = out.shape[-1]
    magnitude = t.parameter(wide, dtype=dtype, adapter=True)
    unit = t.new((k, k), dtype)
    t.emit("elementwise", (), (unit,), vector=unit.size)
    inner, both = t.new((k, rank), dtype), t.new((k, wide), dtype)
    _product(t, (unit,), inner, (1, k, rank, k), dtype)
    _product(t, (inner,), both, (1, k, wide, rank), dtype)
    total = t.new((wide, k), out.dtype)
    t.emit("elementwise", (both,), (total,), vector=both.size)
    t.emit("elementwise", (total, total), (total,), vector=total.size)  # beside the weight
    norm = t.new((wide,), out.dtype)
    t.emit("reduce", (total,), (norm,), vector=2 * total.size)
    s = t.new((wide,), out.dtype, True)
    t.emit("elementwise", (magnitude, norm), (s,), vector=wide)
    t.save(norm)
    t.backward("elementwise", vector=wide, read=2 * s.bytes, written=magnitude.bytes)
    first = pointwise.mul(t, pointwise.unary(t, "add_scalar", s), out)
    second = pointwise.scale(t, pointwise.mul(t, s, h))
    return pointwise.add(t, out, pointwise.add(t, first, second))


def _sixteen(t: Tape) -> bool:
    """Whether the policy's products are of 16 bits or more: adapters have no narrower ones."""
    return WIDTH.get(t.precision.product, 4) >= WIDTH["bf16"]


def _plain(
    t: Tape,
    x: Value,
    out_features: int,
    bias: bool | Value,
    weight: Value | None,
    trainable: bool,
    narrow: bool,
    head: bool,
) -> Value:
    k, tokens = x.shape[-1], x.size // x.shape[-1]
    w = weight
    if w is None:
        quantized = narrow and not (head and t.training)
        held = t.matrix_format(out_features, k) if quantized else t.head_format(out_features, k)
        w = t.parameter(out_features, k, trainable=trainable, dtype=held)
    b = bias if isinstance(bias, Value) else None
    if bias is True:
        b = t.parameter(out_features, trainable=trainable)
    x_low = t.low(x)
    w_low = t.widened(t.low(w), x_low.dtype)
    b_low = None if b is None else t.low(b)
    ins = (x_low, w_low) if b_low is None else (x_low, w_low, b_low)
    bias_grad = b is not None and b.grad
    out = t.new((*x.shape[:-1], out_features), t.wide(x_low.dtype), x.grad or w.grad or bias_grad)
    product = product_format(t, t.wide(x_low.dtype), w) if narrow else t.wide(x_low.dtype)
    operand = narrowed(t, x_low, out, product)
    _product(t, (operand, *ins[1:]), out, (1, tokens, out_features, k), product)
    if not out.grad:
        return out
    if w.grad:
        keep_operand(t, x_low, product)
        _product_back(t, (out, x_low), w_low, (1, out_features, k, tokens), product)
    if b_low is not None and bias_grad:
        reduced, dtype = b_low.bytes, out.dtype
        t.backward("reduce", vector=out.size, read=out.bytes, written=reduced, product=dtype)
    if x.grad:
        t.save(w_low)
        if w_low.kind == "dequantized" and t.implementation("stored", "") == "keeps_input":
            t.save(x_low)  # bitsandbytes 0.41: MatMul4Bit keeps both operands
        t.widened_again(w, w_low)
        _product_back(t, (out, w_low), x_low, (1, tokens, k, out_features), product)
    return out


def matmul(t: Tape, a: Value, b: Value, *, transposed: bool = False) -> Value:
    """C[..., m, n] = A[..., m, k] B[..., k, n]; both operands are kept for backward.

    With `transposed`, C = A B^T for B[..., n, k].
    """
    a, stored = t.low(a), t.low(b)
    b = t.widened(stored, a.dtype)
    m, k = a.shape[-2:]
    n = b.shape[-2] if transposed else b.shape[-1]
    batch = a.size // (m * k)
    out = t.new((*a.shape[:-1], n), t.wide(a.dtype), a.grad or b.grad)
    product = product_format(t, t.wide(a.dtype), b)
    operand = narrowed(t, a, out, product) if not t.training else a
    _product(t, (operand, b), out, (batch, m, n, k), product)
    if out.grad and a.grad:
        t.save(b)
        t.widened_again(stored, b)
        _product_back(t, (out, b), a, (batch, m, k, n), product)
    if out.grad and b.grad:
        t.save(a)
        _product_back(t, (out, a), b, (batch, k, n, m), product)
    return out


Shape = tuple[int, int, int, int]  # batch, m, n, k


def _product(t: Tape, ins: Sequence[Value], out: Value, shape: Shape, product: str) -> None:
    batch, m, n, k = shape
    kind, flops = product_kind(t, ins[-1], 2 * batch * m * n * k)
    t.emit(kind, ins, (out,), matrix=flops, product=product, shape=shape)


def product_kind(t: Tape, weight: Value, flops: float) -> tuple[str, float]:
    """The kernel of a product with a weight, and the FLOPs that it computes: half of those of a
    dense one where the weight holds 2 of every 4.
    """
    sparse = weight.kind == "parameter" and weight.dtype == t.sparse
    return ("sparse_matmul", flops / 2) if sparse else ("matmul", flops)


def _product_back(
    t: Tape, ins: Sequence[Value], gradient: Value, shape: Shape, product: str
) -> None:
    """A product in backward that reads tensors as large as `ins` and writes one like `gradient`."""
    batch, m, n, k = shape
    flops, read = 2 * batch * m * n * k, sum(v.bytes for v in ins)
    written = gradient.bytes
    t.backward("matmul", matrix=flops, read=read, written=written, product=product, shape=shape)
