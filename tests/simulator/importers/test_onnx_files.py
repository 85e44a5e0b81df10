"""ONNX files that anyone may have written: whatever is wrong is one line, soon, without harm."""

import os
import time

import pytest

onnx = pytest.importorskip("onnx", reason="needs the onnx extra: pip install .[onnx]")
import numpy as np  # noqa: E402
import onnx_nets as nets  # noqa: E402
from click.testing import CliRunner  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_nets import FLOAT, INT64, graph, numbers, stored  # noqa: E402

from roofcast import predict  # noqa: E402
from roofcast.hwdb.errors import BadInput, RoofcastError  # noqa: E402
from roofcast.simulator.forecast.counts import count  # noqa: E402
from roofcast.simulator.importers import from_onnx  # noqa: E402
from roofcast.simulator.work.precision import precision  # noqa: E402
from roofcast.simulator.work.tape import Tape  # noqa: E402

pytestmark = pytest.mark.onnx
node = helper.make_node
X = {"x": [1, 4]}
IMAGE = {"x": [1, 3, 4, 4]}
HUGE = 1 << 40


def changed(change, *shape):
    """A product whose weight was changed."""
    weight = stored("w", *(shape or (4, 4)))
    change(weight)
    return graph([node("MatMul", ["x", "w"], ["y"])], X, [weight])


def claims(op, operands, values, **attributes):
    """An operator whose operands claim a large result, added to x."""
    nodes = [
        node(op, operands, ["c"], **attributes),
        node("Cast", ["c"], ["f"], to=1),
        node("Add", ["x", "f"], ["y"]),
    ]
    return graph(nodes, X, [numbers(name, v) for name, v in values.items()])


def nested(depth):
    """An If within an If, `depth` times."""
    inner = helper.make_graph(
        [node("Relu", ["x"], ["o0"])], "g", [], [helper.make_tensor_value_info("o0", FLOAT, None)]
    )
    for k in range(1, depth + 1):
        other = helper.make_graph(
            [node("Relu", ["x"], [f"e{k}"])], "e", [],
            [helper.make_tensor_value_info(f"e{k}", FLOAT, None)],
        )  # fmt: skip
        branch = node("If", ["c"], [f"o{k}"], then_branch=inner, else_branch=other)
        out = helper.make_tensor_value_info(f"o{k}", FLOAT, None)
        inner = helper.make_graph([branch], "g", [], [out])
    last = inner.node[0]
    last.output[0] = "y"
    return graph([last], X | {"c": (TensorProto.BOOL, [])})


def functions(levels, calls):
    """Functions that call each other, `calls` times each."""
    made = [
        helper.make_function("f", "f0", ["a"], ["b"], [node("Relu", ["a"], ["b"])],
                             [helper.make_opsetid("", 21)])
    ]  # fmt: skip
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    for k in range(1, levels):
        names = ["a", *(f"t{j}" for j in range(1, calls)), "b"]
        body = [node(f"f{k - 1}", [names[j]], [names[j + 1]], domain="f") for j in range(calls)]
        made.append(helper.make_function("f", f"f{k}", ["a"], ["b"], body, opsets))
    call = node(f"f{levels - 1}", ["x"], ["y"], domain="f")
    return graph([call], X, domains=["f"], functions=made)


def selfish():
    body = [node("s", ["a"], ["b"], domain="f")]
    made = helper.make_function("f", "s", ["a"], ["b"], body, [helper.make_opsetid("f", 1)])
    return graph(body and [node("s", ["x"], ["y"], domain="f")], X, domains=["f"], functions=[made])


def relu(x="x", y="y", name=""):
    return node("Relu", [x], [y], name)


def of_type(value):
    net = graph([relu()], X)
    net.graph.input[0].CopyFrom(value)
    return net


def conv(**attributes):
    return graph([node("Conv", ["x", "w"], ["y"], **attributes)], IMAGE, [stored("w", 3, 3, 1, 1)])


def opset(version):
    net = graph([relu()], X)
    net.opset_import[0].version = version
    return net


