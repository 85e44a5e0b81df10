"""The roofline of one step of a server."""

import json

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.simulator.serving.asked import Serving
from roofcast.simulator.serving.load import Load
from roofcast.simulator.serving.points import step
from roofcast.simulator.serving.server import Degrees, Server

CASES = [
    ("llama-3.1-8b", "h100-sxm5", "decode", 32, {}),
    ("llama-3.1-8b", "h100-sxm5", "prefill", 4, {"weights": "int4"}),
    ("deepseek-v3", "h200-sxm", "decode", 64, {"tp": 8, "weights": "fp8", "kv": "fp8"}),
    ("mamba-2.8b", "rtx-4090", "decode", 8, {}),
    ("llama-3.1-8b", "m2-ultra", "prefill", 1, {"stack": "llama.cpp-metal", "weights": "q4_k_m"}),
]


@pytest.mark.parametrize(("model", "device", "phase", "batch", "more"), CASES, ids=str)
def test_the_kernels_make_up_the_step_of_the_server(model, device, phase, batch, more):
    asked = Serving(model=model, device=device, load=Load(kind="batch", input_len=700), **more)
    f = step(asked, phase, batch)
    layout = Degrees(tp=more.get("tp", 1))
    rest = {name: more[name] for name in ("weights", "kv", "stack") if name in more}
    server = Server(model, device, layout, **rest)
    whole = server.decode(batch, 700) if phase == "decode" else server.prefill(batch, 700)
    assert f.step_time_s == pytest.approx(float(whole), rel=1e-12)
    assert sum(f.parts_s.values()) == pytest.approx(f.step_time_s)
    for part in ("products", "experts", "attention", "streams"):
        own = [r for r in f.rows if r.part == part]
        assert sum(r.time_s for r in own) == pytest.approx(f.parts_s.get(part, 0.0), rel=1e-9)
    bandwidth = float(server.device.memory.bandwidth)
    for r in f.rows:
        assert r.bytes > 0 and r.time_s > 0 and r.launches >= 1
        assert r.bytes / r.time_s <= 1.02 * bandwidth or r.part == "products", r.name
    if phase == "decode" and not any(r.part == "experts" for r in f.rows):
        moved = sum(r.bytes for r in f.rows)
        assert moved >= 0.85 * (f.weights_bytes + f.cache_bytes)  # an embedding is not read whole


def run(*words, code=0, width="80"):
    found = CliRunner(env={"COLUMNS": width}).invoke(main, [str(w) for w in words])
    assert found.exit_code == code, found.output
    return found


STEP = ["roofline", "llama-3.1-8b", "--on", "h100-sxm5", "--mode", "decode", "--batch", 32]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_page_is_legible(width, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = run(*STEP, "-o", "step.png", width=str(width)).stdout
    assert max(map(len, text.splitlines())) <= width and "…" not in text
    assert "32 sequences with 1,024 tokens in the cache" in " ".join(text.split())
    assert (tmp_path / "step.png").stat().st_size > 20_000


def test_more_sequences_raise_the_intensity_of_products_and_not_of_attention():
    def intensity(batch, part):
        rows = json.loads(run(*STEP[:-1], batch, "--json").stdout)["rows"]
        one = max((r for r in rows if r["part"] == part), key=lambda r: r["time_s"])
        return one["flops"] / one["bytes"]

    assert intensity(64, "products") > 7 * intensity(8, "products")
    assert intensity(64, "attention") == pytest.approx(intensity(8, "attention"), rel=0.01)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pp", 2], "no option --pp"),
        (["--optimizer", "adamw"], "no option --optimizer"),
        (["-o", "x.doc"], ".png"),
        (["--tp", 3], "tp 3"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run(*STEP, *words, code=2)
    assert message in found.stderr and found.stderr.count("\n") == 1
