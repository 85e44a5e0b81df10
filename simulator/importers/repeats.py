"""Repeated layers of an imported step: submodules under numbers, such as layers.0 .. layers.31.

Two submodules are the same layer if they do the same: the same ops under the same names, kernels
with the same work on tensors of the same shapes, and weights of the same sizes.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.value import Value

LONGEST_PERIOD = 8  # layers of different kinds that alternate


class Member(NamedTuple):
    """A numbered submodule: its nodes, and their names within it ("" if it is a node itself)."""

    nodes: list[int]
    names: list[str]

    @property
    def leaf(self) -> bool:
        """Whether it is one op."""
        return self.names == [""]


class Run(NamedTuple):
    """Consecutive submodules of a container: `period` different ones, `count` times in a row."""

    container: str  # "" for the module itself
    members: list[Member]
    period: int
    count: int  # type: ignore[assignment]

    def unit(self, k: int) -> list[Member]:
        """The members of repetition number k."""
        return self.members[k * self.period : (k + 1) * self.period]


class Kinds:
    """Numbers of kinds: equal values have the same number."""

    def __init__(self) -> None:
        self.known: dict[Hashable, int] = {}

    def of(self, value: Hashable) -> int:
        """The number of a value's kind."""
        return self.known.setdefault(value, len(self.known))


class Steps:
    """An imported step, whose kernels and weights are looked up by node."""

    def __init__(self, tape: Tape):
        self.tape = tape
        self.kernels: list[list[int]] = [[] for _ in tape.nodes]
        self.weights: list[list[int]] = [[] for _ in tape.nodes]
        self._kinds = Kinds()
        self._of_kernel = []
        for i, k in enumerate(tape.kernels):
            self.kernels[k.node].append(i)
            values = tuple(map(_form, k.inputs)), tuple(map(_form, k.outputs))
            self._of_kernel.append(self._kinds.of((*k[1:10], *values)))
        for i, w in enumerate(tape.weights):
            self.weights[w.node].append(i)

    def kind(self, member: Member) -> int:
        """The number of the kind of layer that a member is."""
        place = {node: i for i, node in enumerate(member.nodes)}
        kernels = tuple(
            (place[self.tape.kernels[i].node], self._of_kernel[i]) for i in self.launched([member])
        )
        return self._kinds.of((self.look(member), kernels))

    def look(self, member: Member) -> int:
        """The number of its kind by names, ops and weights alone."""
        nodes, weights = self.tape.nodes, self.tape.weights
        named = tuple(
            (name, nodes[n].op, *(weights[w][1:] for w in self.weights[n]))
            for n, name in zip(member.nodes, member.names, strict=True)
        )
        return self._kinds.of(named)

    def launched(self, members: Sequence[Member]) -> list[int]:
        """Indices of the kernels of members, in order."""
        return sorted(i for m in members for n in m.nodes for i in self.kernels[n])

    def handed_on(self, run: Run) -> float:
        """Bytes that the first repetition of a run passes to the second; 0 if they are parallel.

        Ops between the two, of the module around them, pass on what they read.
        """
        first, second = self.launched(run.unit(0)), set(self.launched(run.unit(1)))
        if not first or not second:
            return 0.0
        own, made, read = set(first), set(), {}
        for i in range(first[0], max(second) + 1):
            k = self.tape.kernels[i]
            if k.phase != "forward":
                continue
            if i in own:
                made |= {v.storage for v in k.outputs}
            elif i in second:
                read.update({v.storage: v.bytes for v in k.inputs if v.storage in made})
            elif any(v.storage in made for v in k.inputs):
                made |= {v.storage for v in k.outputs}
        return float(sum(read.values()))

    def largest_input(self, member: Member) -> float:
        """Bytes of the largest activation that a member reads and does not compute itself."""
        made: set[int] = set()
        largest = 0.0
        for i in self.launched([member]):
            k = self.tape.kernels[i]
            for v in k.inputs:
                if v.kind in ("activation", "input") and v.storage not in made:
                    largest = max(largest, v.bytes)
            made |= {v.storage for v in k.outputs}
        return largest


def _form(v: Value) -> tuple:
    return v.shape, v.dtype, v.grad, v.kind


def containers(names: Sequence[str]) -> dict[str, list[Member]]:
    """The numbered submodules of every container, by the container's name; outer ones first.

    >>> containers(["h.0.fc", "h.1.fc", "head"])
    {'h': [Member(nodes=[0], names=['fc']), Member(nodes=[1], names=['fc'])]}
    """
    found: dict[tuple[str, ...], dict[int, Member]] = {}
    for node, name in enumerate(names):
        parts = tuple(name.split("."))
        for j, part in enumerate(parts):
            if part.isdecimal():
                members = found.setdefault(parts[:j], {})
                member = members.setdefault(int(part), Member([], []))
                member.nodes.append(node)
                member.names.append(".".join(parts[j + 1 :]))
    return {
        ".".join(container): [members[i] for i in sorted(members)]
        for container, members in sorted(found.items(), key=lambda item: len(item[0]))
        if len(members) > 1
    }


def runs(container: str, members: list[Member], kinds: Sequence[int]) -> Iterator[Run]:
    """The members of a container in order, cut into runs of equal ones. kinds: of each member.

    >>> members = [Member([i], [""]) for i in range(5)]
    >>> [(run.period, run.count) for run in runs("", members, [1, 2, 1, 2, 3])]
    [(2, 2), (1, 1)]
    """
    i = 0
    while i < len(members):
        period, count = 1, 1
        for p in range(1, min(LONGEST_PERIOD, (len(members) - i) // 2) + 1):
            n = 1
            while kinds[i + n * p : i + (n + 1) * p] == kinds[i : i + p]:
                n += 1
            if n > 1 and n * p > period * count:
                period, count = p, n
        yield Run(container, members[i : i + period * count], period, count)
        i += period * count
