"""Models with state-space layers, linear attention or recurrences: parameters, kernels, layouts."""

import csv
import itertools
from pathlib import Path

import numpy as np
import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.forecast.cache import with_cache
from roofcast.simulator.forecast.layouts import UNCUT
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.models import resolve
from roofcast.simulator.models.catalog import from_config
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Parallel

ORACLE = Path(__file__).parents[1] / "oracle"
FUSED = {"scan": "fused", "rms_norm": "fused"}


def parameters():
    with (ORACLE / "parameters_hybrid.csv").open(encoding="utf-8") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return {row["model"]: int(row["parameters"]) for row in rows}


PARAMETERS = parameters()
# Mamba-2 of one group of B and C, and Mamba, which has no heads
WHOLE = [
    n
    for n in PARAMETERS
    if getattr(getattr(resolve(n).config, "mixer", None), "groups", None) == 1
    or resolve(n).family in UNCUT
]


def run(model, batch=1, sequence=64, **how):
    model = resolve(model) if isinstance(model, str) else from_config("small", model)
    return model.run(Tape(precision("bf16"), **how), batch, sequence)


def products(tape, phase="forward", within=""):
    return sum(
        k.matrix * k.count
        for k in tape.kernels
        if k.phase == phase and within in tape.nodes[k.node].name
    )


def kept(tape):
    return sum(entry.bytes * entry.count for entry in tape.saved.values())


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters_equal_those_of_transformers(name):
    for how in ({}, FUSED):
        tape = run(name, implementations=how)
        assert sum(w.size * w.count for w in tape.weights) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_fused_kernels_keep_less_and_say_so(name):
    composed, fused = (run(name, sequence=512, implementations=h) for h in ({}, FUSED))
    assert kept(fused) < kept(composed)
    assert any("composed of PyTorch's ops" in text for text in composed.assumptions)
    assert any("the kernels of" in text for text in fused.assumptions)


MAMBA2 = {
    "model_type": "mamba2", "vocab_size": 101, "hidden_size": 48, "num_hidden_layers": 1,
    "num_heads": 6, "head_dim": 16, "state_size": 8, "n_groups": 2, "chunk_size": 8,
}  # fmt: skip
DELTA = {
    "model_type": "qwen3_5_text", "vocab_size": 101, "hidden_size": 48, "num_hidden_layers": 1,
    "layer_types": ["linear_attention"], "intermediate_size": 80, "linear_key_head_dim": 8,
    "linear_value_head_dim": 12, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
}  # fmt: skip


class Multiplied:
    """Matrix products whose FLOPs are counted."""

    def __init__(self):
        self.flops = 0

    def __call__(self, a, b):
        self.flops += 2 * a.shape[0] * a.shape[1] * b.shape[1]
        return a @ b


def step_by_step(x, dt, a, b, c):
    """y[t] = C[t] h[t] of one head; h[t] = exp(dt[t] a) h[t-1] + dt[t] B[t] x[t]."""
    state, y = np.zeros((b.shape[1], x.shape[1])), []
    for t in range(len(x)):
        state = np.exp(dt[t] * a) * state + dt[t] * np.outer(b[t], x[t])
        y.append(c[t] @ state)
    return np.array(y)


