"""Recomputation: activations dropped after the forward and computed again in backward [chen2016].

none           keep everything
selective      recompute attention: its scores, masks and statistics are not kept [korthikanti2022]
modules:A,B    recompute the parts of each layer whose names contain A or B: modules:mlp,norm; also
               by Megatron's names: core_attn, moe, mla_up_proj
discard:A,B    the same, and what other ops read of these parts is dropped too, and there again
               when backward reaches it: MaxText's remat policies, Megatron's checkpoints without
               output (mla_up_proj, layernorm, moe_act)
full           recompute every layer; keep only the input of each
uniform:N      as full, but keep the input of every Nth layer only and recompute N layers at once
every:N        recompute every Nth layer, and keep everything of the others; selective:N is another
               name for it, of torchtune's and torchtitan's selective checkpointing
block:N        recompute the first N layers of each pipeline stage; keep everything of the others
keep:A,B       keep the results of these ops of every layer, by their roles (policies.py), and
               recompute the rest: keep:qkv,attn_out
NAME           a framework's policy of policies.toml: minimal, save_qkv_proj, selective-ops ...
"""

from __future__ import annotations

import functools
import itertools
from collections import Counter
from collections.abc import Collection, Sequence

from roofcast.hwdb.errors import BadInput, unknown
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.work.policies import EVERY_SECOND, ROLES, kept_nodes, named
from roofcast.simulator.work.traced import Block, Kept, Kernel, Node, layer_order

# Megatron's --recompute-modules -> names, and ops, of parts of a layer
PARTS = {
    "core_attn": ((), ("attention",)),
    "moe": ((), ("experts", "router")),
    "mla_up_proj": (("q_b_proj", "kv_b_proj", "rotary"), ()),
}
KINDS = ("none", "selective", "full", "modules", "discard", "keep", "uniform", "every", "block")
FORMS = (
    "none, selective, full, uniform:N, every:N, block:N, modules:NAME,NAME, discard:NAME,NAME,"
    " keep:ROLE,ROLE, or a framework's: minimal, save_qkv_proj, selective-ops ..."
)


