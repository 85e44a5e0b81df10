"""ONNX graphs: read as data, counted as the same net in torch, and rejected in one line."""

import io
from importlib.util import find_spec
from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx", reason="needs the onnx extra: pip install .[onnx]")
import onnx_nets as nets  # noqa: E402

from roofcast import predict  # noqa: E402
from roofcast.hwdb.errors import RoofcastError  # noqa: E402
from roofcast.simulator import models  # noqa: E402
from roofcast.simulator.importers import from_onnx  # noqa: E402
from roofcast.simulator.work.precision import precision  # noqa: E402
from roofcast.simulator.work.tape import Tape  # noqa: E402

pytestmark = pytest.mark.onnx

LISTED = Path(__file__).parents[3] / "scenarios" / "nets" / "cifar10-cnn.toml"


def counted(model, batch, size=None):
    tape = model.run(Tape(precision("fp32")), batch, size)
    flops = [
        int(sum(k.matrix * k.count for k in tape.kernels if k.phase == phase))
        for phase in ("forward", "backward")
    ]
    return sum(w.size * w.count for w in tape.weights), *flops


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(nets.image_net(), path)
    return path


def test_a_list_of_layers_a_module_and_a_graph_of_one_net_count_the_same():
    torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
    from roofcast.simulator.importers import from_torch

    nn = torch.nn
    net = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(4096, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    by_list = counted(models.resolve(str(LISTED)), 8)
    assert by_list == counted(from_torch(net, ["8x3x32x32"]), 8)
    assert by_list == counted(from_onnx(nets.image_net(), dims={"batch": 8}), 8)


EXPORTED = [
    "mlp with dropout",
    "control flow",
    "custom function",
    "shared weights",
    "convolutions",
    "inverted residual",
    "grouped convolutions",
    "convolution 3d",
    "u-net",
    "generator",
    "lstm",
    "bidirectional lstm of two layers",
    "gru",
    "composed attention",
    "mixture of experts",
    "in place",
    "several losses",
    "attention",
    "grouped-query attention",
    "transformer encoder",
]


def export(torch, module, inputs):
    """The module as ONNX, by the exporter that needs onnxscript or else by the older one."""
    if find_spec("onnxscript"):
        return torch.onnx.export(
            module, inputs, dynamo=True, verbose=False, optimize=False
        ).model_proto
    written = io.BytesIO()
    try:
        torch.onnx.export(
            module,
            inputs,
            written,
            dynamo=False,
            training=torch.onnx.TrainingMode.TRAINING,
            do_constant_folding=False,
        )
    except (AssertionError, torch.onnx.errors.UnsupportedOperatorError) as error:
        pytest.skip(f"needs onnxscript: the older exporter cannot write it ({str(error)[:60]})")
    return onnx.load_from_string(written.getvalue())


@pytest.mark.torch
@pytest.mark.parametrize("name", EXPORTED)
def test_an_exported_module_counts_the_same_as_the_module(name):
    torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
    import torch_nets
    from counting import fed, imported

    from roofcast.simulator.importers import from_torch

    make, inputs = torch_nets.NETS[name]
    module = make().train()
    exported = export(torch, module, tuple(fed(inputs)))
    ours, theirs = (
        imported(from_onnx(exported, inputs)),
        imported(from_torch(module, inputs), attention="eager"),
    )
    assert ours[0][:3] == theirs[0][:3]


def test_a_table_used_twice_is_one_parameter():
    parameters, forward, backward = counted(from_onnx(nets.text_net(), ["2x9:int64"]), 2)
    tokens = 2 * 9
    assert parameters == 100 * 16 + 2 * 16 + 3 * 256
    assert forward == 2 * tokens * (3 * 256 + 2 * 9 * 16 + 1600)
    assert backward == 2 * forward


def test_open_axes_take_their_sizes_from_the_request(file):
    asked = [
        predict(model=str(file), device="h100-sxm5", **how)
        for how in ({}, {"inputs": ("64x3x32x32",)}, {"inputs": ("x=8x3x32x32",), "batch": 64})
    ]
    assert [f.batch for f in asked] == [1, 64, 64]
    assert asked[1].flops_forward == asked[2].flops_forward == 64 * asked[0].flops_forward
    names = [layer.name for layer in asked[0].layers if layer.parameters]
    assert names == ["c1", "c2", "fc1", "fc2"]


def test_an_op_without_a_formula_is_listed_and_costed():
    net = nets.image_net()
    net.graph.node.append(onnx.helper.make_node("Det", ["y"], ["z"], "/Det"))
    tape = from_onnx(net).run(Tape(precision("fp32")), 4)
    (line,) = tape.assumptions
    assert "Det x1" in line and "% of all bytes" in line


def test_an_op_without_a_formula_that_is_the_whole_graph_moves_100_percent():
    x, y = (onnx.helper.make_tensor_value_info(n, 1, s) for n, s in (("x", [4, 3, 3]), ("y", [4])))
    graph = onnx.helper.make_graph([onnx.helper.make_node("Det", ["x"], ["y"])], "g", [x], [y])
    tape = from_onnx(onnx.helper.make_model(graph)).run(Tape(precision("fp32")), 4)
    (line,) = tape.assumptions
    assert "(100 % of all bytes): Det x1" in line


def test_constants_that_onnx_cannot_compute_are_reported_and_treated_as_tensors():
    net, node = nets.image_net(), onnx.helper.make_node
    net.graph.initializer.extend([nets.numbers("far", [7]), nets.numbers("few", [1, 2])])
    net.graph.node.extend(
        [
            node("Gather", ["few", "far"], ["w"]),
            node("Gather", ["few", "far"], ["v"]),
            node("Mystery", ["few"], ["u"]),
        ]
    )
    tape = from_onnx(net).run(Tape(precision("fp32")), 4)
    (line,) = [text for text in tape.assumptions if "could not compute" in text]
    assert "Gather x2 (" in line and "out of bounds" in line and "Mystery x1 (" in line
    assert "\n" not in line
    assert counted(from_onnx(net), 4) == counted(from_onnx(nets.image_net()), 4)


def test_shapes_that_onnx_cannot_infer_are_reported_once():
    net, node = nets.image_net(), onnx.helper.make_node
    net.graph.node.extend(
        [node("Gizmo", ["y"], ["z"], domain="own"), node("Gizmo", ["z"], ["w"], domain="own")]
    )
    tape = from_onnx(net).run(Tape(precision("fp32")), 4)
    (line,) = [text for text in tape.assumptions if "could not infer" in text]
    assert "Gizmo" in line and "\n" not in line
    moved = [(k.read, k.written) for k in tape.kernels if k.phase == "forward"]
    result = 4 * 4 * 10  # bytes of fc2's result, 4 x 10 fp32 numbers: written as often as read
    assert moved[-2:] == [(result, result)] * 2


@pytest.mark.parametrize(
    "where", ["onnx.reference.ReferenceEvaluator.run", "onnx.shape_inference.infer_shapes"]
)
def test_exceptions_that_onnx_does_not_raise_are_not_caught(monkeypatch, where):
    class Ours(Exception):
        """An exception that onnx does not raise."""

    def broken(*_, **how):
        raise Ours

    net = nets.image_net()
    net.graph.node.append(onnx.helper.make_node("Det", ["y"], ["z"]))
    monkeypatch.setattr(where, broken)
    with pytest.raises(Ours):
        from_onnx(net).run(Tape(precision("fp32")), 4)


def test_a_graph_whose_shapes_do_not_fit_is_rejected_at_the_node():
    message = r"node c1 \(Conv\): got 3 channels, expected 5"
    with pytest.raises(RoofcastError, match=message):
        counted(from_onnx(nets.image_net(channels=5)), 1)


@pytest.mark.parametrize(
    ("make", "inputs", "message"),
    [
        (lambda data: data[: len(data) // 2], (), "is not an ONNX model, or was cut off"),
        (lambda data: b"PK\x03\x04 no model", (), "is not an ONNX model, or was cut off"),
        (lambda data: b"", (), "is not an ONNX model, or was cut off"),
        (lambda data: data, ("pixels=8x3x32x32",), "no input 'pixels'; inputs: x"),
        (lambda data: data, ("8x3x32x33",), "input x is batchx3x32x32; "),
        (lambda data: data, ("8x3x32x32", "8"), "takes 1 inputs (x); 2 were given"),
    ],
)
def test_a_mistake_is_reported_in_one_line(file, make, inputs, message):
    file.write_bytes(make(file.read_bytes()))
    with pytest.raises(RoofcastError) as error:
        predict(model=str(file), inputs=inputs, device="h100-sxm5")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file_is_reported_in_one_line():
    with pytest.raises(RoofcastError, match="nowhere.onnx: no such file"):
        predict(model="nowhere.onnx", device="h100-sxm5")


def test_a_truncated_file_is_rejected(file):
    data = file.read_bytes()
    for length in range(0, len(data), len(data) // 40):
        file.write_bytes(data[:length])
        with pytest.raises(RoofcastError):
            predict(model=str(file), device="h100-sxm5")


def layers_net(layers=4):
    """Layers of attention written out, named as PyTorch's exporter names them."""
    node, nodes, weights, x = onnx.helper.make_node, [], [], "x"
    for i in range(layers):
        at, own = f"/layers.{i}/attn", f"{i}."
        weights += [nets.stored(f"{own}{w}.weight", 16, 16) for w in ("q", "o")]
        nodes += [
            node("MatMul", [x, f"{own}q.weight"], [f"{own}q"], f"{at}/q/MatMul"),
            node("Transpose", [f"{own}q"], [f"{own}t"], f"{at}/Transpose", perm=[0, 2, 1]),
            node("MatMul", [f"{own}q", f"{own}t"], [f"{own}s"], f"{at}/MatMul"),
            node("Softmax", [f"{own}s"], [f"{own}p"], f"{at}/Softmax", axis=-1),
            node("MatMul", [f"{own}p", f"{own}q"], [f"{own}a"], f"{at}/MatMul_1"),
            node("MatMul", [f"{own}a", f"{own}o.weight"], [f"{own}o"], f"{at}/o/MatMul"),
            node("Add", [f"{own}o", x], [f"{own}y"], f"/layers.{i}/Add"),
            node("Erf", [f"{own}y"], [f"{own}z"], f"/layers.{i}/act/Erf"),
        ]
        x = f"{own}z"
    value = onnx.helper.make_tensor_value_info
    ins, outs = (value(n, nets.FLOAT, ["batch", 8, 16]) for n in ("x", x))
    return nets.model(nodes, [ins], [outs], weights)


def test_rows_of_products_carry_their_names_and_layers_are_folded():
    tape = from_onnx(layers_net(5)).run(Tape(precision("fp32")), 2)
    rows = {}
    for k in tape.kernels:
        node = tape.nodes[k.node]
        key = node.name, node.op, k.kind
        rows[key] = rows.get(key, 0) + k.count * k.matrix * (k.phase == "forward")
    products = {key[:2]: flops for key, flops in rows.items() if key[2] == "matmul"}
    each = 5 * 2 * 2 * 8 * 16
    assert products == {
        ("layers.attn.q", "matmul"): each * 16,
        ("layers.attn.MatMul", "matmul"): each * 8,
        ("layers.attn.MatMul_1", "matmul"): each * 8,
        ("layers.attn.o", "matmul"): each * 16,
    }
    assert sum(b.count for b in tape.blocks[1:]) == 5 and {b.name for b in tape.blocks[1:]} == {
        "layers"
    }
    assert counted(from_onnx(layers_net(5)), 2)[0] == 5 * 2 * 256


def test_erf_costs_an_error_function():
    tape = from_onnx(layers_net(1)).run(Tape(precision("fp32")), 2)
    (erf,) = [k for k in tape.kernels if tape.nodes[k.node].op == "erf" and k.phase == "forward"]
    assert (erf.vector, erf.special) == (6 * 2 * 8 * 16, 2 * 8 * 16)


def test_a_softmax_has_the_rows_of_its_axis():
    value, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    ins, outs = (value(n, nets.FLOAT, ["batch", 8, 16]) for n in "xy")
    net = nets.model([node("Softmax", ["x"], ["y"], axis=1)], [ins], [outs], [])
    tape = from_onnx(net).run(Tape(precision("fp32")), 2)
    (softmax,) = [k for k in tape.kernels if k.kind == "softmax" and k.phase == "forward"]
    assert softmax.outputs[0].shape == (2, 16, 8)
    net.graph.node[0].attribute[0].i = 3
    with pytest.raises(RoofcastError, match=r"axis 3: its input \[2, 8, 16\] has 3 axes"):
        from_onnx(net).run(Tape(precision("fp32")), 2)
