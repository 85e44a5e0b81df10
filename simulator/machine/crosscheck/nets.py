"""Training steps in numba and numpy: LeNet, an MLP, a small transformer, neural collaborative
filtering.

A program runs forward on a state and gives the loss and the way back; `build` makes a step of it.
The same nets are known to the forecast (`net_list`), with the same weights to the last one.
"""

from __future__ import annotations

import numpy as np

from roofcast.simulator.machine.crosscheck import net_kernels as kernels
from roofcast.simulator.machine.crosscheck import net_layers as layers
from roofcast.simulator.machine.crosscheck.net_layers import State
from roofcast.simulator.machine.crosscheck.net_list import SMALL_TRANSFORMER, Net

VOCABULARY, WIDTH, DEPTH, HEADS = 1000, 128, 4, 4  # of small-transformer.toml
USERS, ITEMS, FACTORS = 6040, 3706, 50


def chain(x, parts):
    """Layers one after another, and their way back."""
    backs = []
    for part in parts:
        x, back = part(x)
        backs.append(back)

    def backward(dy):
        for back in reversed(backs):
            dy = back(dy)
        return dy

    return x, backward


def named(state: State, kind, name: str, *more):
    """A layer with weights as a part of a chain."""
    return lambda x: kind(state, name, x, *more)


# ------------------------------------------------------------------ programs: (state, inputs,
# labels) -> loss, backward
def lenet(state: State, x, labels):
    """Two 5x5 convolutions with pools, three dense layers. x[C, B, H, W]."""
    logits, back = chain(
        x,
        [
            named(state, layers.conv, "conv1"),
            layers.relu,
            layers.max_pool,
            named(state, layers.conv, "conv2"),
            layers.relu,
            layers.max_pool,
            layers.flatten,
            named(state, layers.linear, "fc1"),
            layers.relu,
            named(state, layers.linear, "fc2"),
            layers.relu,
            named(state, layers.linear, "fc3"),
        ],
    )
    loss, start = layers.cross_entropy(logits, labels)
    return loss, lambda: back(start())


def mlp(state: State, x, labels):
    """784, 512, 512, 10."""
    fc = [named(state, layers.linear, f"fc{i}") for i in (1, 2, 3)]
    logits, back = chain(x, [fc[0], layers.relu, fc[1], layers.relu, fc[2]])
    loss, start = layers.cross_entropy(logits, labels)
    return loss, lambda: back(start())


def residual(parts):
    """x + the chain of the parts."""

    def run(x):
        y, back = chain(x, parts)
        return x + y, lambda dy: dy + back(dy)

    return run


def transformer(state: State, ids, labels):
    """Pre-norm blocks over learned places; every position says the next word."""
    x, back_words = layers.embedding(state, "words", ids)
    blocks = []
    for i in range(DEPTH):
        norm1, norm2 = (named(state, layers.layer_norm, f"{i}.norm{n}") for n in (1, 2))
        fc1, fc2 = (named(state, layers.linear, f"{i}.fc{n}") for n in (1, 2))
        blocks += [
            residual([norm1, named(state, layers.attention, f"{i}.attn", HEADS)]),
            residual([norm2, fc1, layers.gelu, fc2]),
        ]
    logits, back = chain(
        x + state.weights["places"],
        [*blocks, named(state, layers.layer_norm, "norm"), named(state, layers.linear, "head")],
    )
    loss, start = layers.cross_entropy(logits, labels)

    def backward():
        dx = back(start())
        state.gradients["places"] = dx.sum(0)
        back_words(dx)

    return loss, backward


def ncf(state: State, ids, wanted):
    """sigmoid(mean(user item) + both biases), binary cross-entropy."""
    (u, back_u), (v, back_v), (bu, back_bu), (bv, back_bv) = (
        layers.embedding(state, name, ids[i])
        for name, i in (("u", 0), ("i", 1), ("ub", 0), ("ib", 1))
    )
    du, dv, db = np.empty_like(u), np.empty_like(v), np.empty_like(bu)
    loss = kernels.dot_sigmoid(u, v, bu, bv, wanted, du, dv, db)

    def backward():
        for back, d in ((back_u, du), (back_v, dv), (back_bu, db), (back_bv, db)):
            back(d)

    return loss, backward


