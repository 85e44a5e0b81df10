"""One forward of a language model with a cache, as serving engines run it: a list of kernels whose
sizes are affine in the sequences and the new tokens, so that a few traces serve every batch.

Every size of a kernel is a + b S + c T for S sequences and T new tokens; how long the cache is
enters attention alone. Pointwise kernels between two products run as one; products that read the
same tokens (queries, keys and values; gate and up) run as one; routers in two kernels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.fusion import fuse
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.storage import ROUTER, Storage
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Cache, Kernel, Node, Parallel, Traffic, Weight

SIZES = ((2, 512), (4, 512), (2, 1024))  # (sequences, tokens of each) of the traces of a prefill
STEPS = ((8, 1), (16, 1))  # and of a decode step
SAMPLING = 12.0  # bytes that choosing a token moves per logit: softmax and sort in fp32
HELD = ("parameter", "weight_copy")  # kinds of values that a product reads as its weights
PRODUCTS = ("matmul", "expert_matmul")


class Launch(NamedTuple):
    """A kernel, `count` times per forward. Arrays are (constant, per sequence, per new token)."""

    name: str
    op: str
    kind: str  # matmul | expert_matmul | cached_attention | a class of streams
    product: str
    count: int  # type: ignore[assignment]
    shape: tuple  # of a product (batch, m, n, k) with m per `rows`; of attention as its op says
    rows: np.ndarray  # m of a product, or samples of attention
    matrix: np.ndarray  # FLOPs
    vector: np.ndarray
    special: np.ndarray
    moved: np.ndarray  # bytes, without those of weights
    weights: float  # bytes of weights that it reads


class Send(NamedTuple):
    """A collective, `count` times per forward; bytes as `Launch` has them."""

    kind: str  # all_reduce | all_gather | exchange (of tokens between experts)
    count: int  # type: ignore[assignment]
    bytes: np.ndarray
    copies: int  # of a token, in an exchange


class Forward(NamedTuple):
    """One rank's forward."""

    launches: tuple[Launch, ...]
    sends: tuple[Send, ...]
    caches: tuple[Cache, ...]
    states: tuple[Cache, ...]  # per sequence, whatever its length
    weights: tuple[Weight, ...]
    assumptions: tuple[str, ...]
    carried: np.ndarray  # bytes that a layer passes on to the next

    @property
    def kernels(self) -> int:
        """Launches of a forward."""
        return sum(k.count for k in self.launches)


class Formats(NamedTuple):
    """How a model is held and multiplied while it generates."""

    precision: str  # policy of simulator/work/precision.py
    storage: Storage | None = None  # of weights that are stored in fewer bits than they multiply
    absorbed: bool = False  # prompts, too, attend over latents as the cache holds them


def forward(model: Model, phase: str, formats: Formats, parallel: Parallel) -> Forward:
    """A forward of `model` on one rank; phase: prefill | decode. Raises BadInput."""
    sizes = SIZES if phase == "prefill" else STEPS
    tapes = [_run(model, phase, formats, parallel, *size) for size in sizes]
    _check(model, tapes[0])
    lists = [_kernels(tape) for tape in tapes]
    solve = _solver(sizes)
    nodes = tapes[0].nodes
    launches = [_launch(nodes, same, solve) for same in zip(*lists, strict=True)]
    launches.append(_sampling(nodes, launches))
    sends = [
        _send(same, solve)
        for same in zip(*(tape.traffic for tape in tapes), strict=True)
        if not _joined(nodes[same[0].node], same[0])
    ]
    said = (*tapes[0].assumptions,)
    return Forward(
        tuple(launches), tuple(sends), tuple(tapes[0].caches), tuple(tapes[0].states),
        tuple(tapes[0].weights), said,
        solve @ np.array([max(b.carried for b in tape.blocks) for tape in tapes]),
    )  # fmt: skip


def _run(
    model: Model, phase: str, formats: Formats, parallel: Parallel, batch: int, tokens: int
) -> Tape:
    profile = stack("pytorch-compiled")
    how = {**profile.implementations, "scan": "fused", "sinks": "flash"}
    tape = Tape(
        precision(formats.precision), training=False, implementations=how, parallel=parallel
    )
    tape.generates, tape.asked, tape.absorbs = phase, formats.storage, formats.absorbed
    return model.run(tape, batch, tokens)


def _check(model: Model, tape: Tape) -> None:
    """Raises BadInput for a model that does not make token after token from those before."""
    other = {"attention", "conv", "recurrent"} & {k.kind for k in tape.kernels}
    encoder = any(c.tokens is not None for c in tape.caches)
    alone = f"roofcast predict {model.name} --mode infer forecasts one pass"
    if encoder:
        raise BadInput(
            f"{model.name} has an encoder beside its decoder; serving is modelled for decoder-only"
            f" language models; {alone} of both"
        )
    if other or not (tape.caches or tape.states) or tape.headed:
        raise BadInput(
            f"{model.name} is no decoder: it takes a whole input at once and generates no tokens;"
            f" {alone}"
        )


def _solver(sizes: Sequence[tuple[int, int]]) -> np.ndarray:
    """The matrix that turns values at `sizes` into (constant, per sequence, per token)."""
    if len(sizes) == len(STEPS):  # one token a sequence
        rows = np.array([[1.0, batch * tokens] for batch, tokens in sizes])
        a, c = np.linalg.inv(rows)
        return np.array([a, np.zeros(len(sizes)), c])
    return np.linalg.inv(np.array([[1.0, batch, batch * tokens] for batch, tokens in sizes]))


