"""Matrix work of aten ops: products, convolutions, attention, whole recurrent layers.

FLOPs are those that torch.utils.flop_counter counts: 2 per multiply-add, and the full score matrix
of attention. One correction: the weight gradient of a grouped convolution is divided by its groups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

    SizeOf = Callable[[torch.Tensor], int]


class Work(NamedTuple):
    """One kernel of an op. `read` and `written` None: every operand once, every result once."""

    kind: str  # selects the time formula
    matrix: float = 0  # FLOPs of the matrix unit
    vector: float = 0  # FLOPs of the vector unit
    special: float = 0  # results of special functions
    shape: tuple = ()  # arguments of the time formula
    read: float | None = None  # bytes
    written: float | None = None  # bytes


class Called(NamedTuple):
    """One call of an aten op."""

    args: Sequence[Any]
    kwargs: dict[str, Any]
    ins: Sequence[torch.Tensor]  # tensors among the arguments
    outs: Sequence[torch.Tensor]
    size_of: SizeOf  # bytes of a tensor

    def argument(self, place: int, name: str) -> Any:
        """An argument by position or by name; None if it was not passed."""
        return self.args[place] if len(self.args) > place else self.kwargs.get(name)


def _mm(a: torch.Tensor, b: torch.Tensor, batch: int = 1) -> list[Work]:
    (m, k), n = a.shape[-2:], b.shape[-1]
    return [Work("matmul", matrix=2 * batch * m * n * k, shape=(batch, m, n, k))]


def _product(first: int, batched: bool = False) -> Callable[[Called], list[Work]]:
    """Work of an op that multiplies its arguments number `first` and `first` + 1."""

    def work(c: Called) -> list[Work]:
        a, b = c.args[first], c.args[first + 1]
        return _mm(a, b, a.shape[0] if batched else 1)

    return work


def _grouped(c: Called) -> list[Work]:
    """Rows of one matrix in groups, each times its own matrix; or the transpose of that."""
    a, b = c.args[:2]
    if len(a.shape) == 3 and len(b.shape) == 3:
        return _mm(a, b, a.shape[0])
    k, n = a.shape[-1], b.shape[-1]
    if len(b.shape) == 3:
        rows, groups = a.shape[0], b.shape[0]
        return [Work("matmul", matrix=2 * rows * k * n, shape=(groups, -(-rows // groups), n, k))]
    m = a.shape[-2]
    groups = a.shape[0] if len(a.shape) == 3 else 1
    return [Work("matmul", matrix=2 * m * k * n, shape=(groups, m, -(-n // groups), k))]


def _conv_shape(
    x: torch.Tensor,
    w: torch.Tensor,
    y: torch.Tensor,
    stride: Sequence[int],
    transposed: bool,
    groups: int,
) -> tuple[tuple[int, ...], int]:
    """Shape of a convolution, or of the one whose adjoint this is, and FLOPs of one pass.

    The shape is (batch, channels in, channels out, pixels in, pixels out, taps, stride, groups).
    """
    taps = prod(w.shape[2:])
    pixels = prod(x.shape[2:] if transposed else y.shape[2:])
    flops = 2 * x.shape[0] * pixels * w.shape[0] * w.shape[1] * taps
    if transposed:
        x, y = y, x
    channels, space = (x.shape[1], y.shape[1]), (prod(x.shape[2:]), prod(y.shape[2:]))
    return (x.shape[0], *channels, *space, taps, prod(stride), groups), flops


def _conv_kind(shape: tuple[int, ...]) -> str:
    _, c_in, *_, groups = shape
    return "depthwise" if groups > 1 and groups == c_in else "conv"


def _convolution(c: Called) -> list[Work]:
    x, w, _, stride, _, _, transposed, _, groups = c.args[:9]
    shape, flops = _conv_shape(x, w, c.outs[0], stride, transposed, groups)
    direction = "dgrad" if transposed else "forward"
    return [Work(_conv_kind(shape), matrix=flops, shape=(direction, *shape))]


def _convolution_backward(c: Called) -> list[Work]:
    dy, x, w, _, stride, _, _, transposed, _, groups, mask = c.args[:11]
    of_input, of_weight, of_bias = mask
    shape, flops = _conv_shape(x, w, dy, stride, transposed, groups)
    kind, size, kernels = _conv_kind(shape), c.size_of, []
    if of_input:
        direction, read = "forward" if transposed else "dgrad", size(dy) + size(w)
        kernels.append(
            Work(kind, matrix=flops, shape=(direction, *shape), read=read, written=size(x))
        )
    if of_weight:
        read = size(dy) + size(x)
        kernels.append(
            Work(kind, matrix=flops, shape=("wgrad", *shape), read=read, written=size(w))
        )
    if of_bias:
        n = prod(dy.shape)
        written = size(dy) // max(n, 1) * w.shape[1 if transposed else 0]
        kernels.append(Work("reduce", vector=n, read=size(dy), written=written))
    return kernels


def _attention(place: int) -> Callable[[Called], list[Work]]:
    """Work of a forward attention kernel whose argument number `place` is `is_causal`."""

    def work(c: Called) -> list[Work]:
        q, k, v = c.args[:3]
        batch, heads, length, dim = q.shape
        flops = 2 * batch * heads * length * k.shape[2] * (dim + v.shape[-1])
        return [_attention_work(q, k, bool(c.argument(place, "is_causal")), flops, 4)]

    return work


def _attention_backward(place: int) -> Callable[[Called], list[Work]]:
    """Work of a backward attention kernel: 2 b h q k (3 d + 2 d_v) FLOPs.

    It computes the scores again, and two products for each of the two forward ones.
    """

    def work(c: Called) -> list[Work]:
        q, k, v = c.args[1:4]
        batch, heads, length, dim = q.shape
        flops = 2 * batch * heads * length * k.shape[2] * (3 * dim + 2 * v.shape[-1])
        return [_attention_work(q, k, bool(c.argument(place, "is_causal")), flops, 10)]

    return work


def _flex_attention(c: Called) -> list[Work]:
    """flex_attention: FLOPs of the full scores; the kernel computes the blocks of its mask."""
    (work,) = _attention(99)(c)
    return [_kept_blocks(work, c.args[3])]


def _flex_attention_backward(c: Called) -> list[Work]:
    (work,) = _attention_backward(99)(c)
    return [_kept_blocks(work, c.args[6])]


def _kept_blocks(w: Work, share: float) -> Work:
    """The kernel on the columns of scores that a mask keeps, in the mean of all rows."""
    batch, heads, groups, length, columns, dim, causal = w.shape
    shape = (batch, heads, groups, length, max(1, round(columns * share)), dim, causal)
    return w._replace(vector=w.vector * share, special=w.special * share, shape=shape)


def _attention_work(
    q: torch.Tensor, k: torch.Tensor, causal: bool, flops: int, vector: int
) -> Work:
    batch, heads, length, dim = q.shape
    groups, kv_len = k.shape[1:3]
    scores = batch * heads * length * kv_len * (0.5 if causal else 1)
    shape = (batch, heads, groups, length, kv_len, dim, causal)
    return Work("attention", matrix=flops, vector=vector * scores, special=scores, shape=shape)


def _rnn_layer(c: Called) -> list[Work]:
    """A recurrent layer in one oneDNN kernel: weights times every step's input and state."""
    x, w_in, w_hidden = c.args[:3]
    steps = prod(x.shape[:-1])
    n, k = w_in.shape[0], w_in.shape[1] + w_hidden.shape[1]
    return [Work("matmul", matrix=2 * steps * n * k, shape=(1, steps, n, k))]


