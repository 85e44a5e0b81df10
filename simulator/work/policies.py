"""Recomputation as frameworks name it (policies.toml): the results of a layer that a policy keeps.

The ops of a layer have roles, by their place in it:

    qkv       products before attention: query, key, value
    context   attention
    attn_out  the product after attention, with the addition to the residual stream
    mlp_in    products of the MLP before its last one; experts and router
    mlp_out   the last product of the MLP, with sums before the residual stream
    other     norms, rotary embedding, activation functions
    carried   the residual stream that the next layer reads: always kept
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import msgspec

from roofcast.hwdb.strict import checked, load
from roofcast.simulator.work.traced import Node

FILE = Path(__file__).with_name("policies.toml")
EXPERTS = ("experts", "router")
ROLES = ("qkv", "context", "attn_out", "mlp_in", "mlp_out", "other")
EVERY_SECOND = "every_second_product"  # in place of roles: the first, third ... product of a layer


class Named(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A policy of a framework."""

    framework: str
    source: str
    keeps: tuple[str, ...] = ()  # roles, or EVERY_SECOND
    offloaded: bool = False  # what is kept is kept in host memory
    is_: str = msgspec.field(name="is", default="")


@functools.cache
def named() -> dict[str, Named]:
    """Every policy of policies.toml."""
    read = load(FILE, "a table of policies")
    return {name: checked(Named, keys, f"{FILE}: {name}") for name, keys in read.items()}


def kept_nodes(nodes: Sequence[Node], keeps: Sequence[str]) -> set[int]:
    """The ops of layers whose results a policy keeps, the residual stream among them.

    keeps: roles, or EVERY_SECOND.
    """
    layers: dict[int, list[int]] = {}
    for i, node in enumerate(nodes):
        if node.layer:
            layers.setdefault(node.layer, []).append(i)
    kept: set[int] = set()
    for members in layers.values():
        roles = _roles([nodes[i] for i in members])
        stays = (*keeps, "carried")
        kept |= {i for i, role in zip(members, roles, strict=True) if role in stays}
        if EVERY_SECOND in keeps:
            kept |= set([i for i in members if nodes[i].op == "linear"][::2])
    return kept


def _roles(nodes: list[Node]) -> list[str]:
    """The role of each op of a layer, in order."""
    attention = [i for i, node in enumerate(nodes) if node.op == "attention"]
    after = attention[-1] if attention else -1
    products = [i for i, node in enumerate(nodes) if node.op == "linear"]
    out = next((i for i in products if i > after >= 0), -1)
    down = max((i for i in products if i > out), default=-1)
    sums = [i for i, node in enumerate(nodes) if node.op == "add"]
    carried = sums[-1] if sums else len(nodes) - 1
    roles = []
    for i, node in enumerate(nodes):
        if i == carried:
            role = "carried"
        elif node.op == "attention":
            role = "context"
        elif node.op in EXPERTS:
            role = "mlp_in"
        elif node.op == "add":
            role = "attn_out" if down < 0 or i < down else "mlp_out"
        elif node.op == "linear":
            before = "qkv" if i < after else "mlp_in"
            role = "attn_out" if i == out else "mlp_out" if i == down else before
        else:
            role = "other"
        roles.append(role)
    return roles
