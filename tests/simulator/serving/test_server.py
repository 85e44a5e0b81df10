"""Laws of a server's steps, on models and devices of all kinds."""

import numpy as np
import pytest

from roofcast import hwdb
from roofcast.hwdb.errors import BadInput, UnknownName
from roofcast.simulator.models import catalog
from roofcast.simulator.serving import profiles
from roofcast.simulator.serving.server import Degrees, Server
from roofcast.simulator.software.stack import stack
from roofcast.simulator.work.generation import Formats, forward
from roofcast.simulator.work.step import Recipe, trace
from roofcast.simulator.work.traced import ALONE

ROWS = np.array([1.0, 2.0, 3.0, 8.0, 17.0, 40.0, 64.0, 128.0, 300.0, 1000.0])
CONTEXTS = np.array([1.0, 128.0, 700.0, 4096.0, 9000.0, 40000.0, 131072.0])
KINDS = {  # attention of all kinds, states, experts
    "llama-3-8b": "h100-sxm5", "deepseek-v3": "gb200", "gpt-oss-120b": "b300-sxm",
    "qwen3-next-80b-a3b": "mi300x", "mamba2-1.3b": "rtx-4090", "gemma-3-27b": "m2-ultra",
    "bloom-7b1": "a100-pcie-80gb", "falcon-7b": "epyc-9654", "mixtral-8x7b": "gaudi3",
    "kimi-linear-48b-a3b": "b200-sxm", "rwkv-7-1.5b": "strix-halo", "llama-4-scout": "tpu-v5e",
}  # fmt: skip


@pytest.mark.parametrize("model", KINDS)
def test_a_step_only_grows(model):
    """With sequences, with the context and with tokens of prompts; joules do, too."""
    server = Server(model, KINDS[model])
    grid = server.decoding(ROWS[:, None], CONTEXTS[None, :])
    assert np.all(np.diff(grid.total, axis=1) >= -1e-12)
    # fewer, larger tiles can gain a little where rows cross a tile
    assert np.all(grid.total[1:] >= 0.97 * grid.total[:-1])
    assert np.all(np.diff(server.prefill(1, CONTEXTS[:5])) > 0)
    assert np.all(server.mixed(8, 500, 256) > server.decode(8, 500))
    assert np.all(np.diff(server.cache_bytes(CONTEXTS)) >= 0)
    if server.engines["decode"].board:
        assert np.all(grid.joules > 0)
        limit = float(server.device.power.cap or server.device.power.tdp)
        assert np.all(grid.joules <= 1.001 * limit * grid.total)


@pytest.mark.parametrize("model", ["llama-3-8b", "deepseek-v3", "gpt-oss-20b", "qwen3-30b-a3b"])
def test_more_ranks_hold_less(model):
    """Never more bytes on a rank: weights and cache."""
    for kind in ("tp", "ep"):
        held = []
        for n in (1, 2, 4, 8):
            degrees = Degrees(tp=n, ep=n if kind == "ep" and "llama" not in model else 1)
            server = Server(model, "h200-sxm", degrees)
            held.append((server.weight_bytes, float(server.cache_bytes(5000))))
        held = np.array(held)
        assert np.all(np.diff(held[:, 0]) < 0)
        assert np.all(np.diff(held[:, 1]) <= 0)


def test_ranks_hold_the_model_together():
    """Under tensor parallelism the matrices of all ranks are those of the model."""
    one = Server("llama-3-8b", "h100-sxm5").weight_bytes
    assert 4 * Server("llama-3-8b", "h100-sxm5", Degrees(tp=4)).weight_bytes == pytest.approx(
        one, rel=1e-3
    )
    for degrees in (Degrees(tp=8), Degrees(tp=8, ep=8), Degrees(dp=8, ep=8)):
        experts = [
            w.size * w.count
            for w in Server("deepseek-v3", "h200-sxm", degrees).engines["decode"].forward.weights
            if w.expert
        ]
        assert 8 * sum(experts) == 58 * 256 * 3 * 7168 * 2048


def test_heads_that_ranks_share_are_whole_on_each():
    """Fewer heads of keys than ranks; a latent is whole on every rank."""
    for tp, heads in ((1, 8), (4, 2), (8, 1), (16, 1)):
        server = Server("llama-3-70b", "h100-sxm5", Degrees(tp=tp))
        assert float(server.cache_bytes(1)) == 2 * 80 * heads * 128 * 2
        assert float(Server("deepseek-v3", "h200-sxm", Degrees(tp=tp)).cache_bytes(1)) == 70272


def test_fewer_bits_take_less_memory():
    """Formats in the order of their bits: weights and cache; never slower to stream."""
    bytes_, seconds = [], []
    for weights in ("fp32", "bf16", "fp8", "q6_k", "q4_k_m", "int4", "q2_k"):
        server = Server("llama-3-8b", "rtx-4090", weights=weights, stack="llama.cpp")
        bytes_.append(server.weight_bytes)
        seconds.append(float(server.decode(1, 500)))
    assert np.all(np.diff(bytes_[:5]) < 0)
    assert bytes_[5] < bytes_[2]
    assert np.all(np.diff(seconds[:5]) < 0)
    wide, narrow = (Server("llama-3-8b", "h100-sxm5", kv=kv) for kv in ("bf16", "fp8"))
    assert float(narrow.cache_bytes(900)) == 0.5 * float(wide.cache_bytes(900))
    assert np.all(narrow.decode(ROWS, 5000) < wide.decode(ROWS, 5000))