# ------------------------------------------------------------------ weights and data
def shapes(model: str) -> dict[str, tuple[int, ...]]:
    """Every weight of a net by name."""
    if model == "lenet":
        fc = {"fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}
        return {
            "conv1.w": (6, 3, 5, 5),
            "conv1.b": (6,),
            "conv2.w": (16, 6, 5, 5),
            "conv2.b": (16,),
        } | dense(fc)
    if model == "mlp":
        return dense({"fc1": (512, 784), "fc2": (512, 512), "fc3": (10, 512)})
    if model == "ncf":
        return {"u": (USERS, FACTORS), "i": (ITEMS, FACTORS), "ub": (USERS, 1), "ib": (ITEMS, 1)}
    found = {"words": (VOCABULARY, WIDTH), "places": (64, WIDTH)}
    for i in range(DEPTH):
        found |= {f"{i}.norm{n}.{part}": (WIDTH,) for n in (1, 2) for part in "wb"}
        found |= dense({f"{i}.attn.{n}": (WIDTH, WIDTH) for n in ("q", "k", "v", "proj")})
        found |= dense({f"{i}.fc1": (4 * WIDTH, WIDTH), f"{i}.fc2": (WIDTH, 4 * WIDTH)})
    return found | {"norm.w": (WIDTH,), "norm.b": (WIDTH,)} | dense({"head": (VOCABULARY, WIDTH)})


def dense(layers_: dict[str, tuple[int, int]]) -> dict[str, tuple[int, ...]]:
    """Weight and bias of linear layers."""
    return {
        f"{name}.{part}": shape if part == "w" else shape[:1]
        for name, shape in layers_.items()
        for part in "wb"
    }


def start(model: str, dtype=np.float32) -> State:
    """Random weights: deviation sqrt(2 / inputs) in layers with relu, 0.02 elsewhere; norms are one
    and zero, biases zero.
    """
    rng = np.random.default_rng(0)
    weights = {}
    for name, shape in shapes(model).items():
        if len(shape) == 1:
            weights[name] = np.full(
                shape, 1.0 if "norm" in name and name.endswith("w") else 0.0, dtype
            )
            continue
        deviation = (2.0 / np.prod(shape[1:])) ** 0.5 if model in ("lenet", "mlp") else 0.02
        weights[name] = (deviation * rng.standard_normal(shape)).astype(dtype)
    return State(weights, {}, {})


def data(model: str, batch: int, size: int | None, dtype=np.float32):
    """Random inputs and labels, the same each time."""
    rng = np.random.default_rng(1)
    if model == "lenet":
        return rng.standard_normal((3, batch, size, size)).astype(dtype), rng.integers(0, 10, batch)
    if model == "mlp":
        return rng.standard_normal((batch, size * size)).astype(dtype), rng.integers(0, 10, batch)
    if model == "ncf":
        ids = np.stack([rng.integers(0, USERS, batch), rng.integers(0, ITEMS, batch)])
        return ids, (rng.random(batch) < 0.5).astype(dtype)
    return rng.integers(0, VOCABULARY, (batch, size)), rng.integers(0, VOCABULARY, (batch, size))


PROGRAMS = {"lenet": lenet, "mlp": mlp, "ncf": ncf, str(SMALL_TRANSFORMER): transformer}
RATE = {"sgd": 0.05, "adam": 3e-3}


def build(net: Net):
    """step() of a net: forward, backward and update on the same inputs each time; returns the
    loss.
    """
    program, state, (x, labels) = (
        PROGRAMS[net.model],
        start(net.model),
        data(net.model, net.batch, net.size),
    )
    count = 0

    def step() -> float:
        nonlocal count
        count += 1
        loss, backward = program(state, x, labels)
        backward()
        layers.update(state, net.optimizer, RATE[net.optimizer], count)
        return float(loss)

    return step