TENSOR = helper.make_tensor_type_proto(FLOAT, [1, 4])
BAD = {  # name: graph, what the line says
    "claim": (changed(lambda w: w.dims.__setitem__(0, HUGE)), "tensor 'w' of [1099511627776, 4]"),
    "short": (changed(lambda w: w.dims.__setitem__(0, 5)), "claims 20 numbers [5, 4] and holds 16"),
    "negative weight": (changed(lambda w: w.dims.__setitem__(0, -4)), "has a negative dimension"),
    "format": (changed(lambda w: setattr(w, "data_type", 99)), "does not know (99)"),
    "constant": (claims("ConstantOfShape", ["s"], {"s": [HUGE]}), "2^40 elements or more"),
    "expand": (claims("Expand", ["k", "s"], {"k": [1], "s": [HUGE]}), "2^40 elements or more"),
    "tile": (claims("Tile", ["k", "s"], {"k": [1], "s": [HUGE]}), "2^40 elements or more"),
    "range": (claims("Range", [*"abd"], {"a": 0, "b": HUGE, "d": 1}), "2^40 elements or more"),
    "endless": (claims("Range", [*"abd"], {"a": 0, "b": 9, "d": 0}), "is no range"),
    "pad": (graph([node("Pad", ["x", "p"], ["y"])], X, [numbers("p", [0, 0, 0, HUGE])]), "2^40"),
    "crop": (graph([node("Pad", ["x", "p"], ["y"])], X, [numbers("p", [0, 0, 0, -9])]), "negative"),
    "conv pads": (conv(pads=[HUGE] * 4), "2^40 elements or more"),
    "conv strides": (conv(strides=[0, 0]), "must be 1 or more"),
    "conv groups": (conv(group=0), "got 3 channels, expected 0"),
    "loop": (nets.loop_net(1 << 61, [relu("xi", "xo")]), "2^40 elements or more"),
    "input": (graph([relu()], {"x": [1, -4]}), "input x has a negative dimension: [1, -4]"),
    "large input": (graph([relu()], {"x": [1, 1 << 62]}), "2^40 elements or more"),
    "cycle": (graph([node("Add", ["x", "b"], ["a"]), relu("a", "b"), relu("a")], X), "has a cycle"),
    "itself": (graph([node("Add", ["x", "y"], ["y"])], X), "has a cycle"),
    "written twice": (graph([relu(), relu()], X), "writes 'y', which has a value already"),
    "two weights": (
        graph([node("MatMul", ["x", "w"], ["y"])], X, [stored("w", 4, 4)] * 2),
        "two initializers are called 'w'",
    ),
    "nothing": (graph([node("Add", ["x", "nope"], ["y"])], X), "'nope', which nothing computes"),
    "new opset": (opset(99), "opset 99 of ai.onnx is unknown; onnx"),
    "old opset": (opset(0), "opset 0 of ai.onnx is unknown; onnx"),
    "texts": (graph([relu()], {"x": (TensorProto.STRING, [1])}), "is a tensor of texts"),
    "sequence": (
        of_type(helper.make_tensor_sequence_value_info("x", FLOAT, [1, 4])),
        "input x is of the type sequence; only tensors",
    ),
    "optional": (
        of_type(helper.make_value_info("x", helper.make_optional_type_proto(TENSOR))),
        "input x is of the type optional; only tensors",
    ),
    "no shape": (graph([relu()], {"x": None}), "input x is of unknown shape; give"),
    "shape that is an input": (
        graph([node("Reshape", ["x", "s"], ["y"])], X | {"s": (INT64, [2])}),
        "'s' depends on the values of the graph's inputs",
    ),
    "deep": (nested(20), "graphs within graphs, more than 16 deep"),
    "functions": (functions(12, 10), "nodes with those of its functions; at most"),
    "function of itself": (selfish(), "the function 's' calls itself"),
    "many nodes": (
        graph([relu("x" if i == 0 else f"a{i}", f"a{i + 1}") for i in range(50_001)], X),
        "at most 50,000 are run",
    ),
}  # fmt: skip
BAD["many nodes"][0].graph.output[0].name = "a9"


def refused(path):
    """The line of a file that is refused, soon and in little memory."""
    start = time.process_time()
    with pytest.raises(RoofcastError) as error:
        count(str(path), mode="infer")
    line = str(error.value)
    assert time.process_time() - start < 10
    assert len(line) < 500 and all(c.isprintable() for c in line)
    return line


@pytest.mark.parametrize("name", BAD)
def test_a_graph_that_cannot_be_is_one_line(name, tmp_path):
    net, words = BAD[name]
    path = tmp_path / "net.onnx"
    path.write_bytes(net.SerializeToString())
    assert words in refused(path)


def test_nodes_may_stand_in_any_order():
    net = graph([relu("a", "y"), node("MatMul", ["x", "w"], ["a"])], X, [stored("w", 4, 4)])
    tape = from_onnx(net).run(Tape(precision("fp32"), training=False), 1)
    assert [k.kind for k in tape.kernels] == ["matmul", "elementwise"]


def test_branches_within_branches_take_no_more_than_their_number():
    tape = from_onnx(nested(14)).run(Tape(precision("fp32"), training=False), 1)
    assert len(tape.kernels) == 1


