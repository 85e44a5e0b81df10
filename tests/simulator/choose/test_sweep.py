"""Sweeps: what is varied, every row predict's own, and nothing lost with a worker or a break."""

import multiprocessing
import os
import signal

import pytest

from roofcast.hwdb.errors import RoofcastError
from roofcast.simulator.choose import progress_file, workers
from roofcast.simulator.choose.axes import axis, changed, grid
from roofcast.simulator.choose.sweep import COLUMNS, PARTS, chunks, here, row, run
from roofcast.simulator.forecast.chain import forecast
from roofcast.simulator.forecast.scenario import Scenario

GPT2 = Scenario(model="gpt2", device="a100-sxm4-80gb", sequence=256)
WIDE = [axis("batch=1..16"), axis("memory.bandwidth=x1..x4:0.5")]


@pytest.mark.parametrize(
    "text, name, values",
    [
        ("batch=8..64", "batch", (8, 16, 32, 64)),
        ("batch=8..63", "batch", (8, 16, 32)),
        ("seq=1024..4096:1024", "seq", (1024, 2048, 3072, 4096)),
        ("zero=0..3:1", "zero", (0, 1, 2, 3)),
        ("--micro_batch=1,2", "micro-batch", (1, 2)),
        ("memory.bandwidth=x1,8 TB/s", "memory.bandwidth", ("x1", "8 TB/s")),
        ("peak_flops.bf16=x0.5..x2", "peak_flops.bf16", ("x0.5", "x1", "x2")),
        ("on=h100-sxm5,b200-sxm", "on", ("h100-sxm5", "b200-sxm")),
        ("sp=on,off", "sp", (True, False)),
        ("tokens=1T,300B", "tokens", (1e12, 3e11)),
    ],
)
def test_an_axis_is_read_as_it_is_meant(text, name, values):
    assert axis(text) == (name, values)


@pytest.mark.parametrize(
    "text, says",
    [
        ("batch", "give a name and its values"),
        ("batch=", "give a name and its values"),
        ("batch=1,,2", "a value is empty"),
        ("batch=1.5", "not a whole number"),
        ("batch=nan", "not a whole number"),
        ("batch=64..8", "runs nowhere"),
        ("batch=0..8", "runs nowhere"),
        ("batch=1..8:0", "runs nowhere"),
        ("batch=1..1e9:1", "at most 100,000"),
        ("sp=maybe", "give on or off"),
        ("bandwidth=x2", "memory.bandwidth"),
        ("batchsize=2", "did you mean batch"),
    ],
)
def test_a_wrong_axis_is_one_line_that_says_what_would_do(text, says):
    with pytest.raises(RoofcastError) as error:
        axis(text)
    assert says in str(error.value) and "\n" not in str(error.value)


def test_a_grid_is_every_combination_or_pairs():
    a, b = axis("batch=1,2"), axis("seq=128,256")
    assert grid([a, b]) == [(1, 128), (1, 256), (2, 128), (2, 256)]
    assert grid([a, b], zipped=True) == [(1, 128), (2, 256)]
    with pytest.raises(RoofcastError, match="2 of batch, 3 of seq"):
        grid([a, axis("seq=1,2,3")], zipped=True)
    with pytest.raises(RoofcastError, match="given twice"):
        grid([a, a])
    huge = [axis(f"{name}=1..10000:1") for name in ("batch", "seq", "tp")]
    with pytest.raises(RoofcastError, match="1,000,000,000,000 points"):
        grid(huge)


SCENARIOS = [
    (GPT2, ["batch=1,8", "precision=bf16,fp32", "optimizer=adamw,sgd"]),
    (
        Scenario(model="llama-3-8b", device="h100-sxm5", devices=16, batch=32),
        ["tp=1,2,3,8", "zero=0,3", "scale_up.bandwidth=x1,x2"],
    ),
    (Scenario(model="resnet50", device="t4"), ["on=t4,rtx-4090,tpu-v4", "mode=train,infer"]),
]


