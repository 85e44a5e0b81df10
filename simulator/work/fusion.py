"""Fusion: runs of pointwise ops, norms and reductions become one kernel, and recompute their inside
in backward.
"""

from __future__ import annotations

from roofcast.simulator.work.traced import Kernel

FUSIBLE = {"elementwise", "cast", "copy", "reduce", "layer_norm", "softmax", "accumulate"}


def fuse(kernels: list[Kernel], saved, share: float, regions: set[int] | None = None):
    """Kernels and kept tensors of a compiler that fuses every run of non-matrix ops between two
    matrix ops.

    A fused run reads what comes from outside it and writes what is used outside it; nothing inside
    is kept for backward, only what the run needs to be computed again. `share` of the bytes so
    saved are really saved (0.5 fits tuned and XLA training of ResNet-50): the time sees (1 - share)
    of the unfused bytes. `regions`: ops that are compiled, if not all.
    """
    kept = {s.storage: s for s in saved}
    readers: dict[int, list[int]] = {}
    for i, k in enumerate(kernels):
        for v in k.inputs:
            readers.setdefault(v.storage, []).append(i)
    out: list[Kernel] = []
    run: list[int] = []
    for i, k in enumerate([*kernels, None]):
        fusible = k is not None and k.kind in FUSIBLE and (regions is None or k.node in regions)
        if fusible and (not run or k.count == kernels[run[0]].count):
            run.append(i)
            continue
        if run:
            out += _fused([(j, kernels[j]) for j in run], readers, kept, share)
            run = []
        if k is not None:
            if fusible:
                run = [i]
            else:
                out.append(k)
    return out, tuple(kept.values())


def _fused(run, readers, kept, share) -> list[Kernel]:
    forward = [(i, k) for i, k in run if k.phase == "forward"]
    backward = [k for _, k in run if k.phase == "backward"]
    inside = {i for i, _ in forward}
    if len(forward) < 2:
        return [k for _, k in run]
    made = {v.storage: v for _, k in forward for v in k.outputs}
    given = {v.storage: v for _, k in forward for v in k.inputs if v.storage not in made}
    needed = {
        s: v
        for s, v in made.items()
        if not readers.get(s) or any(r not in inside for r in readers[s])
    }
    internal = [s for s in made if s in kept and s not in needed]
    if internal:
        from_inputs = [v for s, v in given.items() if s not in kept and v.kind == "activation"]
        from_outputs = [v for s, v in needed.items() if s not in kept]
        source = (
            min(from_inputs, from_outputs, key=lambda vs: sum(v.held for v in vs))
            if from_outputs
            else from_inputs
        )
        if sum(v.held for v in source) < sum(kept[s].bytes for s in internal):
            template = kept[internal[0]]
            for s in internal:
                del kept[s]
            for v in source:
                kept[v.storage] = template._replace(
                    bytes=v.held, storage=v.storage, kind="activation"
                )
    reads, writes = sum(v.bytes for v in given.values()), sum(v.bytes for v in needed.values())
    gradients = sum(v.bytes for v in given.values() if v.grad)
    return [
        *_one(
            [k for _, k in forward],
            "forward",
            reads,
            writes,
            share,
            tuple(given.values()),
            tuple(needed.values()),
        ),
        *_one(backward, "backward", writes + reads, gradients, share),
    ]


def _one(ks, phase, read, written, share, inputs=(), outputs=()) -> list[Kernel]:
    """One kernel that does the members' arithmetic and moves (1 - share) of their bytes and `share`
    of the fused ones.
    """
    if not ks:
        return []
    longest = max(ks, key=lambda k: k.read + k.written)
    before, after = sum(k.read for k in ks), sum(k.written for k in ks)
    return [
        Kernel(
            longest.node,
            phase,
            "fused",
            longest.product,
            0,
            sum(k.vector for k in ks),
            sum(k.special for k in ks),
            before - share * max(before - read, 0),
            after - share * max(after - written, 0),
            (),
            longest.count,
            inputs,
            outputs,
        )
    ]
