"""A ResNet traced by PyTorch runs the kernels of the shipped one, under every software stack."""

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
from torch_resnet import RESNETS  # noqa: E402

from roofcast.simulator.importers import from_torch  # noqa: E402
from roofcast.simulator.models.catalog import resolve  # noqa: E402
from roofcast.simulator.software.stack import stack  # noqa: E402
from roofcast.simulator.work.precision import precision  # noqa: E402
from roofcast.simulator.work.step import Recipe, trace  # noqa: E402
from roofcast.simulator.work.tape import Tape  # noqa: E402

pytestmark = pytest.mark.torch
BATCH, SIDE = 16, 96
POINTWISE = "elementwise accumulate fused reduce softmax scatter gather copy".split()
# relative; a trace also counts running statistics, the number of batches and the target of the loss
SMALL = 0.004


def cross_entropy(out):
    target = torch.zeros(out.shape[0], dtype=torch.long, device=out.device)
    return torch.nn.functional.cross_entropy(out, target)


@pytest.fixture(scope="module", params=RESNETS)
def pair(request):
    shape = [f"{BATCH}x3x{SIDE}x{SIDE}"]
    traced = from_torch(RESNETS[request.param](), shape, loss=cross_entropy)
    return traced, resolve(request.param)


def step(model, name, mode):
    recipe = Recipe(
        mode=mode, batch=BATCH, size=SIDE, precision="bf16", recompute="none", stack=stack(name),
        optimizer="sgd" if mode == "train" else None,
    )  # fmt: skip
    return trace(model, recipe)


def moved(found):
    """Bytes by phase and kind of kernel; what a compiler may fuse is one kind."""
    bytes_: dict[tuple[str, str], float] = {}
    for k in found.kernels:
        kind = "pointwise" if k.kind in POINTWISE else k.kind
        key = k.phase, kind
        bytes_[key] = bytes_.get(key, 0) + k.count * (k.read + k.written)
    return bytes_


@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("name", ["pytorch-eager", "pytorch-compiled", "jax-xla"])
def test_a_traced_resnet_moves_the_bytes_of_the_shipped_one(pair, name, mode):
    ours, shipped = (step(model, name, mode) for model in pair)
    one, two = moved(ours), moved(shipped)
    assert one.keys() == two.keys()
    assert one == {key: pytest.approx(n, rel=SMALL) for key, n in two.items()}
    kept = [sum(s.bytes * s.count for s in found.saved) for found in (ours, shipped)]
    assert kept[0] == (pytest.approx(kept[1], rel=2 * SMALL) if name == "jax-xla" else kept[1])


def test_an_engine_folds_the_batch_norms_of_a_traced_resnet_as_those_of_the_shipped_one(pair):
    one, two = (step(model, "nvidia-tuned", "infer") for model in pair)
    assert moved(one) == moved(two)
    assert {k.kind for k in one.kernels} == {"conv", "pool", "reduce", "matmul"}


def kernels(module, shape, training):
    tape = from_torch(module, [shape]).run(Tape(precision("fp32"), training=training), BATCH)
    return [k for k in tape.kernels if k.phase == "forward"]


def test_a_batch_norm_reads_its_input_once_in_inference_and_twice_in_training():
    x = 4 * BATCH * 8 * 32 * 32
    norm, shape = torch.nn.BatchNorm2d(8), f"{BATCH}x8x32x32"
    (k,) = kernels(norm, shape, training=False)
    assert (k.kind, k.written) == ("elementwise", x) and x < k.read < 1.001 * x
    (k,) = [k for k in kernels(norm, shape, training=True) if k.kind == "batch_norm"]
    assert 2 * x < k.read < 2.001 * x


class Frozen(torch.nn.BatchNorm2d):
    """With statistics that do not change, as in the backbones of detectors."""

    def forward(self, x):
        known = self.running_mean, self.running_var, self.weight, self.bias
        return torch.nn.functional.batch_norm(x, *known, training=False)


def test_frozen_statistics_are_not_computed_again_in_training():
    found = kernels(Frozen(8), f"{BATCH}x8x32x32", training=True)
    assert "batch_norm" not in {k.kind for k in found}


@pytest.mark.parametrize("name, positions", [("pytorch-eager", 8), ("pytorch-compiled", 0)])
def test_eager_max_pooling_writes_positions_in_inference_too(pair, name, positions):
    results = BATCH * 64 * (SIDE // 4) ** 2
    for model in pair:
        (k,) = [k for k in step(model, name, "infer").kernels if k.kind == "pool"]
        assert k.written == (2 + positions) * results
