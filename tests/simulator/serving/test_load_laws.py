"""Laws of the load layer, on an analytic server and on real ones."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.serving.capacity import room
from roofcast.simulator.serving.load import Load, Requests, requests
from roofcast.simulator.serving.means import mean
from roofcast.simulator.serving.replay import Replayed, replay
from roofcast.simulator.serving.sample import in_loop
from roofcast.simulator.serving.server import Server
from roofcast.simulator.serving.speculation import Speculation
from roofcast.simulator.serving.steps import Steps

_spec = importlib.util.spec_from_file_location("toy", Path(__file__).parent / "toy.py")
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
Toy = _module.Toy

LENGTHS = [(1024, 512), (128, 1024), (4096, 256)]
USERS = [1, 2, 5, 8, 16, 33, 64, 96, 128, 200, 256, 512]
GRAPH_STEP = 0.10  # by which a step of tiles or graphs may lower the throughput


def means(server, kind, amount, lengths=(1024, 512), **more):
    load = Load(kind=kind, amount=amount, input_len=lengths[0], output_len=lengths[1], **more)
    return mean(server, load, room(server, lengths[0], sum(lengths)))


@pytest.fixture(scope="module")
def servers():
    named = [("llama-3.1-8b", "h100-sxm5"), ("qwen3-30b-a3b", "h200-sxm"), ("gpt2-xl", "rtx-4090")]
    return [Toy(), *(Server(model, device) for model, device in named)]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
def test_more_users_never_lower_the_throughput_and_never_shorten_a_token(servers, lengths):
    for server in servers:
        found = [means(server, "concurrency", users, lengths) for users in USERS]
        for few, many in zip(found, found[1:], strict=False):
            assert many.requests_per_s >= (1 - GRAPH_STEP) * few.requests_per_s
            assert many.tpot >= few.tpot * (1 - 1e-6)
            assert many.e2e >= few.e2e * (1 - 1e-6)
        best = np.maximum.accumulate([f.requests_per_s for f in found])
        assert found[-1].requests_per_s >= (1 - GRAPH_STEP) * best[-1]


def test_a_higher_rate_never_shortens_anything(servers):
    for server in servers:
        most = means(server, "offline", 1).requests_per_s
        found = [means(server, "rate", share * most) for share in np.linspace(0.02, 0.95, 12)]
        for few, many in zip(found, found[1:], strict=False):
            assert many.ttft >= few.ttft * (1 - 1e-6) and many.tpot >= few.tpot * (1 - 1e-6)
            assert many.use > few.use


def test_longer_requests_are_never_faster_and_never_fit_in_greater_number(servers):
    for server in servers:
        for kind, amount in (("batch", 16), ("concurrency", 32), ("offline", 1)):
            found = [means(server, kind, amount, (new, 256)) for new in (64, 256, 1000, 4000)]
            for short, long in zip(found, found[1:], strict=False):
                assert long.requests_per_s <= short.requests_per_s * (1 + 1e-6)
                if kind != "offline":  # where fewer fit, a step is shorter
                    assert long.tpot >= short.tpot * (1 - 1e-6)
                    assert long.ttft >= short.ttft * (1 - 1e-6)
        fitting = [room(server, n, 2 * n).sequences(2 * n) for n in (100, 1000, 10000)]
        assert fitting == sorted(fitting, reverse=True)


def test_littles_law_holds(servers):
    for server in servers:
        for users in (1, 7, 64, 300):
            f = means(server, "concurrency", users)
            assert f.requests_per_s * f.e2e == pytest.approx(users, rel=1e-3)
            decoding = f.requests_per_s * 511 * f.tpot
            assert decoding == pytest.approx(f.decoding, rel=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.4, 0.65])
@pytest.mark.parametrize("lengths", [(1024, 512), (128, 512)], ids=str)
def test_mean_values_and_replay_agree_below_70_percent_load(lengths, share):
    server = Toy(request_s=0.002)
    held = room(server, lengths[0], sum(lengths))
    steps = Steps(server, held.limit, 1.2 * sum(lengths), lengths[0])
    rate = share * means(server, "offline", 1, lengths).requests_per_s
    load = Load(kind="rate", amount=rate, input_len=lengths[0], output_len=lengths[1])
    asked = requests(load, 8000)
    # the rate that was drawn, not the one that was asked for
    load = Load(kind="rate", amount=8000 / float(asked.arrival[-1]), input_len=lengths[0],
                output_len=lengths[1])  # fmt: skip
    found, met = mean(server, load, held), replay(steps, asked, held, None, 0.002)
    assert found.tpot == pytest.approx(met.tpot.mean(), rel=0.05)
    assert found.e2e == pytest.approx(met.e2e.mean(), rel=0.05)
    assert found.decoding == pytest.approx(met.mean_decoding * met.busy, rel=0.05)
    if lengths[0] > 1000:
        assert found.ttft == pytest.approx(met.ttft.mean(), rel=0.05)


@pytest.mark.parametrize("users", [1, 8, 64])
def test_mean_values_and_replay_agree_in_a_closed_loop(users):
    server = Toy(request_s=0.002)
    held = room(server, 1024, 1536)
    load = Load(kind="concurrency", amount=users, requests=40 * users)
    met = replay(
        Steps(server, held.limit, 2000, 1024), requests(load, 40 * users), held, users, 0.002
    )
    found = mean(server, load, held)
    assert found.tpot == pytest.approx(met.tpot.mean(), rel=0.05)
    assert found.e2e == pytest.approx(met.e2e.mean(), rel=0.05)
    assert found.requests_per_s == pytest.approx(40 * users / met.seconds, rel=0.06)


def test_users_of_a_closed_loop_start_when_they_are_asked_to():
    """None waits for a user who starts later, and the next request of each follows its last one."""
    server = Toy(request_s=0.5)
    held = room(server, 1024, 1536)
    sent = requests(Load(kind="concurrency", amount=4, requests=60), 60)
    sent.arrival[:4] = [0.0, 7.0, 500.0, 500.0]
    met = replay(Steps(server, held.limit, 2000, 1024), sent, held, 4, 0.5)
    alone = 0.5 + 1.2 * float(server.prefill(1, 1024)) + float(server.decode(4, 1536))
    assert np.all(met.ttft[:2] < alone) and np.all(np.isfinite(met.e2e))
    assert np.mean(met.ttft[4:] < alone) > 0.9


def test_first_requests_of_a_closed_loop_come_together_and_others_do_not():
    load = Load(kind="concurrency", amount=40, requests=400)
    seen = []

    def run(sent, users, needed):
        seen.append(sent.arrival[:users].copy())
        count = len(sent.input)
        assert needed in (users, count - users)
        return Replayed(*(np.full(count, float(len(seen))),) * 3, 1.0, 0, 0.0, 0.0, np.zeros(count))

    found = in_loop(load, 400, 0.1, 20.0, run)
    assert not np.any(seen[0]) and np.all(np.diff(seen[1]) > 0) and 15.0 < seen[1][-1] < 20.0
    assert len(found.weight) == 400 and found.weight.sum() == pytest.approx(1.0)
    assert found.mean("ttft") == pytest.approx(0.1 * 1.0 + 0.9 * 2.0)


def test_a_replay_is_deterministic_and_serves_everyone_once():
    server = Toy()
    held = room(server, 500, 1000)
    load = Load(kind="rate", amount=5.0, input_len=500, output_len=500, seed=3)
    runs = [
        replay(Steps(server, held.limit, 2000, 500), requests(load, 500), held) for _ in range(2)
    ]
    for a, b in zip(runs[0][:3], runs[1][:3], strict=True):
        assert np.array_equal(a, b)
    assert np.isfinite(runs[0].e2e).all() and (runs[0].ttft > 0).all()
    assert (runs[0].e2e >= runs[0].ttft).all()
    other = requests(Load(kind="rate", amount=5.0, seed=4), 500)
    assert not np.array_equal(other.arrival, requests(Load(kind="rate", amount=5.0), 500).arrival)


def test_requests_alone_take_what_the_server_says():
    server = Toy()
    held = room(server, 1000, 1100)
    asked = Requests(np.array([0.0, 100.0]), *(np.array([n, n]) for n in (1000, 101, 0)))
    met = replay(Steps(server, held.limit, 2000, 1000), asked, held)
    alone = float(server.prefill(1, 1000))
    steps = sum(float(server.decode(1, 1001 + i)) for i in range(100))
    assert met.ttft == pytest.approx([alone, alone], rel=2e-3)
    assert met.e2e == pytest.approx([alone + steps] * 2, rel=2e-3)


def test_a_full_cache_takes_it_from_the_newest_and_everyone_is_served():
    server = Toy(memory_bytes=18e9 + 131072 * 4096)  # room for 4096 tokens
    held = room(server, 512, 1536)
    count = 12
    asked = Requests(np.zeros(count), *(np.full(count, n) for n in (512, 1024, 0)))
    met = replay(Steps(server, held.limit, 4096, 512), asked, held)
    assert np.isfinite(met.e2e).all()
    assert met.preempted > 0
    assert met.ttft.max() > met.ttft.min()
    # a request longer than the whole cache runs alone
    huge = Requests(np.zeros(1), *(np.array([n]) for n in (5000, 50, 0)))
    assert np.isfinite(replay(Steps(server, 4, 6000, 5000), huge, held).e2e).all()


def test_a_prefix_in_the_cache_shortens_the_first_token_alone():
    server = Toy()
    cold, warm = (means(server, "batch", 1, (4096, 64), cached=c) for c in (0.0, 0.75))
    assert warm.ttft < 0.5 * cold.ttft and warm.tpot == cold.tpot


def test_speculation_makes_the_tokens_of_a_geometric_series():
    assert Speculation(3, 0.7).tokens == pytest.approx((1 - 0.7**4) / (1 - 0.7))
    server, held = Toy(), room(Toy(), 1024, 1536)
    load = Load(kind="batch", amount=1.0)
    plain, drafted = (mean(server, load, held, s) for s in (Speculation(), Speculation(3, 0.7)))
    assert plain.tpot / 2.6 < drafted.tpot < plain.tpot
    bad = mean(server, load, held, Speculation(3, 0.0, 0.15))
    assert bad.tpot > plain.tpot


def test_a_rate_that_nothing_holds_says_the_highest():
    server = Toy()
    with pytest.raises(BadInput, match=r"the highest is ([\d.]+)/s") as error:
        means(server, "rate", 1000.0)
    highest = float(str(error.value).rpartition(" ")[2].removesuffix("/s"))
    assert means(server, "rate", highest).use > 0.98


@pytest.mark.parametrize(
    "wrong", [{"input_len": 0}, {"output_len": 0}, {"amount": 0.0}, {"cached": 1.0},
              {"kind": "burst"}, {"spread": 1.5}, {"requests": 0}, {"amount": float("nan")}],
    ids=str,
)  # fmt: skip
def test_loads_that_cannot_be_are_refused(wrong):
    with pytest.raises(BadInput):
        Load(**{"kind": "concurrency", **wrong})
