"""Fusion: a run of pointwise ops, norms and reductions becomes one kernel.

What the run would keep inside for backward is computed again from what is kept outside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.traced import Kept, Kernel
from roofcast.simulator.work.value import Value

FUSIBLE = {"elementwise", "cast", "copy", "reduce", "layer_norm", "softmax", "accumulate"}


def fuse(
    kernels: Sequence[Kernel], saved: Sequence[Kept], share: float, regions: set[int] | None = None
) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Kernels and kept storages under a compiler that fuses the ops between two matrix ops.

    A fused run reads what is computed outside it and writes what is used outside it. It keeps
    nothing inside for backward, only what is needed to compute it again. `share` is the fraction
    of the bytes so saved that the compiler realizes (0.5 fits tuned and XLA training of ResNet-50);
    the remaining fraction is moved as without fusion. `regions` are the nodes that are compiled;
    None: all of them.
    """
    kept = {s.storage: s for s in saved}
    readers: dict[int, set[int]] = {}  # storage -> kernels that read it
    for i, k in enumerate(kernels):
        for v in k.inputs:
            readers.setdefault(v.storage, set()).add(i)
    out: list[Kernel] = []
    for run in _runs(kernels, regions):
        if len(run) == 1:
            out.append(kernels[run[0]])
        else:
            out += _fused({i: kernels[i] for i in run}, readers, kept, share)
    return out, tuple(kept.values())


def _runs(kernels: Sequence[Kernel], regions: set[int] | None) -> Iterator[list[int]]:
    """Indices of the kernels, grouped into maximal fusible runs; any other kernel stands alone."""
    run: list[int] = []
    for i, k in enumerate(kernels):
        fusible = k.kind in FUSIBLE and (regions is None or k.node in regions)
        if run and not (fusible and k.count == kernels[run[0]].count):
            yield run
            run = []
        run.append(i)
        if not fusible:
            yield run
            run = []
    if run:
        yield run


class _Boundary(NamedTuple):
    """Values of the forward kernels of a run, by storage."""

    made: dict[int, Value]  # all outputs of its kernels
    given: dict[int, Value]  # inputs computed outside the run
    results: dict[int, Value]  # outputs that are read outside the run, or by nothing


def _boundary(forward: dict[int, Kernel], readers: dict[int, set[int]]) -> _Boundary:
    made: dict[int, Value] = {}
    given: dict[int, Value] = {}  # also what the run then overwrites in place
    for k in forward.values():
        given.update({v.storage: v for v in k.inputs if v.storage not in made})
        made.update({v.storage: v for v in k.outputs})
    results = {s: v for s, v in made.items() if not readers.get(s) or readers[s] - forward.keys()}
    return _Boundary(made, given, results)


def _fused(
    run: dict[int, Kernel], readers: dict[int, set[int]], kept: dict[int, Kept], share: float
) -> list[Kernel]:
    """The kernels that replace a run: one forward, one backward. Updates `kept`."""
    forward = {i: k for i, k in run.items() if k.phase == "forward"}
    backward = [k for k in run.values() if k.phase == "backward"]
    if len(forward) < 2:
        return list(run.values())
    edge = _boundary(forward, readers)
    _recompute_inside(edge, kept)
    given, results = tuple(edge.given.values()), tuple(edge.results.values())
    read, written = sum(v.bytes for v in given), sum(v.bytes for v in results)
    gradients = sum(v.bytes for v in given if v.grad)
    return [
        *_merged(list(forward.values()), read, written, share, given, results),
        *_merged(backward, written + read, gradients, share),
    ]


def _recompute_inside(edge: _Boundary, kept: dict[int, Kept]) -> None:
    """Keep the inputs or the results of a run in place of values inside it, if they are smaller."""
    inside = [s for s in edge.made if s in kept and s not in edge.results]
    if not inside:
        return
    inputs = [v for s, v in edge.given.items() if s not in kept and v.kind == "activation"]
    results = [v for s, v in edge.results.items() if s not in kept]
    source = min(inputs, results, key=_held) if results else inputs
    if _held(source) >= sum(kept[s].bytes for s in inside):
        return
    template = kept[inside[0]]
    for s in inside:
        del kept[s]
    for v in source:
        kept[v.storage] = template._replace(bytes=v.held, storage=v.storage, kind="activation")


def _held(values: list[Value]) -> float:
    return sum(v.held for v in values)


def _merged(
    kernels: list[Kernel],
    read: float,
    written: float,
    share: float,
    inputs: tuple[Value, ...] = (),
    outputs: tuple[Value, ...] = (),
) -> list[Kernel]:
    """One kernel with the arithmetic of all; none if there are none.

    It moves (1 - share) of their bytes, and `share` of the fused bytes `read` and `written`.
    """
    if not kernels:
        return []
    longest = max(kernels, key=lambda k: k.read + k.written)
    before, after = sum(k.read for k in kernels), sum(k.written for k in kernels)
    merged = longest._replace(
        kind="fused",
        matrix=0,
        vector=sum(k.vector for k in kernels),
        special=sum(k.special for k in kernels),
        read=before - share * max(before - read, 0),
        written=after - share * max(after - written, 0),
        shape=(),
        inputs=inputs,
        outputs=outputs,
    )
    return [merged]
