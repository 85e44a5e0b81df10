"""The kinds of input, each with its seeds (shipped files), its damages and the commands that read
it; and the case of a number.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from fuzzing import commands, hostile, options, texts, trees
from roofcast.hwdb import edits
from roofcast.simulator.software.stack import MEANING

ROOT = Path(__file__).resolve().parents[3]
AS_BYTES = 0.25  # share of the files that are damaged without knowledge of their format


class Case(NamedTuple):
    """One input: files by name, and the command line, which names them."""

    kind: str
    files: dict[str, bytes]
    args: tuple[str, ...]


def case(seed: int, number: int, kinds: tuple[str, ...] = ()) -> Case:
    """Input `number` of `seed`: a kind of KINDS, or of `kinds`, drawn by its weight."""
    random = Random(f"{seed}:{number}")
    chosen = kinds or tuple(KINDS)
    weights = [WEIGHTS.get(kind, 1.0) for kind in chosen]
    (kind,) = random.choices(chosen, weights)
    files, args = EVERY[kind](random)
    return Case(kind, files, tuple(args))


Made = tuple[dict[str, bytes], list[str]]


@cache
def _shipped(pattern: str, most: int = 60_000) -> tuple[Path, ...]:
    """Shipped files of at most so many bytes."""
    found = sorted(path for path in ROOT.glob(pattern) if path.stat().st_size <= most)
    assert found, f"nothing is shipped as {pattern}"
    return tuple(found)


@cache
def _tree(path: Path) -> dict[str, Any]:
    text = path.read_text(encoding="utf-8")
    tree: dict[str, Any] = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    return tree


@cache
def _words(pattern: str) -> tuple[str, ...]:
    """Keys at the top of the files of a kind."""
    return tuple(sorted({key for path in _shipped(pattern) for key in _tree(path)}))


def _file(random: Random, pattern: str, words: tuple[str, ...] = ()) -> tuple[bytes, Path]:
    """A shipped JSON or TOML file, damaged."""
    path = random.choice(_shipped(pattern))
    if random.random() < AS_BYTES:
        return texts.damaged(random, path.read_bytes()), path
    tree = trees.damaged(random, _tree(path), words or _words(pattern))
    written = trees.to_json(tree) if path.suffix == ".json" else trees.to_toml(tree)
    data = written.encode("utf-8", "surrogatepass")
    return (texts.damaged(random, data) if random.random() < 0.05 else data), path


def _config(random: Random) -> Made:
    data, _ = _file(random, "simulator/models/configs/*.json")
    commands = (
        ["count", "f/config.json", "--json"],
        ["count", "f/config.json"],
        ["predict", "f/config.json", "--on", "h100-sxm5", "--json"],
        ["predict", "f/config.json", "--on", "b200-sxm"],
        ["predict", "f/config.json", "--on", "h100-sxm5", "--mode", "infer", "--json"],
        ["memory", "f", "--on", "a100-sxm4-80gb", "--json"],
        ["predict", "f/config.json", "--on", "h100-sxm5", "--tp", "2", "--pp", "2", "--json"],
    )
    return {"f/config.json": data}, [*random.choice(commands)]


def _net(random: Random) -> Made:
    words = "input tokens vocabulary features loss repeat stride padding groups kernel out".split()
    data, _ = _file(random, "scenarios/nets/*.toml", tuple(words))
    commands = (
        ["count", "net.toml", "--json"],
        ["count", "net.toml"],
        ["predict", "net.toml", "--on", "rtx-3090", "--json"],
        ["predict", "net.toml", "--on", "xeon-8480"],
        ["memory", "net.toml", "--on", "t4", "--json"],
    )
    return {"net.toml": data}, [*random.choice(commands)]


@cache
def _figures() -> tuple[str, ...]:
    return tuple(key.rpartition(".")[2] for key in edits.figure_keys()) + ("base", "achieved")


def _device(random: Random) -> Made:
    data, _ = _file(random, "hwdb/devices/*.toml", _figures())
    commands = (
        ["predict", "gpt2", "--on", "own.toml", "--json"],
        ["predict", "gpt2", "--on", "own.toml", "--batch", "4"],
        ["predict", "resnet50", "--on", "own.toml", "--precision", "fp32", "--json"],
        ["predict", "gpt2", "--on", "own.toml", "--devices", "4", "--json"],
        ["devices", "show", "own.toml"],
        ["devices", "show", "own.toml", "--json"],
    )
    return {"own.toml": data}, [*random.choice(commands)]


def _overlaid(random: Random) -> Made:
    """A short device file over a base, and the base's own link."""
    keys = edits.figure_keys()
    lines = [f'base = "{random.choice(("h100-sxm5", "xeon-8480", "tpu-v4", "mi300x", "x.toml"))}"']
    for key in random.sample(sorted(keys), random.choice((1, 2, 4))):
        given = hostile.value(random) if random.random() < 0.5 else random.choice((0.5, 1.1, "x2"))
        lines.append(trees.to_toml({key: given}).replace(f'"{key}"', key).strip())
    data = "\n".join(lines).encode("utf-8", "surrogatepass")
    on = random.choice(
        (["predict", "gpt2", "--on", "x.toml", "--json"], ["devices", "show", "x.toml"])
    )
    return {"x.toml": data}, [*on]


