"""Recurrent layers as a GPU's library runs them: one product over all tokens with the input, then
one kernel that walks the tokens.

PyTorch runs cuDNN there, which a build without CUDA lacks; it would run a cell per token instead,
each of a dozen launches. What is kept for backward is what PyTorch's fused cells keep: cuDNN's
reserve space is not documented. See `simulator.work.ops.recurrent`, which states the same work.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from roofcast.simulator.importers.aten_products import PRODUCTS, Called, Work
from roofcast.simulator.importers.torch_extra import F, torch
from roofcast.simulator.work.ops.recurrent import CELLS

NAMES = {"lstm": "lstm", "gru": "gru", "rnn_tanh": "rnn", "rnn_relu": "rnn"}
Op = Callable[..., Any]


def _kept(cell: str, gates: torch.Tensor, hidden: int, steps: int) -> int:
    """Elements that the cells keep, beside the states that are the result."""
    states = gates.numel() // gates.shape[-1] * hidden
    kept = CELLS[cell]
    return states * kept.kept + states // steps * kept.once - states


@torch.library.custom_op("roofcast::recurrent", mutates_args=())
def walk(
    gates: torch.Tensor, weight: torch.Tensor, start: torch.Tensor, cell: str, steps: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """gates [.., G H] of all tokens, weight [G H, H], start [B, H] -> states of all tokens, the
    last state, and what is kept for backward.
    """
    raise NotImplementedError("shapes only")


@walk.register_fake
def _(gates: Any, weight: Any, start: Any, cell: str, steps: int) -> Any:
    hidden = weight.shape[1]
    out = gates.new_empty(*gates.shape[:-1], hidden)
    return out, start.new_empty(start.shape), gates.new_empty(_kept(cell, gates, hidden, steps))


@torch.library.custom_op("roofcast::recurrent_backward", mutates_args=())
def walk_back(
    grad: torch.Tensor,
    kept: torch.Tensor,
    weight: torch.Tensor,
    start: torch.Tensor,
    gates: int,
    cell: str,
    steps: int,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Gradients of the gates, of the weight and of the first state."""
    raise NotImplementedError("shapes only")


@walk_back.register_fake
def _(
    grad: Any, kept: Any, weight: Any, start: Any, gates: int, cell: str, steps: int
) -> tuple[Any, Any, Any]:
    of_gates = grad.new_empty(*grad.shape[:-1], gates)
    return of_gates, torch.empty_like(weight), torch.empty_like(start)


def _setup(ctx: Any, inputs: Any, output: Any) -> None:
    gates, weight, start, ctx.cell, ctx.steps = inputs
    ctx.gates = gates.shape[-1]
    ctx.save_for_backward(output[0], output[2], weight, start)


def _backward(ctx: Any, grad: Any, grad_last: Any, grad_kept: Any) -> Any:
    out, kept, weight, start = ctx.saved_tensors
    grad = torch.empty_like(out) if grad is None else grad
    grads = walk_back(grad, kept, weight, start, ctx.gates, ctx.cell, ctx.steps)
    return *grads, None, None


walk.register_autograd(_backward, setup_context=_setup)


def _work(c: Called) -> list[Work]:
    gates, weight, _, cell, steps = c.args[:5]
    return [_one(gates, weight, CELLS[cell], steps, 1, c.size_of(gates), c.size_of(c.outs[0]))]


def _one(
    gates: Any, weight: Any, cell: Any, steps: int, times: int, held: float, states: float
) -> Work:
    width, hidden = weight.shape
    tokens = prod(gates.shape[:-1])
    size = held / max(prod(gates.shape), 1) * weight.numel()  # bytes of the weight
    passes = steps if times == 1 else 2 * steps - 1  # the first state's gradient is not needed
    read = held + steps * size if times == 1 else 3 * held + states + steps * size
    return Work(
        "recurrent",
        matrix=passes * 2 * (tokens / steps) * width * hidden,
        vector=times * cell.vector * tokens * hidden,
        special=times * cell.special * tokens * hidden,
        shape=(steps, tokens / steps, width, hidden),
        read=read,
        written=states if times == 1 else held + size,
    )


def _work_back(c: Called) -> list[Work]:
    grad, _, weight, _, _, cell, steps = c.args[:7]
    gates = c.outs[0]
    return [_one(gates, weight, CELLS[cell], steps, 2, c.size_of(gates), c.size_of(grad))]


PRODUCTS["recurrent"] = _work
PRODUCTS["recurrent_backward"] = _work_back


def layer(name: str, args: Sequence[Any]) -> Any:
    """What `torch.lstm`, `torch.gru`, `torch.rnn_tanh` and `torch.rnn_relu` return; None for a
    call that the library does not take (a projection of the state).
    """
    lstm = name == "lstm"
    packed = isinstance(args[1], torch.Tensor) and isinstance(args[3], (list, tuple))
    if packed:
        x, sizes, start, weights, bias, layers, dropout, training, both = args[:9]
        steps, batch_first = int(sizes.shape[0]), False
    else:
        x, start, weights, bias, layers, dropout, training, both, batch_first = args[:9]
        steps = x.shape[1 if batch_first else 0]
    per = 4 if bias else 2
    ways = 2 if both else 1
    if len(weights) != per * layers * ways or not steps:
        return None
    states = list(start) if lstm else [start]
    low = torch.is_autocast_enabled("cuda") and torch.get_autocast_dtype("cuda")
    lasts: list[list[torch.Tensor]] = [[] for _ in states]
    for i in range(layers):
        parts = []
        for way in range(ways):
            at = i * ways + way
            w_in, w_state, *rest = weights[at * per : (at + 1) * per]
            if low:
                w_state = w_state.to(low)
            gates = F.linear(x, w_in, rest[0] if rest else None)
            out, last, _ = walk(gates, w_state, states[0][at], NAMES[name], steps)
            parts.append(out)
            for each in lasts:
                each.append(last)
        x = torch.cat(parts, -1) if both else parts[0]
        if dropout and training and i < layers - 1:
            x = F.dropout(x, dropout, True)
    return x, *(torch.stack(each) for each in lasts)
