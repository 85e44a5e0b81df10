"""A torch module by file and name or as an object: forecasts, rejections, and no side effects."""

import tracemalloc

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
import torch_nets as nets  # noqa: E402
from counting import imported  # noqa: E402
from torch import nn  # noqa: E402

from roofcast import predict  # noqa: E402
from roofcast.hwdb.errors import RoofcastError  # noqa: E402
from roofcast.simulator import importers  # noqa: E402
from roofcast.simulator.importers import from_torch, spec  # noqa: E402

pytestmark = pytest.mark.torch

FILE = """
import torch
from torch import nn

raised = {raises}

class MyNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]
        self.a, self.b = nn.Linear(48, 4096), nn.Linear(4096, 10)

    def forward(self, x):
        return self.b(torch.relu(self.a(x.flatten(1))))

class Sized(nn.Module):
    def __init__(self, hidden):
        super().__init__()

def make():
    return MyNet()

net = MyNet()
number = 3
"""


LARGE = """
from torch import nn

def make():
    return nn.Sequential(*(nn.Linear(100_000, 100_000) for _ in range(20)))
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_net.py"
    path.write_text(FILE.format(raises="1"))
    return path


@pytest.mark.parametrize("name", ["MyNet", "make", "net"])
def test_a_module_is_forecast_from_a_file_and_a_name(file, name):
    forecast = predict(
        model=f"{file}:{name}", inputs=("8x3x4x4",), device="h100-sxm5", precision="bf16"
    )
    assert (forecast.parameters, forecast.batch) == (48 * 4096 + 4096 + 40960 + 10, 8)
    assert forecast.flops_forward == 2 * 8 * 4096 * 58


def test_a_module_object_is_not_changed_by_a_forecast():
    net = nets.Autocast().eval()
    before = {k: (v, v.clone()) for k, v in net.state_dict(keep_vars=True).items()}
    forecast = predict(net, inputs=[torch.zeros(5, 16)], device="h100-sxm5")
    assert forecast.parameters == sum(p.numel() for p in net.parameters())
    for key, value in net.state_dict(keep_vars=True).items():
        assert value is before[key][0] and value.grad is None and torch.equal(value, before[key][1])
    assert not any(m.training for m in net.modules())
    assert net(torch.zeros(5, 16)).shape == (5, 4)
    assert not torch.is_autocast_enabled("cuda")


def test_counts_scale_with_the_batch_and_the_image():
    net = torch.nn.Conv2d(3, 8, 3)
    counts = [
        predict(net, inputs=["4x3x16x16"], device="h100-sxm5", **more).flops_forward
        for more in ({}, {"batch": 12}, {"image": 30})
    ]
    assert counts[1] == 3 * counts[0] and counts[2] == 4 * counts[0]


def test_inputs_by_name_count_the_same_as_in_order():
    ours, _ = imported(
        from_torch(nets.Tied(), {"labels": "2x9:int64", "ids": torch.zeros(2, 9, dtype=torch.long)})
    )
    assert ours == imported(from_torch(nets.Tied(), ["2x9:int64", "2x9:int64"]))[0]


def test_a_module_too_large_for_this_machine_is_traced(tmp_path):
    path = tmp_path / "large.py"
    path.write_text(LARGE)
    tracemalloc.start()
    forecast = predict(
        model=f"{path}:make", inputs=("2x100000",), device="h100-sxm5", precision="bf16"
    )
    assert forecast.parameters == 20 * (10**10 + 10**5)
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


def test_two_traces_of_a_module_are_equal():
    first, second = (
        imported(from_torch(nets.encoder(), ["2x10x32"]), "amp-bf16") for _ in range(2)
    )
    assert first[0] == second[0]
    kernels = [[(k.kind, k.read, k.written) for k in tape.kernels] for _, tape in (first, second)]
    assert kernels[0] == kernels[1]


def test_an_op_without_a_formula_is_listed_and_costed():
    class Exponential(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(6, 6)

        def forward(self, x):
            return torch.linalg.matrix_exp(self.a(x))

    forecast = predict(Exponential(), inputs=["3x6x6"], device="h100-sxm5", precision="fp32")
    (line,) = [text for text in forecast.assumptions if "without a formula" in text]
    assert "linalg_matrix_exp x" in line and "% of all bytes" in line


def test_flops_that_pytorchs_counter_leaves_out_are_reported():
    forecast = predict(nets.Attention(), inputs=["2x32x32"], device="h100-sxm5")
    assert not [text for text in forecast.assumptions if "flop_counter" in text]
    _, tape = imported(from_torch(nets.Attention(), ["2x32x32"], device="cpu"))
    assert [text for text in tape.assumptions if "not by torch.utils.flop_counter" in text]


def test_a_module_that_depends_on_values_runs_on_real_tensors_and_says_so():
    make, inputs = nets.VALUE_DEPENDENT["routed experts"]
    _, tape = imported(from_torch(make(), inputs))
    (line,) = tape.assumptions
    assert line.startswith("Routed depends on the values of x (torch_nets.py:")
    assert line.endswith("): traced on random ones, with the kernels of a CPU")


def test_inference_keeps_nothing():
    forecast = predict(nets.Inverted(), inputs=["2x8x14x14"], device="h100-sxm5", mode="infer")
    assert forecast.saved_bytes == forecast.flops_backward == 0 < forecast.flops_forward


@pytest.mark.parametrize(
    ("reference", "inputs", "message"),
    [
        ("nowhere.py:MyNet", ("2x48",), "nowhere.py: no such file"),
        ("{file}:MyNett", ("2x48",), "no name 'MyNett' in"),
        ("{file}:Sized", ("2x48",), "needs arguments (hidden)"),
        ("{file}:number", ("2x48",), "is a int; expected a torch.nn.Module"),
        ("{file}", ("2x48",), "no name given"),
        ("{file}:MyNet", (), "inputs are missing"),
        (
            "{file}:MyNet",
            ("2x49",),
            "fails on input 2x49 in layer a, Linear(in_features=48, out_features=4096, bias=True)"
            " given 2x49, at my_net.py:14: RuntimeError",
        ),
        ("{file}:MyNet", ("2x48", "2x48"), "fails on input 2x48, 2x48: TypeError"),
        ("{file}:MyNet", ("2x48", "2x48"), "those of a list, --input xs.0=4x32"),
        ("{file}:MyNet", ("48 wide",), "not a shape"),
        ("{file}:MyNet", ("2x48:complex",), "no format 'complex'"),
        ("{broken}:MyNet", ("2x48",), "not Python at line 1"),
        ("{raising}:MyNet", ("2x48",), "loaded at raising.py:5: ZeroDivisionError"),
    ],
)
def test_a_mistake_is_reported_in_one_line(tmp_path, file, reference, inputs, message):
    broken, raising = tmp_path / "broken.py", tmp_path / "raising.py"
    broken.write_text("class MyNet(\n")
    raising.write_text(FILE.format(raises="1 / 0"))
    model = reference.format(file=file, broken=broken, raising=raising)
    with pytest.raises(RoofcastError) as error:
        predict(model=model, inputs=inputs, device="h100-sxm5")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_inputs_are_parsed_from_text():
    assert spec.parse("ids=64x128:long") == spec.Input("ids", (64, 128), "int64")
    assert importers.claims("a/b.py:Net") and not importers.claims("resnet50")


class Head(nn.Module):
    """A frozen body of sixteen layers and a trained head of 512 x 10 weights and 10 biases."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(*[nn.Linear(512, 512) for _ in range(16)])
        self.head = nn.Linear(512, 10)
        self.body.requires_grad_(False)

    def forward(self, x):
        return self.head(self.body(x))


