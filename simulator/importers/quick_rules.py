"""What ops return for tensors without numbers: shape and format, where these are plain.

Each rule gives what PyTorch's own rule gives, in microseconds instead of milliseconds, for dense
operands (contiguous) of one floating-point format; for any others it returns LEFT. The tests
compare both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from roofcast.simulator.importers.torch_extra import META, FakeTensor, aten, torch

LEFT: Any = object()  # the op is left to PyTorch
HALF = (torch.bfloat16, torch.float16)
FLOATS = frozenset((torch.float64, torch.float32, *HALF))
PLAIN = frozenset((int, float, bool, str, type(None)))

Rule = Callable[..., Any]


def meta(shape: Sequence[int], dtype: torch.dtype) -> torch.Tensor:
    """A dense tensor without numbers."""
    return torch.empty(shape, dtype=dtype, device=META)


def _wide(t: torch.Tensor) -> torch.dtype:
    """The format in which statistics are computed."""
    return torch.float32 if t.dtype in HALF else t.dtype


def _dense(*tensors: torch.Tensor) -> bool:
    """Whether these are contiguous, of one floating-point format."""
    dtype = tensors[0].dtype
    return dtype in FLOATS and all(
        t.dtype is dtype and t.numel() and t.is_contiguous() for t in tensors
    )


def _one_number(t: torch.Tensor) -> bool:
    """Whether it is one number seen as many, as the first gradient of a backward pass is."""
    return not any(stride for n, stride in zip(t.shape, t.stride(), strict=True) if n > 1)


def _fits(shape: Sequence[int], whole: Sequence[int]) -> bool:
    """Whether a tensor is broadcast to `whole`."""
    back = len(whole) - len(shape)
    return back >= 0 and all(n in (1, m) for n, m in zip(shape, whole[back:], strict=True))


# ---------------------------------------------------------------- elementwise
def _operands(args: Sequence[Any], kwargs: dict[str, Any]) -> list[Any] | None:
    """The tensors among arguments of an elementwise op; None where there is anything unusual."""
    found = []
    for a in (*args, *kwargs.values()):
        if type(a) is FakeTensor:
            found.append(a)
        elif type(a) not in PLAIN:
            return None
    return found or None


def _pointwise(*args: Any, **kwargs: Any) -> Any:
    """A result in the shape of the largest operand, which is dense."""
    found = _operands(args, kwargs)
    if found is None:
        return LEFT
    large = max(found, key=_largest)
    for t in found:
        if t is not large and not (_fits(t.shape, large.shape) and (_one_number(t) or _dense(t))):
            return LEFT
        if t.dtype is not large.dtype:
            return LEFT
    return meta(large.shape, large.dtype) if _dense(large) else LEFT


def _largest(t: torch.Tensor) -> tuple[int, int, bool]:
    return t.dim(), t.numel(), t.is_contiguous()


def _in_place(*args: Any, **kwargs: Any) -> Any:
    """The first operand itself."""
    found = _operands(args, kwargs)
    if found is None or args[0] is not found[0] or not _dense(*found):
        return LEFT
    return found[0] if all(_fits(t.shape, found[0].shape) for t in found) else LEFT


def _filled(t: Any, *numbers: Any, generator: Any = None) -> Any:
    """The operand itself, whose numbers are replaced."""
    return t if all(type(n) in PLAIN for n in numbers) else LEFT


def _like(
    t: Any, *number: Any, dtype: Any = None, device: Any = None, memory_format: Any = None,
    **unusual: Any,
) -> Any:  # fmt: skip
    """A tensor in the shape of another."""
    known = memory_format in (None, torch.preserve_format) and t.is_contiguous() and t.numel()
    return LEFT if any(unusual.values()) or not known else meta(t.shape, dtype or t.dtype)


def _new(
    t: Any, shape: Any, *number: Any, dtype: Any = None, device: Any = None, **unusual: Any
) -> Any:
    """A tensor in the format of another."""
    return LEFT if any(unusual.values()) else meta(shape, dtype or t.dtype)


def _clone(t: Any, *, memory_format: Any = None) -> Any:
    if memory_format in (None, torch.preserve_format) and not t.is_contiguous():
        return LEFT
    if memory_format not in (None, torch.preserve_format, torch.contiguous_format):
        return LEFT
    return meta(t.shape, t.dtype)


def _to_copy(t: Any, *, dtype: Any = None, memory_format: Any = None, **where: Any) -> Any:
    """Another format on the same device."""
    device = where.pop("device", None)
    if any(where.values()) or dtype in (None, t.dtype) or not t.is_contiguous() or not t.numel():
        return LEFT
    if device is not None and device != t.fake_device:
        return LEFT
    known = memory_format in (None, torch.preserve_format)
    return meta(t.shape, dtype) if known and not dtype.is_complex else LEFT


# ---------------------------------------------------------------- products
def _mm(a: Any, b: Any) -> Any:
    if a.dtype is not b.dtype or a.dtype not in FLOATS:
        return LEFT
    if a.dim() != b.dim() or a.dim() not in (2, 3):
        return LEFT
    if a.shape[:-2] != b.shape[:-2] or a.shape[-1] != b.shape[-2]:
        return LEFT
    return meta((*a.shape[:-1], b.shape[-1]), a.dtype)


def _addmm(c: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    made = _mm(a, b)
    if made is LEFT or c.dtype is not a.dtype or not _fits(c.shape, made.shape):
        return LEFT
    return made


# ---------------------------------------------------------------- rows
def _reduced(t: Any, dims: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    """Sums over axes."""
    rank = t.dim()
    if dtype not in (None, t.dtype) or not rank or t.dtype not in FLOATS or not t.numel():
        return LEFT
    given = range(rank) if dims is None or not len(dims) else dims
    gone = {d + rank if d < 0 else d for d in given}
    if len(gone) != len(given) or not gone <= set(range(rank)):
        return LEFT
    left = [n for i, n in enumerate(t.shape) if i not in gone]
    if len(left) > 1 and not t.is_contiguous():
        return LEFT
    shape = [1 if i in gone else n for i, n in enumerate(t.shape)] if keepdim else left
    return meta(shape, t.dtype)


def _sum(t: Any, *, dtype: Any = None) -> Any:
    return _reduced(t, None, dtype=dtype)


def _softmax(t: Any, dim: int, half_to_float: bool) -> Any:
    in_range = -t.dim() <= dim < t.dim()
    return meta(t.shape, t.dtype) if in_range and not half_to_float and _dense(t) else LEFT


def _softmax_backward(dy: Any, y: Any, dim: int, dtype: Any) -> Any:
    if dtype is not y.dtype or not y.dim() or dy.shape != y.shape or not _dense(dy, y):
        return LEFT
    return meta(y.shape, y.dtype)


def _statistics(t: torch.Tensor) -> torch.dtype:
    """The format in which a norm keeps its statistics: on a CPU that of its operand."""
    return t.dtype if t.fake_device.type == "cpu" else _wide(t)  # type: ignore[attr-defined]


def _layer_norm(x: Any, shape: Any, weight: Any, bias: Any, eps: float) -> Any:
    rows, ends = x.shape[: x.dim() - len(shape)], tuple(shape)
    given = [t for t in (weight, bias) if t is not None]
    if x.dtype not in FLOATS or not x.numel() or tuple(x.shape[len(rows) :]) != ends:
        return LEFT
    if any(t.dtype is not x.dtype or tuple(t.shape) != ends for t in given) or not ends:
        return LEFT
    one = (*rows, *(1 for _ in ends))
    return meta(x.shape, x.dtype), meta(one, _statistics(x)), meta(one, _statistics(x))


def _layer_norm_backward(
    dy: Any, x: Any, shape: Any, mean: Any, rstd: Any, weight: Any, bias: Any, mask: Any
) -> Any:
    if x.dtype not in FLOATS or dy.dtype is not x.dtype or dy.shape != x.shape or not x.numel():
        return LEFT
    found = zip(mask, (x, weight, bias), strict=True)
    return tuple(meta(t.shape, t.dtype) if on and t is not None else None for on, t in found)


def _batch_norm(
    x: Any, weight: Any, bias: Any, mean: Any, var: Any, training: bool, momentum: Any, eps: Any
) -> Any:
    if x.dim() < 2 or not x.numel() or not _dense(x) or (not training and mean is None):
        return LEFT
    channels = (x.shape[1],)
    if any(t is not None and t.shape != channels for t in (weight, bias, mean, var)):
        return LEFT
    if not training and x.fake_device.type == "cpu":
        channels = (0,)
    elif not training and (mean.dtype, var.dtype) != (_wide(x), _wide(x)):
        return LEFT
    kept = _statistics(x)
    return meta(x.shape, x.dtype), meta(channels, kept), meta(channels, kept)


def _batch_norm_backward(
    dy: Any, x: Any, weight: Any, mean: Any, var: Any, saved: Any, inverse: Any, train: bool,
    eps: Any, mask: Any,
) -> Any:  # fmt: skip
    if x.dim() < 2 or dy.shape != x.shape or not _dense(dy, x):
        return LEFT
    kept, channels = x.dtype if weight is None else weight.dtype, (x.shape[1],)
    return meta(x.shape, x.dtype), *(meta(channels, kept) if on else None for on in mask[1:])


def _embedding(table: Any, ids: Any, *rest: Any) -> Any:
    if table.dim() != 2 or ids.dtype not in (torch.int64, torch.int32):
        return LEFT
    return meta((*ids.shape, table.shape[1]), table.dtype)


POINTWISE = (
    "abs add.Scalar add.Tensor addcdiv addcmul clamp_min cos div.Scalar div.Tensor elu elu_backward"
    " erf exp gelu gelu_backward hardsigmoid hardsigmoid_backward hardswish hardswish_backward"
    " hardtanh hardtanh_backward leaky_relu leaky_relu_backward log maximum minimum mish"
    " mish_backward mul.Scalar mul.Tensor neg pow.Tensor_Scalar reciprocal relu rsqrt rsub.Scalar"
    " sigmoid sigmoid_backward silu silu_backward sin softplus softplus_backward sqrt sub.Scalar"
    " sub.Tensor tanh tanh_backward threshold threshold_backward"
)
IN_PLACE = (
    "add_.Tensor div_.Tensor elu_ erfinv_ hardswish_ hardtanh_ leaky_relu_ mul_.Tensor relu_"
    " sigmoid_ silu_ sub_.Tensor tanh_"
)
NAMED: tuple[tuple[str, Rule], ...] = (
    (POINTWISE, _pointwise),
    (IN_PLACE, _in_place),
    ("fill_.Scalar normal_ uniform_ zero_", _filled),
    ("empty_like full_like ones_like zeros_like", _like),
    ("new_empty new_full new_ones new_zeros", _new),
    ("clone", _clone),
    ("_to_copy", _to_copy),
    ("bmm mm", _mm),
    ("addmm baddbmm", _addmm),
    ("mean.dim sum.dim_IntList", _reduced),
    ("mean sum", _sum),
    ("_log_softmax _softmax", _softmax),
    ("_log_softmax_backward_data _softmax_backward_data", _softmax_backward),
    ("native_layer_norm", _layer_norm),
    ("native_layer_norm_backward", _layer_norm_backward),
    ("native_batch_norm", _batch_norm),
    ("native_batch_norm_backward", _batch_norm_backward),
    ("embedding", _embedding),
)


def op(name: str) -> Any:
    """The aten op of a name such as `relu` or `add.Tensor`."""
    packet, _, overload = name.partition(".")
    return getattr(getattr(aten, packet), overload or "default")


RULES: dict[Any, Rule] = {op(name): rule for names, rule in NAMED for name in names.split()}