def _rnn_layer_backward(c: Called) -> list[Work]:
    (w,) = _rnn_layer(c)
    batch, m, n, k = w.shape
    return [w._replace(matrix=2 * w.matrix, shape=(batch, m, n, 2 * k))]


PRODUCTS: dict[str, Callable[[Called], list[Work]]] = {
    "mm": _product(0),
    "_int_mm": _product(0),
    "_scaled_mm": _product(0),
    "addmm": _product(1),
    "addmm_": _product(1),
    "bmm": _product(0, batched=True),
    "baddbmm": _product(1, batched=True),
    "baddbmm_": _product(1, batched=True),
    "_grouped_mm": _grouped,
    "_scaled_grouped_mm": _grouped,
    "convolution": _convolution,
    "_convolution": _convolution,
    "convolution_backward": _convolution_backward,
    "flex_attention": _flex_attention,
    "flex_attention_backward": _flex_attention_backward,
    "mkldnn_rnn_layer": _rnn_layer,
    "mkldnn_rnn_layer_backward": _rnn_layer_backward,
    "_scaled_dot_product_flash_attention": _attention(4),
    "_scaled_dot_product_flash_attention_for_cpu": _attention(4),
    "_scaled_dot_product_efficient_attention": _attention(6),
    "_scaled_dot_product_cudnn_attention": _attention(6),
    "_scaled_dot_product_flash_attention_backward": _attention_backward(11),
    "_scaled_dot_product_flash_attention_for_cpu_backward": _attention_backward(7),
    "_scaled_dot_product_efficient_attention_backward": _attention_backward(11),
    "_scaled_dot_product_cudnn_attention_backward": _attention_backward(14),
}
