"""Repeated layers of an imported step become one block with a count, as named models have them.

Nothing but the grouping changes: FLOPs, bytes moved, kept bytes and weights stay what they were.
Layers that follow each other become blocks, the units of recomputation, of pipeline stages and of
ZeRO-3's gathers; equal submodules side by side, such as experts, only share their rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from roofcast.simulator.importers.repeats import Member, Run, Steps, containers, runs
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Block, Saved
from roofcast.simulator.work.value import Value

UNNAMED = "layers"  # name of the blocks of a module that is itself a container


def fold(tape: Tape) -> None:
    """Fold the repeated layers that an importer left on the tape, whose counts are all 1."""
    _Folding(tape).run()


def _worth_it(run: Run, of: int) -> bool:
    """Whether a run of equal members of a container of `of` is more than a coincidence.

    Equal ops in a row, such as the convolutions of a VGG stage, are no layers unless most of the
    container is made of them.
    """
    return not all(m.leaf for m in run.unit(0)) or 2 * run.count * run.period > of


class _Folding:
    """What each node becomes: its count, its block, its name, or a repetition of another."""

    def __init__(self, tape: Tape):
        self.tape, self.steps = tape, Steps(tape)
        self.count = [1] * len(tape.nodes)
        self.layer = [0] * len(tape.nodes)
        self.name = [n.name for n in tape.nodes]
        self.first: dict[int, int] = {}  # node -> the node in the first repetition
        self.storages: dict[int, int] = {}  # storage -> the storage in the first repetition

    def run(self) -> None:
        for container, members in containers([n.name for n in self.tape.nodes]).items():
            here = [m for m in members if m.nodes[0] not in self.first]
            if len(here) > 1:
                self._container(container, here)
        self._write()

    # ------------------------------------------------------------------ what is repeated
    def _container(self, container: str, members: list[Member]) -> None:
        """Fold the runs of equal members; other layers in their row become blocks of one."""
        within = self.layer[members[0].nodes[0]]  # inside a block only rows are shared
        found = list(runs(container, members, [self.steps.kind(m) for m in members]))
        repeated = [run for run in found if run.count > 1 and _worth_it(run, len(members))]
        carried = [0.0 if within else self.steps.handed_on(run) for run in repeated]
        for run, bytes_ in zip(repeated, carried, strict=True):
            self._repeat(run, bytes_)
        singles = [m for run in found if run.count == 1 for m in run.members]
        alike = {self.steps.look(m) for run in repeated if run.period == 1 for m in run.unit(0)}
        in_a_row = any(carried)
        for pair in pairwise(members):
            look = self.steps.look(pair[0])
            if look == self.steps.look(pair[1]) and not pair[0].leaf and look not in alike:
                alike.add(look)
                handed = self.steps.handed_on(Run(container, list(pair), 1, 2))
                in_a_row = in_a_row or (not within and handed > 0)
        for member in singles:
            same = self.steps.look(member) in alike  # but for what flows in or out at the ends
            if same:
                self._rename(member, container)
            if in_a_row and (same or not member.leaf) and not self._has_repeats(member):
                block = Block(container or UNNAMED, 1, self.steps.largest_input(member))
                self._into(self._block(block), [member])

    def _rename(self, member: Member, container: str) -> None:
        """Drop the number of a member from the names of its nodes: h.0.fc -> h.fc."""
        for node, inside in zip(member.nodes, member.names, strict=True) if container else ():
            numbered = self.tape.nodes[node].name.removeprefix(f"{container}.")
            outer = self.name[node].removesuffix(numbered)
            self.name[node] = f"{outer}{inside}" if inside else outer.removesuffix(".")

    def _has_repeats(self, member: Member) -> bool:
        """Whether a member has repeated layers of its own."""
        for container, inner in containers(member.names).items():
            own = [Member([member.nodes[i] for i in m.nodes], m.names) for m in inner]
            for run in runs(container, own, [self.steps.kind(m) for m in own]):
                layers = run.count > 1 and _worth_it(run, len(own))
                if layers and self.steps.handed_on(run):
                    return True
        return False

    def _block(self, block: Block) -> int:
        self.tape.blocks.append(block)
        return len(self.tape.blocks) - 1

    def _into(self, block: int, members: Sequence[Member]) -> None:
        for member in members:
            for node in member.nodes:
                self.layer[node] = block

    def _repeat(self, run: Run, carried: float) -> None:
        """The first repetition stands for all; with `carried` bytes between them, as blocks."""
        unit, name = run.unit(0), run.container or UNNAMED
        if carried and (run.period == 1 or all(m.leaf for m in unit)):
            self._into(self._block(Block(name, run.count, carried)), unit)
        elif carried:
            outer = self._block(Block(name, run.count, carried))
            for member in unit:
                block = Block(name, run.count, carried, outer)
                self._into(self._block(block), [member])
        kernels = self.tape.kernels
        mine = self.steps.launched(unit)
        for k in range(1, run.count):
            for ours, theirs in zip(unit, run.unit(k), strict=True):
                self.first.update(zip(theirs.nodes, ours.nodes, strict=True))
            for a, b in zip(mine, self.steps.launched(run.unit(k)), strict=True):
                for v, w in zip(kernels[a].outputs, kernels[b].outputs, strict=True):
                    if v.storage != w.storage:
                        self.storages.setdefault(w.storage, v.storage)
        for member in unit:
            for node in member.nodes:
                self.count[node] *= run.count
            if run.period == 1:
                self._rename(member, run.container)

    # ------------------------------------------------------------------ the folded step
    def _write(self) -> None:
        """Put what stays on the tape."""
        tape = self.tape
        order = self._order()
        self._number_blocks(order)
        place = {node: i for i, node in enumerate(order)}
        nodes = tape.nodes
        tape.nodes[:] = [
            nodes[n]._replace(name=self.name[n], count=self.count[n], layer=self.layer[n])
            for n in order
        ]
        tape.kernels[:] = [
            k._replace(
                node=place[k.node],
                count=k.count * self.count[k.node],
                inputs=tuple(map(self._renamed, k.inputs)),
                outputs=tuple(map(self._renamed, k.outputs)),
            )
            for k in tape.kernels
            if k.node in place
        ]
        tape.weights[:] = [
            w._replace(node=place[w.node], count=w.count * self.count[w.node])
            for w in tape.weights
            if w.node in place
        ]
        self._keep(place)

    def _order(self) -> list[int]:
        """The nodes that stay: those of a block together, those without kernels at their weights'
        submodule. A node that has nothing, as a view, is left out.
        """
        nodes, steps = self.tape.nodes, self.steps
        holding = {self._node(s.node) for s in self.tape.saved.values()}
        stay = [
            n
            for n in range(len(nodes))
            if n not in self.first and (steps.kernels[n] or steps.weights[n] or n in holding)
        ]
        starts: dict[str, int] = {}  # submodule -> its first node with kernels
        for n in stay:
            if steps.kernels[n]:
                parts = nodes[n].name.split(".")
                for j in range(len(parts) + 1):
                    starts.setdefault(".".join(parts[:j]), n)
        key: dict[int, tuple[float, float]] = {}
        for n in stay:
            moved = steps.weights[n] and not steps.kernels[n]
            own = (
                ""
                if nodes[n].op == "parameters" and nodes[n].name == "parameters"
                else nodes[n].name
            )
            at = starts.get(own, n) - 0.5 if moved else float(n)
            key[n] = at, float(n)
        begin: dict[int, float] = {}
        for n in stay:
            if self.layer[n]:
                begin[self.layer[n]] = min(begin.get(self.layer[n], key[n][0]), key[n][0])
        return sorted(stay, key=lambda n: (begin.get(self.layer[n], key[n][0]), key[n]))

    def _number_blocks(self, order: Sequence[int]) -> None:
        """Number the blocks in the order of their ops, those that hold others before these."""
        blocks = self.tape.blocks
        begin = [len(order)] * len(blocks)
        for i, node in reversed(list(enumerate(order))):
            layer = self.layer[node]
            while layer:
                begin[layer], layer = min(begin[layer], i), blocks[layer].within
        begin[0] = -1
        by_place = sorted(range(len(blocks)), key=lambda b: (begin[b], b))
        new = {b: i for i, b in enumerate(by_place)}
        blocks[:] = [blocks[b]._replace(within=new[blocks[b].within]) for b in by_place]
        self.layer = [new[b] for b in self.layer]

    def _renamed(self, v: Value) -> Value:
        storage = self._storage(v.storage)
        if storage == v.storage:
            return v
        out = Value(v.shape, v.dtype, storage, v.grad, v.kind, v.repeats, v.held, v.split)
        out.bytes = v.bytes
        return out

    def _storage(self, storage: int) -> int:
        while storage in self.storages:
            storage = self.storages[storage]
        return storage

    def _node(self, node: int) -> int:
        while node in self.first:
            node = self.first[node]
        return node

    def _keep(self, place: dict[int, int]) -> None:
        """Storages kept for backward: those of all repetitions as one entry with a count."""
        before, after = dict(self.tape.saved), self.tape.saved
        after.clear()
        outside = []
        for storage, s in before.items():
            node = self._node(s.node)
            key = self._storage(storage)
            if self.count[node] == 1:
                outside.append((storage, s))
                continue
            known = after.get(key)
            if known is None:
                after[key] = s._replace(node=place[node])
            elif known.bytes == s.bytes and known.kind == s.kind:
                after[key] = known._replace(count=known.count + s.count)
            else:
                self._apart(storage, s._replace(node=place[node]))
        for storage, s in outside:
            key = self._storage(storage)
            s = s._replace(node=place[self._node(s.node)])
            if key in after:
                self._apart(storage, s)
            else:
                after[key] = s

    def _apart(self, storage: int, s: Saved) -> None:
        """An entry of its own, if its storage is another's already."""
        saved = self.tape.saved
        saved[storage if storage not in saved else -1 - len(saved)] = s