TRAINED = 512 * 10 + 10


@pytest.mark.parametrize("zero", [None, 0, 1, 2, 3])
def test_frozen_weights_are_held_but_have_no_gradient_no_state_and_no_reduction(zero):
    layout = {} if zero is None else {"devices": 4, "zero": zero}
    f = predict(Head(), inputs=["8x512"], device="h100-sxm5", precision="bf16", **layout)
    shards = {None: (1, 1, 1), 0: (1, 1, 1), 1: (1, 1, 4), 2: (1, 4, 4), 3: (4, 4, 4)}[zero]
    weights = 16 * (512 * 512 + 512) + TRAINED
    held = (f.memory.parameters_bytes, f.memory.gradients_bytes, f.memory.optimizer_bytes)
    assert held[0] == pytest.approx(2 * weights / shards[0])
    # on one device the gradients of the whole head stand at the end of its backward
    assert held[1] <= 2 * TRAINED / shards[1]
    assert held[2] == pytest.approx(4 * TRAINED / shards[2])
    part = 3 / 4  # of a buffer, that a rank of four sends
    if zero in (0, 1, 2):  # gradients reduced, and weights that were updated gathered
        assert f.communication_bytes["data"] == pytest.approx(2 * (2 * TRAINED) * part)
    if zero == 3:  # all weights gathered for both passes; the head's gradients scattered
        sent = (2 * (2 * weights) + 2 * TRAINED) * part
        assert f.communication_bytes["sharded weights"] == pytest.approx(sent)


def test_a_frozen_body_needs_no_gradient_products():
    """Forward of all, backward of the head's weight only: MFU counts what is computed."""
    f = predict(Head(), inputs=["64x512"], device="h100-sxm5", precision="bf16")
    head, body = 2 * 64 * 512 * 10, 16 * 2 * 64 * 512 * 512
    assert (f.flops_forward, f.flops_backward) == (head + body, head)
    assert f.mfu * f.step_time_s * 989.4e12 == pytest.approx(2 * head + body, rel=1e-3)


def test_the_copies_of_an_update_are_of_what_is_trained():
    f = predict(Head(), inputs=["8x512"], device="a100-sxm4-80gb", precision="fp32")
    assert f.memory.transient_bytes < 1e6 < f.memory.parameters_bytes


def test_inference_in_fewer_bits_holds_matrices_of_products_in_them_but_no_tables():
    net = torch.nn.Sequential(
        torch.nn.Embedding(1000, 64), torch.nn.Linear(64, 256), torch.nn.LayerNorm(256)
    )
    narrow = 64 * 256
    wide = 1000 * 64 + 256 + 2 * 256  # table, bias, norm
    for name, width in (("fp8", 1), ("nvfp4", 0.5625)):
        found = predict(net, inputs=["8x16:int64"], device="b200-sxm", mode="infer", precision=name)
        assert found.memory.parameters_bytes == width * narrow + 2 * wide
        assert {p.precision for p in found.points if p.unit == "matrix"} == {name[-3:]}
