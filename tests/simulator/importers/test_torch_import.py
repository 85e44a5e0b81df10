"""A module by file and name or in hand: what is asked, what is refused, what is left as it was."""

import tracemalloc

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
import torch_nets as nets  # noqa: E402
from counting import imported  # noqa: E402

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


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "my_net.py"
    path.write_text(FILE.format(raises="1"))
    return path


@pytest.mark.parametrize("name", ["MyNet", "make", "net"])
def test_a_file_and_a_name_make_a_forecast(file, name):
    forecast = predict(
        model=f"{file}:{name}", inputs=("8x3x4x4",), device="h100-sxm5", precision="bf16"
    )
    assert (forecast.parameters, forecast.batch) == (48 * 4096 + 4096 + 40960 + 10, 8)
    assert forecast.flops_forward == 2 * 8 * 4096 * 58


def test_a_module_in_hand_makes_the_same_forecast_and_is_left_as_it_was(file):
    net = nets.Autocast().eval()
    before = {k: (v, v.clone()) for k, v in net.state_dict(keep_vars=True).items()}
    forecast = predict(net, inputs=[torch.zeros(5, 16)], device="h100-sxm5")
    assert forecast.parameters == sum(p.numel() for p in net.parameters())
    for key, value in net.state_dict(keep_vars=True).items():
        assert value is before[key][0] and value.grad is None and torch.equal(value, before[key][1])
    assert not any(m.training for m in net.modules())
    assert net(torch.zeros(5, 16)).shape == (5, 4)
    assert not torch.is_autocast_enabled("cuda")


def test_another_batch_is_traced_anew():
    net = torch.nn.Conv2d(3, 8, 3)
    counts = [
        predict(net, inputs=["4x3x16x16"], device="h100-sxm5", **more).flops_forward
        for more in ({}, {"batch": 12}, {"image": 30})
    ]
    assert counts[1] == 3 * counts[0] and counts[2] == 4 * counts[0]


def test_what_is_fed_by_name():
    ours, _ = imported(
        from_torch(nets.Tied(), {"labels": "2x9:int64", "ids": torch.zeros(2, 9, dtype=torch.long)})
    )
    assert ours == imported(from_torch(nets.Tied(), ["2x9:int64", "2x9:int64"]))[0]


def test_a_module_far_too_large_for_this_machine_is_traced(tmp_path):
    path = tmp_path / "large.py"
    path.write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(*(nn.Linear(100_000, 100_000)"
        " for _ in range(20)))\n"
    )
    tracemalloc.start()
    forecast = predict(
        model=f"{path}:make", inputs=("2x100000",), device="h100-sxm5", precision="bf16"
    )
    assert forecast.parameters == 20 * (10**10 + 10**5)
    assert tracemalloc.get_traced_memory()[1] < 1e8
    tracemalloc.stop()


def test_counts_do_not_change_from_one_trace_to_the_next():
    first, second = (
        imported(from_torch(nets.encoder(), ["2x10x32"]), "amp-bf16") for _ in range(2)
    )
    assert first[0] == second[0]
    assert [(k.kind, k.read, k.written) for k in first[1].kernels] == [
        (k.kind, k.read, k.written) for k in second[1].kernels
    ]


def test_an_op_without_a_formula_is_listed_and_costed():
    class Inverse(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = torch.nn.Linear(6, 6)

        def forward(self, x):
            return torch.linalg.inv(self.a(x))

    forecast = predict(Inverse(), inputs=["3x6x6"], device="h100-sxm5", precision="fp32")
    (line,) = [said for said in forecast.assumptions if "without a formula" in said]
    assert "linalg_inv_ex x1" in line and "% of all bytes" in line


def test_flops_that_the_counter_of_pytorch_leaves_out_are_said():
    forecast = predict(nets.Attention(), inputs=["2x32x32"], device="h100-sxm5")
    assert not [said for said in forecast.assumptions if "leaves out" in said]
    _, tape = imported(from_torch(nets.Attention(), ["2x32x32"], device="cpu"))
    assert [said for said in tape.assumptions if "flop_counter leaves out" in said]


def test_a_module_that_looks_at_its_numbers_says_so():
    make, inputs = nets.NUMBERS["routed experts"]
    _, tape = imported(from_torch(make(), inputs))
    assert tape.assumptions == [
        "Routed looks at its numbers: traced on random ones, with the kernels of a CPU"
    ]


def test_inference_keeps_nothing():
    forecast = predict(nets.Inverted(), inputs=["2x8x14x14"], device="h100-sxm5", mode="infer")
    assert forecast.saved_bytes == forecast.flops_backward == 0 < forecast.flops_forward


@pytest.mark.parametrize(
    ("reference", "inputs", "said"),
    [
        ("nowhere.py:MyNet", ("2x48",), "nowhere.py: no such file"),
        ("{file}:MyNett", ("2x48",), "no name 'MyNett' in"),
        ("{file}:Sized", ("2x48",), "needs arguments (hidden)"),
        ("{file}:number", ("2x48",), "is a int; a torch.nn.Module"),
        ("{file}", ("2x48",), "which of it?"),
        ("{file}:MyNet", (), "what does it take?"),
        ("{file}:MyNet", ("2x49",), "fails on input 2x49: RuntimeError"),
        ("{file}:MyNet", ("2x48", "2x48"), "fails on input 2x48, 2x48: TypeError"),
        ("{file}:MyNet", ("48 wide",), "not a shape"),
        ("{file}:MyNet", ("2x48:complex",), "no format 'complex'"),
        ("{broken}:MyNet", ("2x48",), "not Python at line 1"),
        ("{raising}:MyNet", ("2x48",), "fails when it is loaded: ZeroDivisionError"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, file, reference, inputs, said):
    broken, raising = tmp_path / "broken.py", tmp_path / "raising.py"
    broken.write_text("class MyNet(\n")
    raising.write_text(FILE.format(raises="1 / 0"))
    with pytest.raises(RoofcastError) as error:
        predict(
            model=reference.format(file=file, broken=broken, raising=raising),
            inputs=inputs,
            device="h100-sxm5",
        )
    assert said in str(error.value) and "\n" not in str(error.value)


def test_shapes_as_text():
    assert spec.parse("ids=64x128:long") == spec.Input("ids", (64, 128), "int64")
    assert importers.claims("a/b.py:Net") and not importers.claims("resnet50")
