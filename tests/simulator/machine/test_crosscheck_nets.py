"""The numba nets: gradients against finite differences, falling losses, numbers of weights."""

import os
import subprocess
import sys

import numpy as np
import pytest

from roofcast import predict
from roofcast.simulator.machine.crosscheck import nets
from roofcast.simulator.machine.crosscheck.net_list import NETS

NUMBA = [n for n in NETS if n.by == "numba"]
MODELS = {n.model: n.name for n in NUMBA}
# batch and size for the gradient check; (2, 64) for the transformer
SMALL = {"lenet": (2, 32), "mlp": (3, 28), "ncf": (16, None)}


@pytest.mark.parametrize("model", MODELS, ids=MODELS.get)
def test_gradients_match_finite_differences(model):
    """Along a random direction d of each weight, in double precision.

    (loss(w + h d) - loss(w - h d)) / 2h = gradient . d
    """
    state = nets.start(model, np.float64)
    x, labels = nets.data(model, *SMALL.get(model, (2, 64)), np.float64)
    program = nets.PROGRAMS[model]
    _, backward = program(state, x, labels)
    backward()
    gradients = {name: g.copy() for name, g in state.gradients.items()}
    rng = np.random.default_rng(2)
    for name, w in state.weights.items():
        direction = rng.standard_normal(w.shape)
        h = 1e-6
        sides = []
        for sign in (1.0, -1.0):
            w += sign * h * direction
            sides.append(program(state, x, labels)[0])
            w -= sign * h * direction
        slope, wanted = (sides[0] - sides[1]) / (2 * h), float((gradients[name] * direction).sum())
        assert slope == pytest.approx(wanted, rel=1e-4, abs=1e-8), name


@pytest.mark.parametrize("net", NUMBA, ids=lambda n: n.name)
def test_the_loss_falls(net):
    step = nets.build(net._replace(batch=min(net.batch, 64)))
    losses = [step() for _ in range(12)]
    assert all(np.isfinite(losses)) and losses[-1] < 0.98 * losses[0]


def test_two_threads_compute_the_same_losses():
    """Threads share rows of the loops; a process has one number of threads, so this takes two."""
    program = (
        "from roofcast.simulator.machine.crosscheck import nets, net_list as n;"
        "step = nets.build(next(x for x in n.NETS if x.name == 'mlp-numba')._replace(batch=64));"
        "print(*(float(step()) for _ in range(3)))"
    )
    losses = [
        subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"NUMBA_NUM_THREADS": threads},
            capture_output=True, text=True, check=True,
        ).stdout.split()
        for threads in ("1", "2")
    ]  # fmt: skip
    one, two = (np.array([float(x) for x in each]) for each in losses)
    assert len(one) == 3 and one == pytest.approx(two, rel=1e-4)


@pytest.mark.parametrize("net", NUMBA, ids=lambda n: n.name)
def test_the_forecast_counts_the_same_parameters(net):
    size = {} if net.takes == "table" else {net.takes: net.size}
    options = dict(device="i9-10940x", precision="fp32", optimizer=net.optimizer)
    f = predict(model=net.model, batch=net.batch, **options, **size)
    assert f.parameters == sum(w.size for w in nets.start(net.model).weights.values())


def test_the_first_adam_step_moves_by_the_rate():
    p, g = np.array([1.0, -2.0]), np.array([0.5, -0.25])
    m, v = np.zeros(2), np.zeros(2)
    nets.kernels.adam(p, g, m, v, 0.1, 1)
    # against the sign of the gradient [kingma2014, Section 2.1]
    assert p == pytest.approx([0.9, -1.9])
