"""Training steps in numba and numpy: LeNet, an MLP, a small transformer, a recommender.

A program runs forward on a state and returns the loss and the backward function; `build` makes a
training step of it. The forecast knows the same nets (net_list.py), with exactly the same weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from roofcast.simulator.machine.crosscheck import net_kernels as kernels
from roofcast.simulator.machine.crosscheck import net_layers as layers
from roofcast.simulator.machine.crosscheck.net_layers import Back, State
from roofcast.simulator.machine.crosscheck.net_list import SMALL_TRANSFORMER, Net

VOCABULARY, WIDTH, DEPTH, HEADS = 1000, 128, 4, 4  # of small-transformer.toml
USERS, ITEMS, FACTORS = 6040, 3706, 50
IMAGE = 28  # edge of the MLP's images

Layer = Callable[[np.ndarray], tuple[np.ndarray, Back]]
Passed = tuple[float, Callable[[], object]]  # loss, backward
Shapes = dict[str, tuple[int, ...]]


def chain(x: np.ndarray, parts: Sequence[Layer]) -> tuple[np.ndarray, Back]:
    """Layers one after another, and their backward."""
    backs = []
    for part in parts:
        x, back = part(x)
        backs.append(back)

    def backward(dy: np.ndarray) -> np.ndarray:
        for back in reversed(backs):
            dy = back(dy)
        return dy

    return x, backward


def residual(parts: Sequence[Layer]) -> Layer:
    """A layer: x + the chain of the parts."""

    def run(x: np.ndarray) -> tuple[np.ndarray, Back]:
        y, back = chain(x, parts)
        return x + y, lambda dy: dy + back(dy)

    return run


def _conv(state: State, name: str) -> Layer:
    return lambda x: layers.conv(state, name, x)


def _linear(state: State, name: str) -> Layer:
    return lambda x: layers.linear(state, name, x)


def _norm(state: State, name: str) -> Layer:
    return lambda x: layers.layer_norm(state, name, x)


def _attention(state: State, name: str) -> Layer:
    return lambda x: layers.attention(state, name, x, HEADS)


# ------------------------------------------------------------------ programs
def lenet(state: State, x: np.ndarray, labels: np.ndarray) -> Passed:
    """Two 5x5 convolutions with max-pools, three linear layers: x[C, B, H, W]."""
    convs, dense = [_conv(state, f"conv{i}") for i in (1, 2)], _dense(state)
    pooled = [part for conv in convs for part in (conv, layers.relu, layers.max_pool)]
    return _classified(x, [*pooled, layers.flatten, *dense], labels)


def mlp(state: State, x: np.ndarray, labels: np.ndarray) -> Passed:
    """Three linear layers: x[B, 784], hidden width 512, 10 classes."""
    return _classified(x, _dense(state), labels)


def _dense(state: State) -> list[Layer]:
    """Three linear layers with ReLUs between them."""
    fc1, fc2, fc3 = (_linear(state, f"fc{i}") for i in (1, 2, 3))
    return [fc1, layers.relu, fc2, layers.relu, fc3]


def _classified(x: np.ndarray, parts: Sequence[Layer], labels: np.ndarray) -> Passed:
    """The cross-entropy of a chain of layers."""
    logits, back = chain(x, parts)
    loss, start = layers.cross_entropy(logits, labels)
    return loss, lambda: back(start())


def transformer(state: State, ids: np.ndarray, labels: np.ndarray) -> Passed:
    """Pre-norm blocks with learned positions; every position predicts the next token."""
    x, back_words = layers.embedding(state, "words", ids)
    blocks: list[Layer] = []
    for i in range(DEPTH):
        norm1, norm2 = (_norm(state, f"{i}.norm{n}") for n in (1, 2))
        fc1, fc2 = (_linear(state, f"{i}.fc{n}") for n in (1, 2))
        blocks.append(residual([norm1, _attention(state, f"{i}.attn")]))
        blocks.append(residual([norm2, fc1, layers.gelu, fc2]))
    head = [_norm(state, "norm"), _linear(state, "head")]
    logits, back = chain(x + state.weights["places"], [*blocks, *head])
    loss, start = layers.cross_entropy(logits, labels)

    def backward() -> None:
        dx = back(start())
        state.gradients["places"] = dx.sum(0)
        back_words(dx)

    return loss, backward


def ncf(state: State, ids: np.ndarray, labels: np.ndarray) -> Passed:
    """Binary cross-entropy of sigmoid(mean(user item) + both biases): ids [2, B]."""
    (u, back_u), (v, back_v), (bu, back_bu), (bv, back_bv) = (
        layers.embedding(state, name, ids[i])
        for name, i in (("u", 0), ("i", 1), ("ub", 0), ("ib", 1))
    )
    du, dv, db = np.empty_like(u), np.empty_like(v), np.empty_like(bu)
    loss = kernels.dot_sigmoid(u, v, bu, bv, labels, du, dv, db)

    def backward() -> None:
        for back, d in ((back_u, du), (back_v, dv), (back_bu, db), (back_bv, db)):
            back(d)

    return loss, backward


# ------------------------------------------------------------------ weights and data
def shapes(model: str) -> Shapes:
    """The shape of every weight of a net, by name."""
    if model == "lenet":
        convs = {"conv1": (6, 3, 5, 5), "conv2": (16, 6, 5, 5)}
        return weighted(convs | {"fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)})
    if model == "mlp":
        return weighted({"fc1": (512, IMAGE**2), "fc2": (512, 512), "fc3": (10, 512)})
    if model == "ncf":
        return {"u": (USERS, FACTORS), "i": (ITEMS, FACTORS), "ub": (USERS, 1), "ib": (ITEMS, 1)}
    found: Shapes = {"words": (VOCABULARY, WIDTH), "places": (64, WIDTH)}
    for i in range(DEPTH):
        found |= {f"{i}.norm{n}.{part}": (WIDTH,) for n in (1, 2) for part in "wb"}
        found |= weighted({f"{i}.attn.{n}": (WIDTH, WIDTH) for n in ("q", "k", "v", "proj")})
        found |= weighted({f"{i}.fc1": (4 * WIDTH, WIDTH), f"{i}.fc2": (WIDTH, 4 * WIDTH)})
    found |= {"norm.w": (WIDTH,), "norm.b": (WIDTH,)}
    return found | weighted({"head": (VOCABULARY, WIDTH)})


def weighted(weights: Shapes) -> Shapes:
    """Weight (.w) and bias (.b) of layers, from the shapes of their weights."""
    return {
        f"{name}.{part}": shape if part == "w" else shape[:1]
        for name, shape in weights.items()
        for part in "wb"
    }


def start(model: str, dtype: type = np.float32) -> State:
    """Random weights.

    The standard deviation is sqrt(2 / inputs) in nets with ReLU, 0.02 in others; the scales of
    norms are 1, and shifts and biases 0.
    """
    rng = np.random.default_rng(0)
    weights: dict[str, np.ndarray] = {}
    for name, shape in shapes(model).items():
        if len(shape) == 1:
            value = 1.0 if "norm" in name and name.endswith("w") else 0.0
            weights[name] = np.full(shape, value, dtype)
            continue
        deviation = (2.0 / np.prod(shape[1:])) ** 0.5 if model in ("lenet", "mlp") else 0.02
        weights[name] = (deviation * rng.standard_normal(shape)).astype(dtype)
    return State(weights, {}, {})


def data(
    model: str, batch: int, size: int | None, dtype: type = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Random inputs and labels, the same each time; `size` is the edge or the number of tokens."""
    rng = np.random.default_rng(1)
    if model == "ncf":
        ids = np.stack([rng.integers(0, USERS, batch), rng.integers(0, ITEMS, batch)])
        return ids, (rng.random(batch) < 0.5).astype(dtype)
    assert size is not None, "only ncf has no size"
    if model in ("lenet", "mlp"):
        shape = (3, batch, size, size) if model == "lenet" else (batch, size * size)
        return rng.standard_normal(shape).astype(dtype), rng.integers(0, 10, batch)
    return rng.integers(0, VOCABULARY, (batch, size)), rng.integers(0, VOCABULARY, (batch, size))


PROGRAMS: dict[str, Callable[[State, np.ndarray, np.ndarray], Passed]] = {
    "lenet": lenet, "mlp": mlp, "ncf": ncf, str(SMALL_TRANSFORMER): transformer
}  # fmt: skip
RATE = {"sgd": 0.05, "adam": 3e-3}


def build(net: Net) -> Callable[[], float]:
    """A training step of a net: forward, backward and update; returns the loss.

    The step uses the same inputs each time.
    """
    program, state = PROGRAMS[net.model], start(net.model)
    x, labels = data(net.model, net.batch, net.size)
    count = 0

    def step() -> float:
        nonlocal count
        count += 1
        loss, backward = program(state, x, labels)
        backward()
        layers.update(state, net.optimizer, RATE[net.optimizer], count)
        return float(loss)

    return step
