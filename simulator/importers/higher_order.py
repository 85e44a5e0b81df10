"""Higher-order operators of PyTorch: flex_attention, cond, while_loop, scan, associative_scan.

PyTorch compiles what they are given, and runs one op with graphs as arguments. A trace runs them
as the Python that they stand for: a branch, a loop. flex_attention is one fused kernel, as where it
is compiled, whose executed work is that of the blocks of its mask. Their code is replaced in place,
since modules import them by name.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch.nn.attention.flex_attention as flex
from torch._higher_order_ops.associative_scan import associative_scan as own_associative_scan
from torch._higher_order_ops.associative_scan import generic_associative_scan
from torch._higher_order_ops.map import map as own_map
from torch._higher_order_ops.scan import scan as own_scan
from torch._higher_order_ops.while_loop import while_loop
from torch.utils._pytree import tree_flatten, tree_unflatten

from roofcast.simulator.importers.torch_extra import FakeTensor, torch

LARGEST_MASK = 1 << 26  # scores of the largest mask that is evaluated
UNKNOWN = "flex_attention with a block mask that is not known before it runs: all blocks counted"
KNOWN = "flex_attention: one fused kernel, as torch.compile makes it"

said: dict[str, None] = {}  # what a trace had to assume of these operators

_LIBRARY = torch.library.Library("roofcast", "DEF")
_LIBRARY.define("flex_attention(Tensor q, Tensor k, Tensor v, float share) -> (Tensor, Tensor)")
_LIBRARY.define(
    "flex_attention_backward(Tensor grad, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse,"
    " float share) -> (Tensor, Tensor, Tensor)"
)


def _forward(q, k, v, share):
    rows = q.new_zeros(q.shape[:-1], dtype=torch.float32)
    return q.new_zeros((*q.shape[:-1], v.shape[-1])), rows


def _backward(grad, q, k, v, out, lse, share):
    return torch.zeros_like(q), torch.zeros_like(k), torch.zeros_like(v)


_LIBRARY.impl("flex_attention", _forward, "CompositeExplicitAutograd")
_LIBRARY.impl("flex_attention_backward", _backward, "CompositeExplicitAutograd")


class _Flex(torch.autograd.Function):
    """The fused kernels: they keep q, k, v, the result, and the log-sum-exp of each row."""

    @staticmethod
    def forward(ctx, q, k, v, share):
        out, lse = torch.ops.roofcast.flex_attention(q, k, v, share)
        ctx.save_for_backward(q, k, v, out, lse)
        ctx.share = share
        ctx.mark_non_differentiable(lse)
        return out, lse

    @staticmethod
    def backward(ctx, grad, _):
        saved = ctx.saved_tensors
        return *torch.ops.roofcast.flex_attention_backward(grad, *saved, ctx.share), None


def flex_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    block_mask: Any,
    return_lse: bool,
    aux: Any,
) -> Any:
    """The result of flex_attention, and the statistics that were asked for."""
    said[KNOWN] = None
    out, lse = _Flex.apply(query, key, value, density(block_mask))
    if aux is not None:
        return out, flex.AuxOutput(lse=lse if aux.lse else None, max_scores=None)
    return (out, lse) if return_lse else out


def density(mask: Any) -> float:
    """The share of the blocks of scores that a mask keeps; 1 where it is not known."""
    if mask is None:
        return 1.0
    counts = [mask.kv_num_blocks]
    if mask.full_kv_num_blocks is not None:
        counts.append(mask.full_kv_num_blocks)
    if any(isinstance(t, FakeTensor) for t in counts):
        said[UNKNOWN] = None
        return 1.0
    columns = -(-mask.seq_lengths[1] // mask.BLOCK_SIZE[1])
    with torch.utils._python_dispatch._disable_current_modes():
        kept = sum(float(t.sum()) for t in counts)
    return min(1.0, kept / (counts[0].numel() * columns))


def create_block_mask(own: Callable[..., Any], mask_mod: Any, sizes: tuple, options: dict) -> Any:
    """A block mask with its numbers, where its function needs none of the module's tensors."""
    b, h, rows, columns = sizes
    if (b or 1) * (h or 1) * rows * columns <= LARGEST_MASK:
        with contextlib.suppress(Exception), torch.utils._python_dispatch._disable_current_modes():
            with torch._C.DisableTorchFunction():
                return own(mask_mod, b, h, rows, columns, **{**options, "device": "cpu"})
    return own(mask_mod, b, h, rows, columns, **options)


def cond(predicate: Any, yes: Callable, no: Callable, operands: Any) -> Any:
    """One of two branches."""
    return (yes if bool(predicate) else no)(*operands)


def loop(condition: Callable, body: Callable, carried: Any) -> Any:
    """A body that runs while a condition holds."""
    carried = tuple(carried)
    while bool(condition(*carried)):
        carried = body(*carried)
        carried = tuple(carried) if isinstance(carried, (tuple, list)) else (carried,)
    return carried