class Policy(NamedTuple):
    """The parsed `recompute` of a scenario."""

    kind: str
    n: int = 1  # layers, for uniform, every and block
    modules: tuple[str, ...] = ()

    @property
    def by_layer(self) -> bool:
        """Whether whole layers are recomputed."""
        return self.kind in ("full", "uniform", "every", "block")

    def layers(self, of: int, stages: int = 1) -> range | list[int]:
        """Which of `of` layers in a row, divided over pipeline stages, are recomputed.

        >>> len(policy("every:2").layers(33)), policy("block:3").layers(8, stages=2)
        (16, [0, 1, 2, 4, 5, 6])
        >>> policy("uniform:4").layers(32)
        range(0, 32)
        """
        if self.kind == "every":
            return range(self.n - 1, of, self.n)
        if self.kind == "block":
            ends = [of * i // stages for i in range(stages + 1)]
            parts = itertools.pairwise(ends)
            return [i for start, end in parts for i in range(start, min(start + self.n, end))]
        return range(of if self.by_layer else 0)

    def keeps_input(self, layer: int) -> bool:
        """Whether a recomputed layer, counted from the first, keeps its input."""
        return self.kind != "uniform" or layer % self.n == 0


@functools.cache
def policy(text: str) -> Policy:
    """Parse the text of a `recompute` option. Raises BadInput or UnknownName.

    >>> policy("block:4")
    Policy(kind='block', n=4, modules=())
    """
    kind, _, rest = text.partition(":")
    if text in named():
        known = named()[text]
        return policy(known.is_) if known.is_ else Policy("keep", modules=known.keeps)
    if kind not in KINDS:
        raise unknown("recompute", text, (*KINDS, *named()), f"known: {FORMS}")
    if kind in ("modules", "discard", "keep"):
        names = tuple(filter(None, (name.strip() for name in rest.split(","))))
        example = "qkv,attn_out" if kind == "keep" else "mlp,norm"
        if not names:
            raise BadInput(f"recompute {text}: name parts of a layer, for example {kind}:{example}")
        for role in names if kind == "keep" else ():
            if role not in (*ROLES, EVERY_SECOND):
                raise unknown(f"recompute {kind}", role, ROLES, f"known: {', '.join(ROLES)}")
        return Policy(kind, modules=names)
    if kind == "selective" and rest.isdecimal() and int(rest) > 0:
        return Policy("every", int(rest))
    if kind not in ("uniform", "every", "block"):
        if rest:
            raise BadInput(f"recompute {text}: {kind} takes no number; known: {FORMS}")
        return Policy(kind)
    if not rest.isdecimal() or int(rest) < 1:
        raise BadInput(
            f"recompute {text}: expected a number of layers of at least 1, for example {kind}:2"
        )
    return Policy(kind, int(rest))


def recomputed(
    nodes: Sequence[Node],
    blocks: Sequence[Block],
    kernels: Sequence[Kernel],
    saved: Sequence[Kept],
    how: str,
    name: str,
    stages: int = 1,
) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Kernels that run again, and the storages that are still kept.

    `how` is the text of a policy, `name` the model's name for messages, and `stages` the number of
    pipeline stages over which the layers are divided. Raises BadInput or UnknownName if the model
    has no such layers or parts.
    """
    p = policy(how)
    if p.by_layer:
        return _layers(nodes, blocks, kernels, saved, p, name, stages)
    return _parts(nodes, kernels, saved, p, name)


def _layers(
    nodes: Sequence[Node],
    blocks: Sequence[Block],
    kernels: Sequence[Kernel],
    saved: Sequence[Kept],
    p: Policy,
    name: str,
    stages: int,
) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Recompute whole layers: a share of the repetitions of each block."""
    of = [node.layer for node in nodes]
    first = {of[i]: i for i in reversed(range(len(nodes)))}  # block -> its first node
    again: Counter[int] = Counter()  # block -> layers that are recomputed
    inputs: Counter[int] = Counter()  # block -> of these, layers that keep their input
    rows = _rows(blocks, first.keys())
    _check_layers(p, name, max(map(len, rows), default=0))
    trained = {of[k.node] for k in kernels if k.phase == "backward"}  # frozen layers keep nothing
    for row in rows:
        for i in p.layers(len(row), stages):
            if row[i] in trained:
                again[row[i]] += 1
                inputs[row[i]] += p.keeps_input(i)
    kept = []
    for s in saved:
        block = of[s.node]
        complete = blocks[block].count - again[block]  # layers that keep everything
        if s.behind is not None and again[block]:  # the output of the last layer, kept anyway
            node, copies = s.behind
            kept.append(s._replace(node=node, count=copies, behind=None))
            s = s._replace(count=s.count - copies, behind=None)
        if complete:
            kept.append(s._replace(count=s.count * complete / blocks[block].count))
    for b in sorted(inputs):
        kept.append(Kept(first[b], blocks[b].carried, inputs[b], "activation", -b))
    runs = [
        k._replace(phase="recompute", count=k.count * again[of[k.node]] // blocks[of[k.node]].count)
        for k in kernels
        if k.phase == "forward" and again[of[k.node]]
    ]
    return runs, tuple(kept)


def needed(again: Sequence[Kernel], saved: Sequence[Kept], kept: Sequence[Kept]) -> list[Kernel]:
    """Of the kernels that run again, those whose results backward reads, or that lead to these: a
    compiler of the whole step removes the others, such as the last product of a layer, whose
    result is the kept input of the next one.

    saved: what backward reads where nothing is recomputed; kept: what is still kept.
    """
    within, there = {k.node for k in again}, {s.storage for s in kept}
    wanted = {
        s.storage
        for s in saved
        if s.behind is None and (s.node in within or s.storage not in there)
    }
    found: list[Kernel] = []
    for k in reversed(again):
        if any(v.storage in wanted for v in k.outputs):
            wanted |= {v.storage for v in k.inputs}
            found.append(k)
    return found[::-1]


def _rows(blocks: Sequence[Block], own: Collection[int]) -> list[list[int]]:
    """The layers of a model, in rows of one name: for every layer the index of its block.

    `own`: blocks that have ops of their own. A layer that is alone in its row is not recomputed.
    """
    rows: dict[str, list[int]] = {}
    for b in layer_order(blocks, own):
        rows.setdefault(blocks[b].name, []).append(b)
    return [row for row in rows.values() if len(row) > 1]


def _check_layers(p: Policy, name: str, most: int) -> None:
    """Raise BadInput unless the model has enough layers in a row (at most `most`)."""
    if not most:
        raise BadInput(f"recompute {p.kind}: {name} has no repeated blocks to recompute; use none")
    if p.n > most:
        raise BadInput(
            f"recompute {p.kind}:{p.n}: {name} has {most} layers in a row; use {p.kind}:{most} or"
            " less"
        )


def _parts(
    nodes: Sequence[Node], kernels: Sequence[Kernel], saved: Sequence[Kept], p: Policy, name: str
) -> tuple[list[Kernel], tuple[Kept, ...]]:
    """Recompute parts of layers: drop what they keep, except what other ops read or write; under
    `discard` also what others keep of their results.
    """
    trained = {nodes[k.node].layer for k in kernels if k.phase == "backward"}
    within = {i for i in _nodes_within(nodes, p, name) if nodes[i].layer in trained}
    results = _results(kernels, within) if p.kind == "keep" else []
    made = {
        v.storage for k in kernels if k.node in within and k.phase == "forward" for v in k.outputs
    }
    dropped = made if p.kind in ("discard", "keep") else set()
    outside = {v.storage for k in kernels if k.node not in within for v in (*k.inputs, *k.outputs)}
    # what runs again gives its own results again; other ops' sums need none of them in backward
    stays = outside - made if p.kind == "keep" else outside
    kept = tuple(
        s for s in saved if (s.storage in stays if s.node in within else s.storage not in dropped)
    )
    runs = [
        k._replace(phase="recompute") for k in kernels if k.node in within and k.phase == "forward"
    ]
    there = {s.storage for s in kept}
    return runs, (*kept, *(s for s in results if s.storage not in there))


def _results(kernels: Sequence[Kernel], within: set[int]) -> list[Kept]:
    """Results of ops outside `within` that ops within read to run again; the input of the first
    of repeated layers stands for the inputs of all.
    """
    read: dict[int, int] = {}  # storage -> how often the op that reads it runs
    for k in kernels:
        for v in k.inputs if k.node in within and k.phase == "forward" else ():
            read[v.storage] = max(read.get(v.storage, 0), k.count)
    found: dict[int, Kept] = {}
    for k in kernels:
        for v in k.outputs if k.phase == "forward" and k.node not in within else ():
            if v.storage in read and v.kind == "activation":
                count = max(k.count, read[v.storage])
                found[v.storage] = Kept(k.node, v.held, count, "activation", v.storage)
    return list(found.values())


def _is_part(node: Node, word: str) -> bool:
    """Whether an op belongs to the part of a layer that a word names."""
    names, ops = PARTS.get(word, ((), ()))
    return word in node.name or node.op in ops or any(n in node.name for n in names)


def _nodes_within(nodes: Sequence[Node], p: Policy, name: str) -> set[int]:
    """Nodes that a policy of parts covers. Raises BadInput or UnknownName if there are none."""
    if p.kind == "selective":
        within = {i for i, node in enumerate(nodes) if node.op == "attention"}
        if not within:
            raise BadInput(
                f"recompute selective: {name} has no attention to recompute; use none or full"
            )
        return within
    if p.kind == "keep":
        kept = kept_nodes(nodes, p.modules)
        within = {i for i, node in enumerate(nodes) if node.layer and i not in kept}
        if not any(nodes[i].op == "linear" for i in (*within, *kept)):
            raise BadInput(
                f"recompute: {name} has no layers of matrix products, whose results a policy could"
                " keep; use none or full"
            )
        return within
    layers = {i: node.name for i, node in enumerate(nodes) if node.layer}
    within = {i for i in layers if any(_is_part(nodes[i], m) for m in p.modules)}
    for module in p.modules:
        if not any(_is_part(nodes[i], module) for i in within):
            parts = sorted({part for of in layers.values() for part in of.split(".")[1:]})
            hint = f"no part of a layer of {name} has a name that contains it"
            raise unknown(f"recompute {p.kind}", module, parts, hint)
    return within
