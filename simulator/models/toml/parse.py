"""Reads a TOML list of layers into checked records. Shapes are checked later, when the net runs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from roofcast.hwdb.errors import LISTED, BadInput, listed, quoted, unknown
from roofcast.hwdb.strict import checked, load
from roofcast.simulator.models.toml.keys import Branch, Group, Keys, Layers, Net, Residual
from roofcast.simulator.models.toml.kinds import KINDS

WHAT = "a TOML list of layers"
DEEPEST = 8  # levels of lists within lists


class Layer(NamedTuple):
    """One layer of the file. `parts` are the lists of layers it holds."""

    kind: str
    name: str
    where: str  # file, number and name: the start of every message about the layer
    keys: Keys
    parts: tuple[tuple[Layer, ...], ...] = ()


def parsed(path: Path) -> tuple[Net, tuple[Layer, ...]]:
    """The keys of the file and its layers. Raises BadInput with file, layer and key."""
    net: Net = checked(Net, load(path, WHAT, "layers"), str(path))
    layers = _listed(net.layers, str(path), "")
    if not layers:
        raise BadInput(f"{path}: layers is empty; write at least one [[layers]] table")
    return net, layers


def _listed(raw: Layers, file: str, above: str) -> tuple[Layer, ...]:
    """The layers of one list. A layer without a name is named after its kind and its number."""
    if above.count(".") > DEEPEST:
        raise BadInput(
            f"{file}: layer {above[:-1]} is nested more than {DEEPEST} levels deep; use fewer"
            " levels"
        )
    layers: dict[str, Layer] = {}
    seen: Counter[str] = Counter()
    for index, table in enumerate(raw, 1):
        layer = _layer(dict(table), file, f"{above}{index}", seen)
        if layer.name in layers:
            raise BadInput(
                f"{layer.where}: an earlier layer has this name already; names must differ"
            )
        layers[layer.name] = layer
    return tuple(layers.values())


def _layer(table: dict[str, Any], file: str, index: str, seen: Counter[str]) -> Layer:
    given = table.get("name")
    name = given if isinstance(given, str) else ""
    place = f"{file}: layer {index}" + (f" {quoted(name)}" if name else "")
    kinds = f"kinds: {listed(sorted(KINDS), 2 * LISTED)}"
    if "kind" not in table:
        raise BadInput(f"{place}: kind is missing; {kinds}")
    kind = table.pop("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise BadInput(f"{place}: {unknown('kind', str(kind), KINDS, kinds)}")
    seen[kind] += 1
    if name:
        where = f"{place} ({kind})"
    else:
        name = f"{kind}{seen[kind]}"
        where = f"{place} {quoted(name)}"
    keys: Keys = checked(KINDS[kind].keys, table, where)
    return Layer(kind, name, where, keys, _parts(keys, file, index, where))


def _parts(keys: Keys, file: str, index: str, where: str) -> tuple[tuple[Layer, ...], ...]:
    """The lists that a layer holds; only those of a shortcut and of a branch may be empty."""
    if isinstance(keys, Branch):
        if len(keys.branches) < 2:
            raise BadInput(
                f"{where}: branches has {len(keys.branches)} list; wanted two or more, each a list"
                " of layers"
            )
        lists = enumerate(keys.branches, 1)
        return tuple(_listed(branch, file, f"{index}[{n}].") for n, branch in lists)
    if not isinstance(keys, Group):
        return ()
    if not keys.layers:
        raise BadInput(f"{where}: layers is empty; wanted at least one layer")
    own = _listed(keys.layers, file, f"{index}.")
    if isinstance(keys, Residual):
        return own, _listed(keys.shortcut, file, f"{index}.shortcut.")
    return (own,)
