"""The KV cache, and the requests of full length that it holds, as vLLM logs them at its start."""

import csv
from pathlib import Path

import msgspec
import pytest

from roofcast.simulator.serving.capacity import room
from roofcast.simulator.serving.profiles import profile
from roofcast.simulator.serving.server import Degrees, Server

TABLE = Path(__file__).parents[3] / "scenarios/measured/serving/starts.csv"
LINES = [line for line in TABLE.read_text(encoding="utf-8").splitlines() if line[0] != "#"]
ROWS = [row for row in csv.DictReader(LINES) if not row["exclude"]]
NEAR = 0.05  # what a user who plans memory can bear; the least error of a log is 0.2 %


def held(row):
    """The memory of the server that a row describes."""
    tuned = msgspec.structs.replace(profile(row["stack"]), memory_use=float(row["memory_use"]))
    degrees = Degrees(tp=int(row["tp"]))
    formats = {"weights": row["weights"] or None, "kv": row["kv"] or None}
    server = Server(row["model"], row["device"], degrees, stack=tuned, **formats)
    return server, room(server, 1, int(row["max_model_len"]))


@pytest.mark.parametrize(
    "row", ROWS, ids=lambda r: f"{r['source']}-{r['model']}-{r['tp']}{r['kv']}"
)
def test_the_kv_cache_is_what_vllm_logs(row):
    server, found = held(row)
    assert found.cache_bytes / 2**30 == pytest.approx(float(row["kv_gib"]), rel=NEAR)
    if row["kv_tokens"]:
        tokens = found.cache_bytes / float(server.cache_bytes(1))
        assert tokens == pytest.approx(float(row["kv_tokens"]), rel=NEAR)
    if row["concurrency"]:
        length = int(row["max_model_len"])
        most = found.cache_bytes / found.of_sequence(length)
        assert most == pytest.approx(float(row["concurrency"]), rel=NEAR)
        assert found.sequences(length) == int(most)


def test_three_starts_stand_apart_from_the_constants():
    assert sum(row["source"] == "lmcache" for row in ROWS) == 3