def test_flops_of_the_fused_scan_are_those_of_the_algorithm_in_chunks():
    """The chunked algorithm gives what the recurrence gives, and its products are counted."""
    length, chunk, heads, groups, dim, state = 24, 8, 6, 2, 16, 8
    rng, product = np.random.default_rng(0), Multiplied()
    b, c = rng.normal(size=(2, groups, length, state))
    for head, start in itertools.product(range(heads), range(0, length, chunk)):
        if head % (heads // groups) == 0:  # G, once per group
            g = head // (heads // groups)
            product(c[g, start : start + chunk], b[g, start : start + chunk].T)
    for head in range(heads):
        g = head // (heads // groups)
        x, dt, a = rng.normal(size=(length, dim)), rng.uniform(size=length), -0.7
        carried, out = np.zeros((state, dim)), []
        for start in range(0, length, chunk):
            part = slice(start, start + chunk)
            sums = np.cumsum(dt[part] * a)
            decay = np.tril(np.exp(sums[:, None] - sums[None]))
            scores = (c[g, part] @ b[g, part].T) * decay * dt[part]
            inside = product(scores, x[part])
            outside = product(c[g, part] * np.exp(sums)[:, None], carried)
            out.append(inside + outside)
            weight = (np.exp(sums[-1] - sums) * dt[part])[:, None]
            carried = np.exp(sums[-1]) * carried + product((b[g, part] * weight).T, x[part])
        np.testing.assert_allclose(np.concatenate(out), step_by_step(x, dt, a, b[g], c[g]))
    tape = run(MAMBA2, sequence=length, implementations=FUSED)
    assert products(tape, within="mixer.scan") == product.flops


def test_flops_of_the_fused_delta_rule_are_those_of_the_algorithm_in_chunks():
    """The algorithm gives what the recurrence gives; its triangular system is no product."""
    length, chunk, heads, k_dim, v_dim = 128, 64, 4, 8, 12
    rng, product = np.random.default_rng(0), Multiplied()
    for _ in range(heads):
        q, k = rng.normal(size=(2, length, k_dim))
        k /= np.linalg.norm(k, axis=1, keepdims=True)
        v, beta = rng.normal(size=(length, v_dim)), rng.uniform(size=(length, 1))
        g, y = -rng.uniform(size=length) / 8, []
        carried = np.zeros((k_dim, v_dim))
        for start in range(0, length, chunk):
            qc, kc, vc, bc = (x[start : start + chunk] for x in (q, k, v, beta))
            sums = np.cumsum(g[start : start + chunk])
            decay = np.tril(np.exp(sums[:, None] - sums[None]))
            system = np.tril(product(bc * kc, kc.T) * decay, -1) + np.eye(chunk)
            inverse = np.linalg.inv(system)
            values, reads = (
                product(inverse, bc * vc),
                product(inverse, bc * kc * np.exp(sums)[:, None]),
            )
            new = values - product(reads, carried)
            inside = product(product(qc, kc.T) * decay, new)
            y.append(product(qc * np.exp(sums)[:, None], carried) + inside)
            last = np.exp(sums[-1] - sums)[:, None]
            carried = np.exp(sums[-1]) * carried + product((kc * last).T, new)
        state, expected = np.zeros((k_dim, v_dim)), []
        for t in range(length):
            state = np.exp(g[t]) * state
            state = state + np.outer(k[t], beta[t] * (v[t] - k[t] @ state))
            expected.append(q[t] @ state)
        np.testing.assert_allclose(np.concatenate(y), expected, rtol=1e-6, atol=1e-9)
    tape = run(DELTA, sequence=length, implementations=FUSED)
    assert products(tape, within="delta_rule") == product.flops


WIDE = DELTA | {"linear_key_head_dim": 64, "linear_value_head_dim": 64}


@pytest.mark.parametrize("config", [MAMBA2, WIDE], ids=["scan", "delta rule"])
def test_backward_of_a_fused_kernel_is_twice_its_forward_and_what_it_computes_again(config):
    tape = run(config, sequence=128, implementations=FUSED)
    within = "scan" if config is MAMBA2 else "delta_rule"
    ratio = products(tape, "backward", within) / products(tape, within=within)
    assert 2 < ratio < 4


@pytest.mark.parametrize("name", WHOLE)
def test_layers_without_groups_to_cut_refuse_tensor_parallelism(name):
    with pytest.raises(BadInput, match=r"tp 2.*(use tp 1|use --dp)"):
        predict(model=name, device="h100-sxm5", batch=8, sequence=256, devices=8, tp=2)


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_state_is_not_passed_from_rank_to_rank(name):
    with pytest.raises(BadInput, match=r"cp 2: .* passes a state along the sequence.*use cp 1"):
        run(name, parallel=Parallel(cp=2))


EVERY = (
    "nemotron-3-nano-30b-a3b", "granite-4.0-h-tiny", "jamba-1.5-mini", "qwen3-next-80b-a3b",
    "minimax-text-01", "lfm2-8b-a1b",
)  # fmt: skip


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("how", ["none", "full", "selective", "every:2", "block:3", "modules:norm"])
def test_hybrids_train_in_pipelines_with_experts_and_recomputation(name, how):
    f = predict(
        model=name, device="h200-sxm", batch=16, sequence=1024, devices=16, pp=2, ep=8, zero=1,
        micro_batch=1, recompute=how,
    )  # fmt: skip
    assert f.step_time_s > 0
    assert sum(r.layers for r in f.ranks) == len(resolve(name).config.kinds)


@pytest.mark.parametrize("stack", ["pytorch-eager", "fsdp-fused", "megatron"])
@pytest.mark.parametrize("name", PARAMETERS)
def test_hybrids_train_and_infer(name, stack):
    asked = {"model": name, "device": "b200", "batch": 1, "sequence": 512, "stack": stack}
    train, infer = predict(**asked), predict(**asked, mode="infer")
    assert train.step_time_s > 1.5 * infer.step_time_s > 0


def test_an_unknown_kind_of_layer_is_named():
    config = {"model_type": "nemotron_h", "hybrid_override_pattern": "M-Q*"}
    with pytest.raises(BadInput, match=r"layer of kind 'Q'; known"):
        from_config("small", config)


@pytest.mark.parametrize(
    ("name", "per_token", "states"),
    [  # states in fp32 and the last inputs of a convolution in bf16, of each layer
        ("granite-4.0-h-tiny", 8192, 36 * (3072 * 128 * 4 + (3072 + 2 * 128) * 4 * 2)),
        ("mamba-130m", 0, 24 * (1536 * 16 * 4 + 1536 * 4 * 2)),
        ("llama-3-8b", 131072, 0),
    ],
)
def test_memory_of_inference_counts_recurrent_states(name, per_token, states):
    asked = {"model": name, "device": "h100-sxm5", "mode": "infer", "batch": 3, "sequence": 512}
    alone = predict(**asked)
    held = with_cache(alone, Scenario(**asked)).memory
    assert held.kv_cache_bytes == 3 * (512 * per_token + states)
    assert held.peak_bytes == alone.memory.peak_bytes + held.kv_cache_bytes