def _system(random: Random) -> Made:
    data, path = _file(random, "hwdb/systems/*.toml")
    commands = (
        ["predict", "gpt2", "--system", "own.toml", "--json"],
        ["predict", "llama-3-8b", "--system", "own.toml", "--tp", "2", "--devices", "8", "--json"],
        ["devices", "show", "own.toml", "--json"],
        ["systems", "show", "own.toml"],
    )
    return {"own.toml": data}, [*random.choice(commands)]


def _link(random: Random) -> Made:
    data, _ = _file(random, "hwdb/links/*.toml")
    system = (ROOT / "hwdb/systems/dgx-h100.toml").read_text(encoding="utf-8")
    lines = [
        'link = "own.toml"' if line.startswith("link = ") else line for line in system.splitlines()
    ]
    commands = (
        ["links", "show", "own.toml"],
        ["links", "show", "own.toml", "--json"],
        ["predict", "gpt2", "--system", "node.toml", "--dp", "8", "--json"],
    )
    files = {"own.toml": data, "node.toml": "\n".join(lines).encode()}
    return files, [*random.choice(commands)]


def _stack(random: Random) -> Made:
    data, _ = _file(random, "simulator/software/stacks/*.toml", (*MEANING, "like"))
    commands = (
        ["predict", "gpt2", "--on", "h100-sxm5", "--stack", "own.toml", "--json"],
        ["predict", "resnet50", "--on", "v100", "--stack", "own.toml"],
        ["predict", "gpt2", "--on", "h100-sxm5", "--stack", "own.toml", "--tp", "2", "--json"],
        ["count", "gpt2", "--stack", "own.toml", "--json"],
        ["stacks", "show", "own.toml"],
        ["stacks", "show", "own.toml", "--json"],
    )
    return {"own.toml": data}, [*random.choice(commands)]


def _scenario(random: Random) -> Made:
    words = (*options.FIELDS, "steps", "assumed", "set")
    data, _ = _file(random, "scenarios/ready/*.toml", words)
    files = {"ready/own.toml": data}
    for name in ("cifar10-cnn", "dcgan-generator-step", "mnist-cnn", "deepspeech"):
        path = ROOT / f"scenarios/nets/{name}.toml"
        if path.exists():
            files[f"nets/{name}.toml"] = path.read_bytes()
    for name in ("dcgan-discriminator", "dcgan-generator"):
        files[f"ready/{name}.toml"] = (ROOT / f"scenarios/ready/{name}.toml").read_bytes()
    args = ["run", "ready/own.toml", *random.choice(([], ["--json"], ["--on", "a100-sxm4-80gb"]))]
    return files, args


def _head(path: Path, rows: int) -> str:
    """The comments of a CSV, its columns and its first rows."""
    text = path.read_text(encoding="utf-8").splitlines(keepends=True)
    comments = [line for line in text if line.startswith("#")]
    return "".join([*comments, *[line for line in text if not line.startswith("#")][: rows + 1]])


def _table(random: Random, pattern: str, rows: int) -> bytes:
    path = random.choice(_shipped(pattern, 10**6))
    head = _head(path, rows)
    if random.random() < AS_BYTES:
        return texts.damaged(random, head.encode())
    return texts.cells(random, head).encode("utf-8", "surrogatepass")


