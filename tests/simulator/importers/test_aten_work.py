"""FLOPs of ops that PyTorch's counters leave out, and what is said of attention."""

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
import torch.nn.functional as F  # noqa: E402
import torch_layers as layered  # noqa: E402
import torch_nets as nets  # noqa: E402
from counting import imported  # noqa: E402

from roofcast.simulator.importers import from_torch  # noqa: E402
from roofcast.simulator.work.precision import precision  # noqa: E402
from roofcast.simulator.work.tape import Tape  # noqa: E402

pytestmark = pytest.mark.torch


class Calls(torch.nn.Module):
    """A function of inputs, to whose first a parameter of its last axis is added."""

    def __init__(self, call, width):
        super().__init__()
        self.call, self.shift = call, torch.nn.Parameter(torch.zeros(width))

    def forward(self, x, *rest):
        return self.call(x + self.shift, *rest)


def forward(call, *inputs, what="matrix"):
    net = Calls(call, int(inputs[0].split("x")[-1]))
    tape = from_torch(net, inputs).run(Tape(precision("fp32")), int(inputs[0].split("x")[0]))
    own = [k for k in tape.kernels if k.phase == "forward" and tape.nodes[k.node].op != "loss"]
    return sum(getattr(k, what) for k in own), tape


def test_a_bilinear_layer_is_two_products():
    n, one, two, out = 4, 20, 30, 40
    net = torch.nn.Bilinear(one, two, out)
    counts, tape = imported(from_torch(net, [f"{n}x{one}", f"{n}x{two}"]))
    assert counts.forward == 2 * n * out * one * two + 2 * n * out * two == 201_600
    assert counts.backward >= 2 * n * out * one * two
    assert not any("without a formula" in text for text in tape.assumptions)
    (line,) = [text for text in tape.assumptions if "flop_counter" in text]
    assert "_trilinear" in line and "_trilinear 0" not in line


def test_distances_are_a_product_of_many_rows_and_pairs_of_few():
    flops, _ = forward(torch.cdist, "2x50x7", "2x60x7")
    assert flops == 2 * 2 * 50 * 60 * 7
    few, tape = forward(torch.cdist, "2x5x7", "2x6x7")
    assert few == 0
    pairs = {k.phase for k in tape.kernels if k.vector == 3 * 2 * 5 * 6 * 7}
    assert pairs == {"forward", "backward"}


def test_a_matrix_times_a_vector_is_a_product():
    assert forward(lambda m, v: m @ v, "40x30", "30")[0] == 2 * 40 * 30
    assert forward(torch.addbmm, "4x6", "3x4x5", "3x5x6")[0] == 2 * 3 * 4 * 5 * 6


@pytest.mark.parametrize(
    ("call", "inputs", "flops"),
    [
        (torch.linalg.inv, ["2x12x12"], 2 * 2 * 12**3),
        (torch.linalg.cholesky, ["2x12x12"], 2 * 12**3 / 3),
        (torch.linalg.solve, ["12x12", "12x5"], 2 * 12**3 / 3 + 2 * 12**2 * 5),
        (torch.linalg.qr, ["20x12"], 4 * 12**2 * (20 - 4)),
        (lambda a, b: torch.linalg.solve_triangular(a, b, upper=False), ["12x12", "12x5"], 720),
    ],
)
def test_factorizations_cost_what_lapack_computes(call, inputs, flops):
    vector, tape = forward(call, *inputs, what="vector")
    assert flops <= vector <= flops + 4 * 2 * 20 * 12  # and elementwise ops around it
    assert not any("without a formula" in text for text in tape.assumptions)


def attention_kernels(make, inputs, how, device="gpu", numbers="bf16"):
    model = from_torch(make(), inputs, device=device)
    tape = Tape(precision(numbers), implementations={"attention": how})
    model.run(tape, model.batch, model.size)
    return sum(k.kind == "attention" for k in tape.kernels), tape


@pytest.mark.parametrize("device", ["gpu", "cpu"])
def test_the_attention_asked_for_runs_where_a_module_leaves_it_open(device):
    numbers = "bf16" if device == "gpu" else "fp32"
    fused, tape = attention_kernels(nets.Attention, ["2x32x32"], "flash", device, numbers)
    assert fused == 2 and not any("written out" in text for text in tape.assumptions)
    composed, tape = attention_kernels(nets.Attention, ["2x32x32"], "eager", device, numbers)
    assert composed == 0 and not any("written out" in text for text in tape.assumptions)
    assert [n.op for n in tape.nodes].count("attention") == 1


@pytest.mark.parametrize(
    ("make", "inputs", "written"),
    [
        (lambda: layered.Gpt(written=True), ["2x32:int64"], "attention of h.0, h.1, h.2 and 2"),
        (nets.Composed, ["2x11x24"], "attention of the module is written out"),
        (nets.Experts, ["2x6x16"], None),
        (nets.encoder, ["2x10x32"], None),
    ],
)
def test_attention_written_out_runs_as_written_and_is_said(make, inputs, written):
    for how in ("flash", "efficient"):
        _, tape = attention_kernels(make, inputs, how)
        said = [text for text in tape.assumptions if "not as" in text]
        assert bool(said) == bool(written)
        assert all(written in text and f"not as {how} attention" in text for text in said)
    _, tape = attention_kernels(make, inputs, "eager")
    assert not any("written out" in text for text in tape.assumptions)


def test_calls_that_flash_attention_does_not_take_are_said():
    _, tape = attention_kernels(lambda: nets.Attention("bool"), ["2x32x32"], "flash")
    assert any("x1 runs the efficient kernel" in text for text in tape.assumptions)


def test_a_function_called_by_its_own_name_is_intercepted():
    sdpa = F.scaled_dot_product_attention
    net = Calls(lambda x: sdpa(x, x, x), 8)
    tape = Tape(precision("fp32"), implementations={"attention": "eager"})
    from_torch(net, ["2x4x16x8"], device="cpu").run(tape, 2)
    assert "softmax" in {k.kind for k in tape.kernels}