@pytest.mark.parametrize("scenario, varied", SCENARIOS)
def test_every_row_is_what_predict_says(scenario, varied):
    axes = [axis(text) for text in varied]
    points = grid(axes)
    rows = [r for _, found in here(chunks(scenario, axes, points, 5)) for r in found]
    assert len(rows) == len(points)
    for point, found in zip(points, rows, strict=True):
        assert list(found) == [a.name for a in axes] + list(COLUMNS)
        asked = changed(scenario, list(zip(axes, point, strict=True)))
        if found["refused"] is not None:
            with pytest.raises(RoofcastError) as error:
                forecast(asked)
            assert str(error.value) == found["refused"]
            continue
        plain = forecast(asked)
        assert found["step_time_s"] == plain.step_time_s
        assert found["peak_bytes"] == plain.memory.peak_bytes
        parts = [found[f"{part}_s"] for part in PARTS]
        assert min(parts) >= 0 and sum(parts) == pytest.approx(plain.step_time_s, rel=1e-9)
    assert any(r["refused"] is None for r in rows)


def test_points_that_cannot_be_are_rows_that_say_why():
    scenario = Scenario(model="llama-3-8b", device="h100-sxm5", devices=8)
    found = row(scenario, [axis("tp=3")], (3,))
    assert "3" in found["refused"] and found["step_time_s"] is None


def as_table(pairs):
    return {number: rows for number, rows in pairs}


def test_processes_give_the_rows_of_one():
    todo = chunks(GPT2, WIDE, grid(WIDE), 7)
    assert as_table(workers.processes(2)(todo)) == as_table(here(todo))


def test_a_killed_worker_loses_nothing():
    todo = chunks(GPT2, WIDE, grid(WIDE), 2)
    found, killed = {}, []
    for number, rows in workers.processes(2)(todo):
        assert number not in found
        found[number] = rows
        if not killed:
            victim = multiprocessing.active_children()[0]
            os.kill(victim.pid, signal.SIGKILL)
            victim.join()
            killed.append(victim)
    assert killed and found == as_table(here(todo))


def test_a_chunk_that_kills_its_workers_is_given_up_and_said(monkeypatch):
    todo = chunks(GPT2, WIDE, grid(WIDE)[:4], 2)
    monkeypatch.setattr(workers, "run", _dies_on_the_first)
    found = as_table(workers.processes(1)(todo))
    assert [r["refused"] for r in found[0]] == [workers.LOST] * 2
    assert found[1] == run(todo[1])


def _dies_on_the_first(chunk):
    if chunk.number == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return run(chunk)


def test_an_interrupted_sweep_goes_on_where_it_stopped(tmp_path):
    todo, path, ran = chunks(GPT2, WIDE, grid(WIDE), 5), tmp_path / "sweep.csv.part", []

    def counting(left):
        for number, rows in here(left):
            ran.append(number)
            yield number, rows

    first = progress_file.keeping(counting, path, "mark")(todo)
    for _ in range(3):
        next(first)
    first.close()
    with path.open("a") as out:
        out.write('{"chunk": 3, "rows": [{"ba')  # the break came in the middle of a line
    again = as_table(progress_file.keeping(counting, path, "mark")(todo))
    assert ran == [*range(len(todo))]
    assert again == as_table(here(todo))
    with pytest.raises(RoofcastError, match="another sweep"):
        progress_file.finished(path, "other")


def test_another_scenario_or_grid_is_another_sweep():
    todo = chunks(GPT2, WIDE, grid(WIDE))
    others = [
        chunks(Scenario(model="gpt2", device="h100-sxm5", sequence=256), WIDE, grid(WIDE)),
        chunks(GPT2, WIDE[::-1], grid(WIDE[::-1])),
        chunks(GPT2, WIDE, grid(WIDE)[:-1]),
    ]
    marks = {progress_file.signature(each, "1") for each in [todo, *others]}
    assert len(marks) == 4 and progress_file.signature(todo, "2") not in marks


def test_a_cluster_that_loses_a_worker_loses_nothing():
    distributed = pytest.importorskip("distributed")
    todo = chunks(GPT2, WIDE, grid(WIDE), 2)
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        found = {}
        for number, rows in workers.cluster(cluster.scheduler_address)(todo):
            if not found:
                os.kill(cluster.workers[0].process.pid, signal.SIGKILL)
            found[number] = rows
    assert found == as_table(here(todo))


def test_no_scheduler_is_one_line():
    pytest.importorskip("distributed")
    for address in ("tcp://127.0.0.1:1", "nonsense", "tcp://"):
        with pytest.raises(RoofcastError, match="no scheduler answers"):
            workers.cluster(address)