def scan(combine: Callable, init: Any, xs: Any, dim: int, reverse: bool) -> Any:
    """A body that runs for every index, carrying a state."""
    leaves, form = tree_flatten(xs)
    steps, carry, outs = range(leaves[0].shape[dim]), init, []
    for step in reversed(steps) if reverse else steps:
        carry, out = combine(carry, tree_unflatten([x.select(dim, step) for x in leaves], form))
        outs.append(tree_flatten(out))
    of = outs[0][1]
    outs = outs[::-1] if reverse else outs
    stacked = [torch.stack(column, 0) for column in zip(*(o[0] for o in outs), strict=True)]
    placed = [torch.movedim(s, 0, dim) if dim < s.dim() else s for s in stacked]
    return carry, tree_unflatten(placed, of)


def associative_scan(
    own: Callable[..., Any], combine: Callable, xs: Any, dim: int, reverse: bool, mode: str
) -> Any:
    """A scan in a logarithmic number of steps, each over all pairs at once."""
    if mode != "pointwise":
        return own(combine, xs, dim, reverse, "generic")
    leaves, form = tree_flatten(xs)
    leaves = [torch.movedim(x, dim, 0) for x in leaves]
    leaves = [x.flip(0) for x in leaves] if reverse else leaves

    def pairs(*flat: Any) -> list[Any]:
        half = len(flat) // 2
        out = combine(
            tree_unflatten(list(flat[:half]), form), tree_unflatten(list(flat[half:]), form)
        )
        return tree_flatten(out)[0]

    found = generic_associative_scan(pairs, leaves, additional_inputs=())
    found = [x.flip(0) for x in found] if reverse else found
    return tree_unflatten([torch.movedim(x, 0, dim) for x in found], form)


def map_over(body: Callable, xs: Any, arguments: tuple) -> Any:
    """A body that runs for every index of the first axis."""
    leaves, form = tree_flatten(xs)
    outs = [
        tree_flatten(body(tree_unflatten([x[i] for x in leaves], form), *arguments))
        for i in range(leaves[0].shape[0])
    ]
    columns = zip(*(o[0] for o in outs), strict=True)
    return tree_unflatten([torch.stack(column) for column in columns], outs[0][1])


# ---------------------------------------------------------------- code that replaces PyTorch's own
# fmt: off
def _flex_attention(query, key, value, score_mod=None, block_mask=None, scale=None,
                    enable_gqa=False, return_lse=False, kernel_options=None, *, return_aux=None):
    import roofcast.simulator.importers.higher_order as run

    return run.flex_attention(query, key, value, block_mask, return_lse, return_aux)
# fmt: on


def _create_block_mask(
    mask_mod: Any, B: Any, H: Any, Q_LEN: int, KV_LEN: int, device: Any = None,
    BLOCK_SIZE: Any = 128, **options: Any,
) -> Any:  # fmt: skip
    import roofcast.simulator.importers.higher_order as run

    options = {"device": device, "BLOCK_SIZE": BLOCK_SIZE, **options}
    sizes = (B, H, Q_LEN, KV_LEN)
    return run.create_block_mask(run.ORIGINAL["create_block_mask"], mask_mod, sizes, options)


def _cond(pred, true_fn, false_fn, operands=()):
    import roofcast.simulator.importers.higher_order as run

    return run.cond(pred, true_fn, false_fn, operands)


def _while_loop(cond_fn, body_fn, carried_inputs):
    import roofcast.simulator.importers.higher_order as run

    return run.loop(cond_fn, body_fn, carried_inputs)


def _scan(combine_fn, init, xs, *, dim=0, reverse=False):
    import roofcast.simulator.importers.higher_order as run

    return run.scan(combine_fn, init, xs, dim, reverse)


def _associative_scan(combine_fn, xs, dim, reverse=False, combine_mode="pointwise"):
    import roofcast.simulator.importers.higher_order as run

    own = run.ORIGINAL["associative_scan"]
    return run.associative_scan(own, combine_fn, xs, dim, reverse, combine_mode)


def _map(f, xs, *args):
    import roofcast.simulator.importers.higher_order as run

    return run.map_over(f, xs, args)


REPLACED: tuple[tuple[Any, Callable], ...] = (
    (flex.flex_attention, _flex_attention),
    (flex.create_block_mask, _create_block_mask),
    (torch.cond, _cond),
    (while_loop, _while_loop),
    (own_scan, _scan),
    (own_associative_scan, _associative_scan),
    (own_map, _map),
)
PARTS = ("__code__", "__defaults__", "__kwdefaults__")
ORIGINAL = {
    f.__name__: types.FunctionType(f.__code__, f.__globals__, f.__name__, f.__defaults__)
    for f in (flex.create_block_mask, own_associative_scan)
}


@contextlib.contextmanager
def as_python() -> Iterator[dict[str, None]]:
    """Inside, these operators run as Python, and nothing is compiled; yields what was assumed."""
    said.clear()
    with contextlib.ExitStack() as stack:
        for function, ours in REPLACED:
            if isinstance(function, types.FunctionType):
                stack.callback(_become, function, [getattr(function, part) for part in PARTS])
                _become(function, [getattr(ours, part) for part in PARTS])
        stack.enter_context(mock.patch.object(torch, "compile", _uncompiled))
        if "torch._dynamo.eval_frame" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        yield said


def _become(function: types.FunctionType, parts: list[Any]) -> None:
    """Give a function another's code and defaults."""
    for name, part in zip(PARTS, parts, strict=True):
        setattr(function, name, part)


def _uncompiled(model: Any = None, **options: Any) -> Any:
    """torch.compile that compiles nothing."""
    return model if model is not None else lambda found: found