def test_a_step_streams_its_weights():
    """No step is shorter than its weights and cache take at the printed bandwidth."""
    for device in ("h100-sxm5", "b200-sxm", "mi300x", "rtx-4090", "m2-ultra", "epyc-9654"):
        for weights in ("bf16", "int4"):
            server = Server("llama-3-8b", device, weights=weights)
            held = 0.85 * server.weight_bytes + 64 * server.cache_bytes(3000)  # without the table
            bound = held / float(server.device.memory.bandwidth)
            assert float(server.decode(64, 3000)) > bound


def test_a_faster_link_is_never_slower():
    """Twice the bandwidth between devices; PCIe costs more than NVLink."""
    for degrees in (Degrees(tp=4), Degrees(dp=4, ep=4), Degrees(tp=2, pp=2)):
        server = Server("qwen3-30b-a3b", "h100-sxm5", degrees)
        slow = server.decode(ROWS, 1000), server.prefill(4, 1000)
        fabric = server.links.fabric
        levels = tuple(x._replace(bandwidth=2 * x.bandwidth) for x in fabric.levels)
        server.links = server.links._replace(fabric=fabric._replace(levels=levels))
        fast = server.decode(ROWS, 1000), server.prefill(4, 1000)
        assert np.all(fast[0] <= slow[0])
        assert fast[1] < slow[1]
    bus, switch = (
        Server("llama-3-8b", name, Degrees(tp=4)).decoding(1, 500).seconds["exchanges"]
        for name in ("a100-pcie-80gb", "a100-sxm4-80gb")
    )
    assert bus > switch


def test_a_faster_device_is_never_slower():
    """More of any one rate."""
    base = Server("mixtral-8x7b", "h100-sxm5", weights="fp8")
    for edit in ("memory.bandwidth=6 TB/s", "peak_flops.fp8=4 PFLOP/s", "clock=3 GHz"):
        key, value = edit.split("=")
        device = hwdb.device("h100-sxm5", {key: value})
        faster = Server("mixtral-8x7b", device, weights="fp8")
        assert np.all(faster.decode(ROWS, 2000) <= 1.0001 * base.decode(ROWS, 2000))


def test_products_of_a_prompt_are_counted():
    """FLOPs of the matrix products of a prompt equal those of a pass over whole sequences, but for
    the head, which makes logits of the last token alone.
    """
    for name in ("llama-3-8b", "olmo-2-7b", "qwen3-30b-a3b"):
        model, tokens = catalog.resolve(name), 512.0
        recipe = Recipe(
            mode="infer", batch=2, size=256, precision="bf16", optimizer=None, recompute="none",
            stack=stack("pytorch-eager"),
        )  # fmt: skip
        whole = trace(model, recipe)
        head = [k for k in whole.kernels if whole.nodes[k.node].name == "lm_head" and k.matrix]
        products = sum(k.matrix * k.count for k in whole.kernels if k.kind == "matmul")
        products -= sum(k.matrix for k in head)
        made = forward(model, "prefill", Formats("bf16"), ALONE)
        counted = [k for k in made.launches if k.kind in ("matmul", "expert_matmul")]
        size = np.array([1.0, 2.0, tokens])
        mine = sum(k.count * k.matrix @ size for k in counted if k.name != "lm_head")
        assert mine == pytest.approx(products, rel=1e-9)


def test_a_mean_of_experts_is_hit():
    """One token hits k of them, many hit all."""
    from roofcast.simulator.serving.experts import experts_hit

    assert float(experts_hit(128, 8 / 128, 1)) == pytest.approx(8)
    assert float(experts_hit(128, 8 / 128, 10_000)) == pytest.approx(128)
    few, many = (
        Server("qwen3-30b-a3b", "h100-sxm5").decoding(np.array([1.0, 256.0]), 10).seconds["experts"]
    )
    assert many > 6 * few


def test_every_profile_serves():
    """Each is read and makes a step."""
    for name in profiles.names():
        server = Server("llama-3.2-1b", "rtx-4090", stack=name)
        assert server.decode(1, 100) > 0
        assert server.profile.name == name


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"model": "resnet50"}, "no decoder"),
        ({"model": "bert-base"}, "no decoder"),
        ({"degrees": Degrees(tp=3)}, "tp 3 does not divide"),
        ({"degrees": Degrees(ep=4)}, "ep 4 does not divide"),
        ({"degrees": Degrees(dp=2)}, "no experts"),
        ({"weights": "int3.5x"}, "known formats"),
        ({"kv": "int2"}, "known formats"),
        ({"stack": "vlm"}, "vllm"),
    ],
)
def test_wrong_input_is_one_line(given, says):
    """What cannot be served."""
    model = given.pop("model", "llama-3-8b")
    with pytest.raises((BadInput, UnknownName), match=says) as caught:
        Server(model, "h100-sxm5", given.pop("degrees", Degrees()), **given)
    assert "\n" not in str(caught.value)