def test_names_reach_the_terminal_without_control_characters(tmp_path):
    escape = "\x1b[2J" + "n" * 3000
    path = tmp_path / "net.onnx"
    bad = graph([node("Conv", ["x", "w"], ["y"], escape)], IMAGE, [stored("w", 3, 5, 1, 1)])
    path.write_bytes(bad.SerializeToString())
    assert "got 3 channels, expected 5" in refused(path)
    path.write_bytes(graph([relu(name=escape)], X).SerializeToString())
    (row,) = count(str(path), mode="infer").layers
    assert row.name.isprintable() and len(row.name) <= 120


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "it has no nodes"),
        (b"\0" * 4096, "no field at its start"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"PK\x03\x04" + b"\0" * 99, "a zip archive"),
        (b"<!DOCTYPE html>", "a page of HTML"),
        (b"\x3a\xff\xff\xff\xff\x7f", "was cut off"),
    ],
)
def test_bytes_that_are_no_model_are_one_line(data, words, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(data)
    assert words in refused(path)


def test_millions_of_empty_nodes_are_refused_before_they_are_parsed(tmp_path):
    path, n = tmp_path / "net.onnx", 5_000_000
    length = bytes((2 * n >> s & 127) | (128 if 2 * n >> (s + 7) else 0) for s in (0, 7, 14, 21))
    path.write_bytes(b"\x3a" + length + b"\x0a\x00" * n)
    assert "more than 200,000 nodes and tensors" in refused(path)


def test_what_is_no_file_is_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    (tmp_path / "dir.onnx").mkdir()
    with (tmp_path / "large.onnx").open("wb") as file:
        file.truncate(3 << 30)
    for name, words in (
        ("pipe", "a device or a pipe"),
        ("zero", "a device or a pipe"),
        ("dir", "is a folder"),
        ("large", "more than protobuf can hold"),
    ):
        assert words in refused(tmp_path / f"{name}.onnx")


# ------------------------------------------------------------------ weights in other files
def external(location, offset="0", length="64"):
    weight = TensorProto(name="w", dims=[4, 4], data_type=FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        weight.external_data.add(key=key, value=value)
    return graph([node("MatMul", ["x", "w"], ["y"])], X, [weight])


OUTSIDE = "outside of the model's folder"
EXTERNAL = [
    (("gone.bin",), "which is missing; put it beside the model"),
    (("/etc/passwd",), OUTSIDE),
    (("../w.bin",), OUTSIDE),
    (("a/../../w.bin",), OUTSIDE),
    (("C:\\w.bin",), OUTSIDE),
    (("link.bin",), "a link that leads out of the model's folder"),
    (("pipe",), "which is no file"),
    (("",), "without the name of its file"),
    (("w.bin", "32"), "ends at byte 96 of 'w.bin', which has 64"),
    (("w.bin", "-5"), "states 64 bytes from -5 on"),
    (("w.bin", "x"), "is no whole number"),
    (("w.bin", "9" * 5000), "is no whole number"),
    (("w.bin", "0", str(HUGE)), "its shape and format need 64"),
]


@pytest.mark.parametrize(("how", "words"), EXTERNAL)
def test_external_data_is_read_beside_the_model_alone(how, words, tmp_path):
    (tmp_path / "w.bin").write_bytes(b"\0" * 64)
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    path = tmp_path / "net.onnx"
    path.write_bytes(external(*how).SerializeToString())
    assert words in refused(path)


def test_external_data_beside_the_model_is_found_from_any_folder(tmp_path, monkeypatch):
    inner = tmp_path / "model"
    inner.mkdir()
    net = nets.image_net()
    onnx.save(net, inner / "net.onnx", save_as_external_data=True, location="w", size_threshold=0)
    monkeypatch.chdir(tmp_path)
    held = count("model/net.onnx", mode="infer", batch=2)
    assert held.parameters == sum(
        np.prod(i.dims) for i in net.graph.initializer if i.data_type == FLOAT
    )


def test_external_data_in_a_cache_of_links_is_found(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "blobs" / "1").write_bytes(external("w.bin").SerializeToString())
    (tmp_path / "blobs" / "2").write_bytes(b"\0" * 64)
    (tmp_path / "snapshot" / "net.onnx").symlink_to("../blobs/1")
    (tmp_path / "snapshot" / "w.bin").symlink_to("../blobs/2")
    assert count(str(tmp_path / "snapshot" / "net.onnx"), mode="infer").parameters == 16


def test_the_command_ends_with_2_and_one_line(tmp_path):
    from roofcast.reports.command import main

    path = tmp_path / "net.onnx"
    path.write_bytes(BAD["cycle"][0].SerializeToString())
    result = CliRunner().invoke(main, ["count", str(path)])
    assert result.exit_code == 2 and result.stderr.count("\n") == 1


def test_scalars_of_a_parameter_stay(tmp_path):
    scale = numpy_helper.from_array(np.array(2.0, np.float32), "logit_scale")
    net = graph([node("Mul", ["x", "logit_scale"], ["y"])], X, [scale])
    path = tmp_path / "net.onnx"
    path.write_bytes(net.SerializeToString())
    assert count(str(path), mode="infer").parameters == 1


@pytest.mark.parametrize("text", [b"MatMul", b"x", b"w", b"y"], ids=bytes.decode)
def test_a_name_that_is_no_text_is_refused(text, tmp_path):
    data = changed(lambda w: None).SerializeToString()
    tag = bytes([len(text)]) + text
    assert tag in data
    path = tmp_path / "net.onnx"
    path.write_bytes(data.replace(tag, bytes([len(text)]) + b"\xff" * len(text)))
    with pytest.raises(BadInput, match=r"net\.onnx: .{,150}(UTF-8|not an ONNX model)"):
        predict(str(path), device="l4")
