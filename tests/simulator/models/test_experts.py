"""Mixtures of experts: parameters against transformers, layouts, and keys of their config.json."""

import csv
import json
from pathlib import Path

import pytest

from roofcast import count
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models import from_config, resolve
from roofcast.simulator.models.catalog import CONFIGS
from roofcast.simulator.models.families.sparse_config import FACTS
from roofcast.simulator.models.families.table import FAMILIES
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape
from roofcast.simulator.work.traced import Parallel

ORACLE = Path(__file__).parents[1] / "oracle"
SELECTED = {"sparse_attention": "selected"}
SMALL = {
    "vocab_size": 128,
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
LATENT = {
    **SMALL,
    "num_key_value_heads": 8,
    "moe_intermediate_size": 32,
    "n_routed_experts": 8,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 16,
    "q_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
}
INDEXED = {**LATENT, "index_n_heads": 4, "index_head_dim": 16, "index_topk": 16}
KEYS = {"hunyuan_v1_moe": {"num_experts": 8, "moe_topk": 2}, "flex_olmo": {"num_experts": 8}}
KEYS |= {"dots1": {"n_routed_experts": 8, "num_experts_per_tok": 2}}


def parameter_rows():
    lines = (ORACLE / "parameters_moe.csv").read_text(encoding="utf-8").splitlines()
    table = csv.DictReader(line for line in lines if not line.startswith("#"))
    return [(row["model"], int(row["parameters"])) for row in table]


def tape_of(config, parallel=None, sequence=32, **options):
    tape = Tape(precision("bf16"), parallel=parallel or Parallel(), **options)
    return from_config("small", config).run(tape, 2, sequence)


def parameters(tape):
    return sum(w.size * w.count for w in tape.weights)


def work(tape):
    return sum(k.matrix * k.count for k in tape.kernels)


def small(kind):
    latent = FAMILIES[kind] == "deepseek"
    base = (INDEXED if kind in ("deepseek_v32", "glm_moe_dsa") else LATENT) if latent else SMALL
    return {**base, "model_type": kind, **KEYS.get(kind, {})}


KINDS = (*FACTS, "kimi_k2", "glm4_moe_lite", "deepseek_v32", "glm_moe_dsa")


@pytest.mark.parametrize(("name", "count"), parameter_rows())
def test_parameters_equal_those_of_transformers(name, count):
    assert parameters(resolve(name).run(Tape(precision("bf16")), 1, 16)) == count


def test_every_shipped_mixture_of_experts_is_in_the_table():
    texts = {path.stem: path.read_text(encoding="utf-8") for path in CONFIGS.glob("*.json")}
    sparse = {name for name, text in texts.items() if json.loads(text).get("model_type") in KINDS}
    assert sparse | {"dbrx", "llama-4-maverick"} <= {name for name, _ in parameter_rows()}


def test_every_model_type_with_facts_is_a_family():
    assert set(FACTS) == {kind for kind, module in FAMILIES.items() if module == "sparse"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "layout", [{"tp": 2, "sp": True}, {"cp": 2}, {"ep": 2}, {"etp": 2, "ep": 2}], ids=str
)
def test_the_ranks_together_do_all_work_once(kind, layout):
    """The exception are linear layers that all ranks of a group of tokens hold: none here."""
    parallel = Parallel(**layout)
    ranks = parallel.tp * parallel.cp
    whole = tape_of(small(kind), implementations=SELECTED)
    part = tape_of(small(kind), parallel, 32 // parallel.cp, implementations=SELECTED)
    assert work(part) * ranks == work(whole)
    if ranks == 1:
        assert parameters(part) < parameters(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_inference_has_the_parameters_of_training_and_no_backward(kind):
    trained, used = (tape_of(small(kind), training=training) for training in (True, False))
    assert parameters(trained) == parameters(used)
    assert not used.saved
    assert {k.phase for k in used.kernels} == {"forward"}


def test_flops_of_dbrx_equal_those_of_pytorch():
    """On real tensors, PyTorch 2.13.0 and transformers 5.24.0: its loop over experts needs them."""
    attention, experts = {"kv_n_heads": 2, "clip_qkv": 8.0}, {"moe_num_experts": 8, "moe_top_k": 3}
    config = {
        "model_type": "dbrx", "d_model": 48, "n_heads": 6, "n_layers": 2, "vocab_size": 101,
        "attn_config": attention, "ffn_config": {**experts, "ffn_hidden_size": 72},
    }  # fmt: skip
    tape = tape_of(config, implementations={"attention": "eager"})
    assert work(tape) == 11_040_768 + 22_081_536
    assert parameters(tape) == 188_880


def test_norms_over_all_heads_are_summed_over_the_tensor_parallel_ranks():
    tape = tape_of(small("minimax_m2"), Parallel(tp=2, sp=True))
    assert min(t.bytes for t in tape.traffic if t.kind == "all_reduce") == 4 * 2 * 32


def test_chosen_keys_bound_the_flops_of_attention():
    """Twice the tokens are twice the attention where keys are chosen, else four times."""

    def attention(how, sequence):
        tape = tape_of(
            small("deepseek_v32"), sequence=sequence, implementations={"sparse_attention": how}
        )
        return sum(k.matrix * k.count for k in tape.kernels if k.kind == "attention")

    assert attention("selected", 128) == 2 * attention("selected", 64)
    assert attention("masked", 128) == 4 * attention("masked", 64)
    # 8 heads of 16 queried and 16 valued elements, 4 layers, 2 samples; backward is 2.5 times it
    assert attention("selected", 64) == 3.5 * 2 * 2 * 4 * 8 * 64 * 16 * (16 + 16)


def test_indexers_score_all_keys_and_are_not_trained():
    tape = tape_of(small("deepseek_v32"), implementations=SELECTED)
    names = [node.name for node in tape.nodes]
    scores = [k for k in tape.kernels if names[k.node].endswith("indexer.scores")]
    assert {k.phase for k in scores} == {"forward"}
    assert sum(k.matrix * k.count for k in scores) == 4 * 2 * 2 * 32 * 32 * 4 * (16 + 1)
    frozen = sum(w.size * w.count for w in tape.weights if not w.trainable)
    assert frozen == 4 * (16 * 4 * 16 + 64 * 16 + 2 * 16 + 64 * 4)


def test_layers_that_share_indices_have_no_indexer():
    config = small("glm_moe_dsa")
    shared = {**config, "indexer_types": ["full", "shared", "full", "shared"]}
    indexer = 16 * 4 * 16 + 64 * 16 + 2 * 16 + 64 * 4
    assert parameters(tape_of(config)) - parameters(tape_of(shared)) == 2 * indexer
    pattern = {**config, "index_topk_pattern": "FSFS"}
    assert parameters(tape_of(shared)) == parameters(tape_of(pattern))


@pytest.mark.parametrize(
    ("kind", "keys", "said"),
    [
        ("glm4_moe", {"num_nextn_predict_layers": 1}, "num_nextn_predict_layers 1"),
        ("minimax_m2", {"num_mtp_modules": 3}, "num_mtp_modules 3"),
        ("deepseek_v32", {"num_nextn_predict_layers": 1}, "num_nextn_predict_layers 1"),
        ("deepseek_v32", {}, "over all 32 keys with a mask"),
    ],
)
def test_what_is_not_counted_is_said(kind, keys, said):
    assert any(said in line for line in tape_of({**small(kind), **keys}).assumptions)


@pytest.mark.parametrize(
    ("kind", "keys", "message"),
    [
        ("glm4_moe", {"num_experts_per_tok": 200}, "200 of 128 experts"),
        ("glm4_moe", {"n_group": 3}, "groups must be equal"),
        ("olmoe", {"num_experts": 0}, "8 of 0 experts"),
        ("qwen2_moe", {"decoder_sparse_step": 0}, "'decoder_sparse_step' is 0"),
        ("ernie4_5_moe", {"moe_layer_interval": 0}, "'moe_layer_interval' is 0"),
        ("dots1", {"layer_types": ["full_attention"]}, "'layer_types' has 1 entry for 4"),
        ("hunyuan_v1_moe", {"moe_topk": [1, 2, 1, 2]}, "'moe_topk' differs between layers"),
        ("minimax_m2", {"rotary_dim": 500}, "500 of 128 elements"),
        ("glm_moe_dsa", {"indexer_types": ["full"]}, "'indexer_types' has 1 entry for 4"),
        ("glm_moe_dsa", {"indexer_types": ["shared"] * 4}, "the first layer needs an indexer"),
        ("deepseek_v32", {"index_topk": 0}, "'index_topk' 0 must be positive"),
        ("deepseek_v32", {"q_lora_rank": None}, "'q_lora_rank' is missing"),
        ("glm4_moe_lite", {"mlp_layer_types": ["dense"]}, "'mlp_layer_types' has 1 entry"),
        ("dbrx", {"n_heads": 5}, "'n_heads' 5 must divide 'd_model'"),
    ],
)
def test_sizes_that_do_not_fit_together_are_refused_in_one_line(kind, keys, message):
    config = {"model_type": kind} if kind == "dbrx" else small(kind)
    with pytest.raises(BadInput, match=message) as error:
        tape_of({**config, **keys})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "experts", "chosen", "layers", "size"),
    [
        ("mixtral-8x7b", 8, 2, 32, 3 * 4096 * 14336),
        ("qwen3-30b-a3b", 128, 8, 48, 3 * 2048 * 768),
        ("gpt-oss-20b", 32, 4, 24, 3 * 2880 * 2880 + 3 * 2880),  # with biases
        ("llama-4-scout", 16, 1, 48, 3 * 5120 * 8192),  # every token passes all of them
    ],
)
def test_a_token_uses_all_but_the_experts_that_it_does_not_choose(
    name, experts, chosen, layers, size
):
    for mode in ("train", "infer"):
        found = count(name, batch=1, sequence=8, mode=mode)
        left = found.parameters - layers * (experts - chosen) * size
        assert found.active_parameters == left


def test_without_experts_a_token_uses_every_parameter():
    found = count("gpt2", batch=1, sequence=8)
    assert found.active_parameters is None
    assert "used by one token" not in str(found)
    assert "12,879,925,248 are used by one token" in str(count("mixtral-8x7b", sequence=8))
