"""The ready scenarios run as they are, on a CPU, a GPU and a TPU; the one with a mistake is
refused.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from roofcast import predict, scenarios
from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.files import read
from roofcast.simulator import models
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

FOLDER = Path(scenarios.__file__).parent
READY = sorted((FOLDER / "ready").glob("*.toml"))
REFUSED = "cifar10-cnn-wrong-fc"
RUNNING = [path for path in READY if path.stem != REFUSED]
TOO_LARGE = {"gpt3-175b-pretrain", "chatgpt-sized-infer"}

PARAMETERS = {  # by hand: weights and biases, layer by layer
    "cifar10-cnn": 896 + 18_496 + 524_416 + 1_290,
    "cnn-224": 1_792 + 73_856 + (401_408 * 1_024 + 1_024) + 10_250,
    "lenet-cifar": 456 + 2_416 + 48_120 + 10_164 + 850,
    "cnn-224-valid": 896 + 18_496 + (186_624 * 128 + 128) + 129,
    "mnist-cnn": (
        320 + 18_496 + 16_010
    ),  # 34,826, as keras.io/examples/vision/mnist_convnet prints it
    "bilstm-imdb": (
        20_000 * 128 + 2 * 4 * (64 * 128 + 64 * 64 + 128) + 2 * 4 * (64 * 128 + 64 * 64 + 128) + 129
    ),
    "dcgan-generator-step": (
        3_576_704 + 2_765_568
    ),  # generator and discriminator of the PyTorch tutorial
}


@pytest.mark.parametrize("net", PARAMETERS)
def test_parameters_of_the_nets(net):
    tape = models.resolve(str(FOLDER / "nets" / f"{net}.toml")).run(Tape(precision("fp32")), 1)
    assert sum(w.size * w.count for w in tape.weights) == PARAMETERS[net]


def test_gpt3_has_175_billion_parameters():
    tape = models.resolve(str(FOLDER / "nets" / "gpt3-175b.json")).run(Tape(precision("bf16")), 1)
    assert sum(w.size * w.count for w in tape.weights) / 1e9 == pytest.approx(
        175, abs=0.5
    )  # brown2020, Table 2.1


@pytest.mark.parametrize("device", [None, "xeon-8480", "h100-sxm5", "tpu-v4"])
@pytest.mark.parametrize("path", RUNNING, ids=lambda p: p.stem)
def test_a_ready_scenario_runs(path, device):
    scenario = read(path)
    forecast = predict(
        scenario if device is None else msgspec.structs.replace(scenario, device=device)
    )
    assert 0 < forecast.lower_bound_s <= forecast.step_time_s < 86_400
    assert forecast.parameters > 0 and forecast.flops_forward + forecast.flops_other > 0
    assert (forecast.time_to_train_s is None) == (
        scenario.samples is None and scenario.tokens is None
    )
    if device is None:
        assert forecast.memory.fits is (path.stem not in TOO_LARGE)


def test_the_mistaken_one_is_refused_with_both_shapes():
    with pytest.raises(
        BadInput, match=r"layer 8 'fc1' \(linear\): in = 2304 is stated, but 64x8x8 = 4096 arrive"
    ):
        predict(read(FOLDER / "ready" / f"{REFUSED}.toml"))


@pytest.mark.parametrize("path", READY, ids=lambda p: p.stem)
def test_every_ready_scenario_says_what_it_is(path):
    assert path.read_text(encoding="utf-8").startswith("# ")
