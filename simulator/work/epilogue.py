"""Epilogues: in inference, what follows a product or convolution runs in its kernel.

Inference engines fold batch norms into filters, and let the kernel of a convolution or product
apply the activation, add the residual and quantize the result before it writes it. A cast to the
format of the next product is likewise written by whatever kernel computes the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from roofcast.simulator.work.traced import Kernel, Node
from roofcast.simulator.work.value import Value

PRODUCTS = {"conv", "depthwise", "matmul", "sparse_matmul"}
# kernels that can write their result in the format of the next product
WRITERS = PRODUCTS | {"elementwise", "layer_norm", "softmax", "attention", "copy", "reduce", "pool"}
FOLDED = "batch_norm"  # ops whose inference kernel is a scale and a shift of channels begin so


def with_epilogues(
    kernels: Sequence[Kernel],
    nodes: Sequence[Node],
    carried: Mapping[int, int],
    only_quantized: bool,
) -> list[Kernel]:
    """Forward kernels with pointwise kernels moved into the kernel that makes their operand.

    A pointwise kernel moves if it has one result, as large as that operand, and if its other
    operands are there before that kernel runs; a cast moves from any of WRITERS. Nothing is written
    that only the moved kernel reads.

    carried: storage of a repeated block's input -> that of its result.
    only_quantized: move only into convolutions on quantized operands, under stacks that fuse
    nothing else: no library has quantized convolutions without epilogues.
    """
    readers: dict[int, list[int]] = {}
    for i, k in enumerate(kernels):
        for v in k.inputs:
            readers.setdefault(v.storage, []).append(i)
    out: list[Kernel | None] = list(kernels)
    maker: dict[int, int] = {}  # storage -> kernel that wrote it last
    moved: dict[int, int] = {}  # kernel -> the one into which it moved
    for i, k in enumerate(kernels):
        place = _home(k, maker, out)
        into = None if place is None else out[place]
        if place is not None and into is not None and _movable(k, into, only_quantized):
            given = next(v for v in k.inputs if maker.get(v.storage) == place)
            others = [r for r in readers[given.storage] if moved.get(r) != place]
            still = _read_elsewhere(given, k, others, place, i)
            folded = nodes[k.node].op.startswith(FOLDED)
            out[place] = _joined(into, k, given, still, folded)
            out[i] = None
            moved[i] = place
            i = place
        for v in k.outputs:
            maker[v.storage] = i
    if not only_quantized:
        _cast_between_blocks(out, maker, carried)
    return [k for k in out if k is not None]


def _cast_between_blocks(
    out: list[Kernel | None], maker: Mapping[int, int], carried: Mapping[int, int]
) -> None:
    """Casts of the input of a repeated block move to the end of the block before it."""
    for i, k in enumerate(out):
        if k is None or k.kind != "cast" or len(k.inputs) != 1:
            continue
        place = maker.get(carried.get(k.inputs[0].storage, -1))
        into = None if place is None else out[place]
        if place is None or into is None or into.count != k.count or into.kind not in WRITERS:
            continue
        result = k.outputs[0]
        out[place] = into._replace(
            written=into.written + result.bytes, outputs=(*into.outputs, result)
        )
        out[i] = None


def _home(k: Kernel, maker: dict[int, int], out: Sequence[Kernel | None]) -> int | None:
    """Place of the kernel into which k may move: the last of those that make its operands."""
    made = [maker[v.storage] for v in k.inputs if v.storage in maker]
    return max(made) if made else None


def _movable(k: Kernel, into: Kernel, only_quantized: bool) -> bool:
    """Is k a pointwise kernel that the kernel which makes its operand can do?"""
    if k.kind not in ("elementwise", "cast") or len(k.outputs) != 1 or k.count != into.count:
        return False
    made = [v for v in into.outputs if any(v.storage == x.storage for x in k.inputs)]
    if len(made) != 1 or made[0].size != k.outputs[0].size:
        return False
    if only_quantized:
        return into.kind in ("conv", "depthwise") and into.product in ("int8", "fp8")
    return into.kind in (WRITERS if k.kind == "cast" else PRODUCTS)


def _read_elsewhere(v: Value, k: Kernel, readers: list[int], place: int, at: int) -> bool:
    """Does a kernel other than k, which stands at `at`, read what the kernel at `place` made?

    What stands behind a k that works in place reads the result of k.
    """
    in_place = k.outputs[0].storage == v.storage
    others = [i for i in readers if i > place and i != at]
    return any(i < at for i in others) or (bool(others) and not in_place)


def _joined(into: Kernel, k: Kernel, given: Value, still: bool, folded: bool) -> Kernel:
    """The kernel that does the work of both. A folded batch norm is no work."""
    others = tuple(v for v in k.inputs if v.storage != given.storage)
    result = k.outputs[0]
    if folded:
        others = ()
    kept = tuple(v for v in into.outputs if v.storage != given.storage)
    outputs = (*kept, *((given,) if still else ()), result)
    written = into.written - (0.0 if still else given.bytes) + result.bytes
    return into._replace(
        vector=into.vector + (0.0 if folded else k.vector),
        special=into.special + (0.0 if folded else k.special),
        read=into.read + sum(v.bytes for v in others),
        written=written,
        inputs=(*into.inputs, *others),
        outputs=outputs,
    )