def _runs(random: Random) -> Made:
    folder = random.choice(("runs/[!k]*", "published/*"))
    data = _table(random, f"scenarios/measured/{folder}.csv", 3)
    args = ["validate", "--runs", "rows.csv", *random.choice(([], ["--json"], ["-o", "out.csv"]))]
    return {"rows.csv": data}, args


def _ops(random: Random) -> Made:
    data = _table(random, "scenarios/measured/runs/kernels-*.csv", 8)
    args = ["validate", "--ops", "rows.csv", *random.choice(([], ["--json"], ["-o", "out.csv"]))]
    return {"rows.csv": data}, args


def _kept(random: Random) -> Made:
    """A table of kernels of this machine, with the device files beside it."""
    folder = "scenarios/measured/machines"
    data = _table(random, f"{folder}/kernels-*.csv", 6)
    devices = {path.name: path.read_bytes() for path in _shipped(f"{folder}/intel*.toml")}
    args = ["validate", "--ops", "rows.csv", *random.choice(([], ["--json"]))]
    return {"rows.csv": data} | devices, args


def _document(random: Random) -> Made:
    """A document whose tables validate --write fills in; only of tables that are cheap."""
    text = b"# Errors\n\n<!-- table: nothing -->\n| a |\n|---|\n\nEnd.\n"
    return {"doc.md": texts.damaged(random, text)}, ["validate", "--write", "doc.md"]


@cache
def _graphs() -> tuple[bytes, ...]:
    """Small ONNX graphs: a multilayer perceptron, and a convolution with shape arithmetic."""
    from onnx import TensorProto, helper

    def weight(name: str, *dims: int) -> Any:
        size = 1
        for n in dims:
            size *= n
        return helper.make_tensor(name, TensorProto.FLOAT, dims, [0.5] * size)

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], transB=1),
    ]
    weights = [weight("w1", 8, 8), weight("w2", 4, 8), weight("b2", 4)]
    mlp = helper.make_graph(nodes, "mlp", [x], [y], weights)
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        helper.make_node("Shape", ["c"], ["s"]),
        helper.make_node("Gather", ["s", "zero"], ["n0"], axis=0),
        helper.make_node("Unsqueeze", ["n0", "axes"], ["n1"]),
        helper.make_node("Concat", ["n1", "rest"], ["shape"], axis=0),
        helper.make_node("Reshape", ["c", "shape"], ["f"]),
        helper.make_node("Softmax", ["f"], ["y"]),
    ]
    weights = [
        weight("w", 4, 3, 3, 3),
        helper.make_tensor("zero", TensorProto.INT64, [], [0]),
        helper.make_tensor("axes", TensorProto.INT64, [1], [0]),
        helper.make_tensor("rest", TensorProto.INT64, [1], [-1]),
    ]
    conv = helper.make_graph(nodes, "conv", [x], [y], weights)
    return tuple(helper.make_model(graph).SerializeToString() for graph in (mlp, conv))


def _onnx(random: Random) -> Made:
    data = random.choice(_graphs())
    for _ in range(random.choice((1, 1, 2))):
        data = texts.damaged(random, data)
    given = random.choice(([], [], ["--input", "4x8"], ["--input", "x=2x3x8x8"]))
    commands = (
        ["count", "net.onnx", "--json"],
        ["count", "net.onnx"],
        ["predict", "net.onnx", "--on", "l4", "--json"],
    )
    return {"net.onnx": data}, [*random.choice(commands), *given]


@cache
def onnx_is_here() -> bool:
    """Whether the extra is installed."""
    from importlib.util import find_spec

    return find_spec("onnx") is not None


def _options(random: Random) -> Made:
    return {}, options.line(random)


KINDS: dict[str, Callable[[Random], Made]] = {
    "config": _config, "net": _net, "device": _device, "overlaid": _overlaid, "system": _system,
    "link": _link, "stack": _stack, "scenario": _scenario, "runs": _runs, "ops": _ops,
    "kept": _kept, "document": _document, "onnx": _onnx, "options": _options,
}  # fmt: skip
WEIGHTS = {
    "config": 4.0, "net": 4.0, "options": 4.0, "device": 2.0, "scenario": 2.0, "runs": 2.0,
    "document": 0.1, "kept": 0.3, "ops": 0.7,
}  # fmt: skip
EVERY = {**KINDS, **commands.KINDS}  # with those that forecast many times
