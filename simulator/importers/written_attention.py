"""What a trace says about attention: where the kernel that was asked for does not run."""

from __future__ import annotations

from roofcast.simulator.importers.record import Launch, Record

PASSED_ON = ("elementwise", "cast", "copy")  # kernels whose result is scores if an operand is
EFFICIENT = "_scaled_dot_product_efficient_attention"


def notes(record: Record, asked: str, gpu: bool) -> list[str]:
    """Assumptions about attention. asked: flash, efficient or eager; gpu: dispatched as on one."""
    lines = []
    written = written_out(record)
    if written and asked != "eager":
        where = list(dict.fromkeys(_module(record, n) for n in written))
        more = f" and {len(where) - 3} more" if len(where) > 3 else ""
        lines.append(
            f"attention of {', '.join(where[:3])}{more} is written out in matrix products and a"
            f" softmax: it runs as written, not as {asked} attention; use"
            " scaled_dot_product_attention for that"
        )
    forward = [k for k in record.launches if k.phase == "forward"]
    if gpu and asked == "flash" and any(k.name == EFFICIENT for k in forward):
        count = sum(k.name == EFFICIENT for k in forward)
        lines.append(
            f"scaled_dot_product_attention x{count} runs the efficient kernel: flash attention"
            " takes 16-bit operands, no mask, and heads of at most 256"
        )
    return lines


def written_out(record: Record) -> list[int]:
    """Nodes of the softmaxes between two products of activations.

    Those inside scaled_dot_product_attention, whose node says so, do not count.
    """
    scores: set[int] = set()  # storages computed elementwise from a product of activations
    weights: dict[int, int] = {}  # storages computed elementwise from their softmax -> its node
    found: dict[int, None] = {}
    for k in record.launches:
        if k.phase != "forward" or record.nodes[k.node].op == "attention":
            continue
        read = [v.storage for v in k.inputs]
        results = [v.storage for v in k.outputs]
        if k.work.kind == "matmul":
            found.update((weights[s], None) for s in read if s in weights)
            if _of_activations(k):
                scores.update(results)
        elif k.work.kind == "softmax":
            if scores.intersection(read):
                weights.update((s, k.node) for s in results)
        elif k.work.kind in PASSED_ON:
            if scores.intersection(read):
                scores.update(results)
            of = next((weights[s] for s in read if s in weights), None)
            if of is not None:
                weights.update((s, of) for s in results)
    return list(found)


def _of_activations(k: Launch) -> bool:
    """Whether a product's operands are activations, and neither is a weight."""
    return not any(v.kind in ("parameter", "weight_copy") for v in k.inputs)


def _module(record: Record, node: int) -> str:
    """The submodule in which a node lies, for messages."""
    return record.nodes[node].name.rpartition(".")[0] or "the module"