def _kernels(tape: Tape) -> list[Kernel]:
    """The kernels that a serving engine launches."""
    kernels, _ = fuse(tape.kernels, (), 1.0)
    kept = [k for k in kernels if not _made_once(tape.nodes[k.node], k)]
    return _routed(tape.nodes, _joined_products([_cast_before(k) for k in kept]))


def _made_once(node: Node, k: Kernel) -> bool:
    """Tables of rotary embeddings are made once for all forwards, and so are copies of weights."""
    if node.op == "rotary" and not node.layer:
        return True
    return bool(k.outputs) and all(v.kind == "weight_copy" for v in k.outputs)


def _cast_before(k: Kernel) -> Kernel:
    """A kernel without the copies of weights that it makes."""
    made = [v for v in k.outputs if v.kind == "weight_copy"]
    if not made:
        return k
    source = {v.size for v in made}
    read = sum(v.bytes for v in k.inputs if v.kind == "parameter" and v.size in source)
    return k._replace(read=k.read - read, written=k.written - sum(v.bytes for v in made))


def _joined_products(kernels: Sequence[Kernel]) -> list[Kernel]:
    """Products that read the same tokens, one after the other, as one."""
    out: list[Kernel] = []
    for k in kernels:
        last = out[-1] if out else None
        if last is not None and _alike(last, k):
            batch, m, n, deep = last.shape
            out[-1] = last._replace(
                shape=(batch, m, n + k.shape[2], deep),
                matrix=last.matrix + k.matrix,
                read=last.read + k.read - k.inputs[0].bytes,
                written=last.written + k.written,
                inputs=(*last.inputs, *k.inputs[1:]),
                outputs=(*last.outputs, *k.outputs),
            )
        else:
            out.append(k)
    return out


def _alike(a: Kernel, b: Kernel) -> bool:
    """Whether two products read the same tokens and can be one."""
    if a.kind != "matmul" or b.kind != "matmul" or min(len(a.inputs), len(b.inputs)) < 2:
        return False
    weights = a.inputs[1].kind == b.inputs[1].kind == "parameter"
    same = a.inputs[0].storage == b.inputs[0].storage and weights
    size = a.shape[0] == b.shape[0] == 1 and a.shape[1] == b.shape[1] and a.shape[3] == b.shape[3]
    return same and size and a.count == b.count and a.product == b.product


def _routed(nodes: Sequence[Node], kernels: Sequence[Kernel]) -> list[Kernel]:
    """Kernels behind the product of a router as one: scores, the choice, their weights."""
    out: list[Kernel] = []
    behind = None
    for k in kernels:
        if nodes[k.node].op != ROUTER or k.kind in PRODUCTS or k.kind == "cached_attention":
            behind = k.node if nodes[k.node].op == ROUTER else None
        elif behind == k.node and out[-1].kind not in PRODUCTS:
            last = out[-1]
            out[-1] = last._replace(
                vector=last.vector + k.vector, special=last.special + k.special, written=k.written
            )
            continue
        elif behind == k.node:
            k = k._replace(kind="fused")
        out.append(k)
    return out


def _launch(nodes: Sequence[Node], same: Sequence[Kernel], solve: np.ndarray) -> Launch:
    """A kernel of all traces."""
    k, whole = same[0], same[0].kind in PRODUCTS
    read = [sum(v.bytes for v in x.inputs[1:] if v.kind in HELD) if whole else 0.0 for x in same]
    weights = float(read[0])
    moved = [x.read + x.written - r for x, r in zip(same, read, strict=True)]
    product = k.product
    if nodes[k.node].op == ROUTER and product == "fp32" and whole:
        product, weights, moved = "bf16", weights / 2, [bytes_ / 2 for bytes_ in moved]
    rows, shape = _rows(same)
    of = [[getattr(x, field) for x in same] for field in ("matrix", "vector", "special")]
    node = nodes[k.node]
    n, m, v, f, b = (solve @ np.array(values, float) for values in (rows, *of, moved))
    return Launch(node.name, node.op, k.kind, product, k.count, shape, n, m, v, f, b, weights)


def _rows(same: Sequence[Kernel]) -> tuple[list[float], tuple]:
    """The size of a kernel that follows the tokens, in all traces, and its shape with nan in the
    place of that size.
    """
    k = same[0]
    if k.kind == "expert_matmul":
        return [float(x.inputs[0].shape[0]) for x in same], k.shape
    if k.kind == "cached_attention":
        return [float(x.shape[0]) for x in same], k.shape
    if k.kind != "matmul":
        return [0.0] * len(same), ()
    place = 0 if any(x.shape[0] != k.shape[0] for x in same) else 1
    shape = tuple(float("nan") if i == place else size for i, size in enumerate(k.shape))
    return [float(x.shape[place]) for x in same], shape


def _sampling(nodes: Sequence[Node], launches: Sequence[Launch]) -> Launch:
    """The kernel that turns logits into tokens."""
    head = next((k for k in reversed(launches) if k.kind == "matmul"), None)
    logits = float(head.shape[2]) if head is not None else 0.0
    per = np.array([0.0, 1.0, 0.0]) * logits
    none = np.zeros(3)
    shape: tuple = ()
    return Launch(
        "sampling", "sampling", "softmax", "fp32", 1, shape, none, none, 4 * per, per,
        SAMPLING * per, 0.0,
    )  # fmt: skip


def _joined(node: Node, send: Traffic) -> bool:
    """Whether a sum is part of another: shared experts are added before the sum over ranks."""
    return send.kind == "all_reduce" and "shared_expert" in node.name


def _send(same: Sequence[Traffic], solve: np.ndarray) -> Send:
    first = same[0]
    return Send(first.kind, first.count, solve @ np.array([x.bytes for x in same], float),
                first.copies)  # fmt: skip


__all__ = ["Formats", "Forward", "Launch", "Send", "forward"]
