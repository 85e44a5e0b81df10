"""Matrix products: linear layers and batched products. Work of a product, forward and backward."""

from __future__ import annotations

from typing import NamedTuple

from roofcast.simulator.work.precision import WIDTH
from roofcast.simulator.work.tape import Tape, Value


class Work(NamedTuple):
    """What a kernel has to do at least: FLOPs, and bytes that cross the memory bus."""

    flops: float
    bytes: float


def matmul_work(m, k, n, width=2, batch=1) -> Work:
    """C[m, n] = A[m, k] B[k, n], `batch` times, each matrix crossing the memory bus once.

        flops = 2 b m k n
        bytes = w b (m k + k n + m n)          w = bytes an element

    A lower bound on traffic: assumes perfect reuse on the chip [williams2009]. Broadcasts over
    arrays.

    >>> matmul_work(4, 4, 4)
    Work(flops=128, bytes=96)
    """
    return Work(2 * batch * m * k * n, width * batch * (m * k + k * n + m * n))


def _product(t: Tape, ins, outs, batch, m, n, k, product=None):
    t.emit(
        "matmul",
        ins,
        outs,
        matrix=2 * batch * m * n * k,
        product=product or product_format(t, ins[0]),
        shape=(batch, m, n, k),
    )


def _product_back(t: Tape, source: Value, batch, m, n, k, *, read, written, product=None):
    product = product or product_format(t, source)
    t.backward(
        "matmul",
        matrix=2 * batch * m * n * k,
        read=read,
        written=written,
        product=product,
        shape=(batch, m, n, k),
    )


def narrowed(t: Tape, x: Value, out: Value, product: str):
    """Operands of an fp8 or fp4 product are cast first, x once however many layers read it, and the
    gradient in backward.

    Each is read, and written twice: as it is and transposed, for the weight's gradient. Weights
    keep their casts over a step.
    """
    width = WIDTH.get(product, 4)  # tf32 is held as fp32
    if width >= WIDTH[x.dtype]:
        return
    copies = 2 if t.training else 1
    if x.storage not in t.narrow:
        t.narrow.add(x.storage)
        t.emit("cast", (), (), vector=x.size, read=x.bytes, written=copies * width * x.size)
    if out.grad:
        t.backward("cast", vector=out.size, read=out.bytes, written=copies * width * out.size)


def product_format(t: Tape, x: Value) -> str:
    """The format the matrix unit is fed: the policy's where the operand is in its format, else the
    operand's own.
    """
    p = t.precision
    return p.product if x.dtype == (p.autocast or p.activations) else x.dtype


def linear(
    t: Tape,
    x: Value,
    out_features: int,
    *,
    bias: bool = True,
    weight: Value | None = None,
    trainable: bool = True,
    parallel: bool | None = None,
    whole: int = 1,
    narrow: bool = True,
) -> Value:
    """y[T, out] = x[T, in] W^T + b.

        forward   2 T in out FLOPs; keeps x (once, however many layers share it)
        backward  dx = dy W, dW = dy^T x: 2 T in out each, dx only where x needs a gradient; db =
        sum of dy

    The bias rides in the product's epilogue.

    Under tensor parallelism [shoeybi2019] a layer of a repeated block whose input is whole is cut
    by columns, one whose input is cut already by rows, its results added up over the ranks.
    `parallel` says so outside of blocks, or forbids it; `whole` columns stay together (a head that
    several ranks share). Not `narrow`: in the operands' own format where other layers run in 8 or 4
    bits.
    """
    if t.parallel.tp > 1 and parallel is not False:
        if x.split == "features":
            return t.leave(_linear(t, x, out_features, bias, weight, trainable, narrow))
        if weight is not None and weight.split:
            return _cut(_linear(t, t.enter(x), weight.shape[0], bias, weight, trainable, narrow))
        if weight is None and (parallel or t.in_block):
            if parallel:  # a vocabulary: the last rank's share is padded
                columns = -(-out_features // t.parallel.tp)
            else:
                columns = (
                    t.share(out_features, "the columns of a layer")
                    if out_features // whole >= t.parallel.tp
                    else whole
                )
            return _cut(_linear(t, t.enter(x), columns, bias, weight, trainable, narrow))
    return _linear(t, x, out_features, bias, weight, trainable, narrow)


def _cut(out: Value) -> Value:
    """A column-parallel layer's result: a rank's share of the features."""
    out.split = "features"
    return out


def _linear(
    t: Tape,
    x: Value,
    out_features: int,
    bias: bool,
    weight: Value | None,
    trainable: bool,
    narrow: bool = True,
) -> Value:
    k, tokens = x.shape[-1], x.size // x.shape[-1]
    w = (
        weight
        if weight is not None
        else t.parameter(out_features, k, trainable=trainable, dtype=t.precision.matrices)
    )
    b = t.parameter(out_features, trainable=trainable) if bias else None
    x_low, w_low = t.low(x), t.low(w)
    ins = (x_low, w_low, t.low(b)) if bias else (x_low, w_low)
    out = t.new((*x.shape[:-1], out_features), x_low.dtype, x.grad or w.grad)
    product = product_format(t, x_low) if narrow else x_low.dtype
    narrowed(t, x_low, out, product)
    _product(t, ins, (out,), 1, tokens, out_features, k, product)
    if out.grad:
        if w.grad:
            t.save(x_low)
            _product_back(
                t,
                x_low,
                1,
                out_features,
                k,
                tokens,
                read=out.bytes + x_low.bytes,
                written=w_low.bytes,
                product=product,
            )
            if bias:
                t.backward(
                    "reduce",
                    vector=out.size,
                    read=out.bytes,
                    written=ins[2].bytes,
                    product=out.dtype,
                )
        if x.grad:
            t.save(w_low)
            _product_back(
                t,
                x_low,
                1,
                tokens,
                k,
                out_features,
                read=out.bytes + w_low.bytes,
                written=x_low.bytes,
                product=product,
            )
    return out


def matmul(t: Tape, a: Value, b: Value, *, transposed: bool = False) -> Value:
    """C[..., m, n] = A[..., m, k] B[..., k, n], or A B^T with B[..., n, k]; both operands are
    kept.
    """
    a, b = t.low(a), t.low(b)
    m, k = a.shape[-2:]
    n = b.shape[-2] if transposed else b.shape[-1]
    batch = a.size // (m * k)
    out = t.new((*a.shape[:-1], n), a.dtype, a.grad or b.grad)
    _product(t, (a, b), (out,), batch, m, n, k)
    if out.grad:
        if a.grad:
            t.save(b)
            _product_back(t, a, batch, m, k, n, read=out.bytes + b.bytes, written=a.bytes)
        if b.grad:
            t.save(a)
            _product_back(t, a, batch, k, n, m, read=out.bytes + a.bytes, written=b.bytes)
    return out
