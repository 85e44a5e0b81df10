"""What a Hugging Face config.json says beside sizes: quantization, towers, classes, other keys."""

import csv
import json
from pathlib import Path

import pytest

from roofcast import count, predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.catalog import CONFIGS, from_config, resolve
from roofcast.simulator.models.families.table import FAMILIES
from roofcast.simulator.models.names import SHIPPED
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

TABLE = Path(__file__).parents[1] / "oracle" / "config_json.csv"

LLAMA = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
    "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
    "vocab_size": 128256, "max_position_embeddings": 131072,
}  # fmt: skip
MATRICES, WEIGHTS = 6_979_321_856, 8_030_261_248  # of the blocks, and of all of it
SMALL = {
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 1000,
}  # fmt: skip
MOE = SMALL | {
    "model_type": "qwen3_moe", "num_experts": 4, "num_experts_per_tok": 2,
    "moe_intermediate_size": 32, "head_dim": 16,
}  # fmt: skip


def run(raw, *, training=False, policy="bf16", batch=1, size=32):
    return from_config("it", raw).run(Tape(precision(policy), training=training), batch, size)


def bytes_of(tape):
    from roofcast.hwdb.formats import WIDTH

    return sum(w.size * w.count * WIDTH[w.dtype] for w in tape.weights)


def file(tmp_path, raw):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(raw))
    return str(path)


# ------------------------------------------------------------------ towers and classes
def table():
    with TABLE.open(encoding="utf-8") as lines:
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))


@pytest.mark.parametrize("row", table(), ids=lambda row: row["name"])
def test_parameters_of_towers_and_heads_equal_those_of_transformers(row):
    tape = run(json.loads(row["config"]), training=True, batch=2)
    assert sum(w.size * w.count for w in tape.weights) == int(row["parameters"])


SIGLIP = {
    "hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "patch_size": 14,
    "model_type": "siglip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 27,
    "vision_use_head": False,
}  # fmt: skip
CLIP = {
    "hidden_size": 1024, "image_size": 336, "intermediate_size": 4096, "patch_size": 14,
    "model_type": "clip_vision_model", "num_attention_heads": 16, "num_hidden_layers": 24,
}  # fmt: skip
QWEN2 = {
    "hidden_size": 3584, "intermediate_size": 18944, "num_attention_heads": 28,
    "num_hidden_layers": 28, "num_key_value_heads": 4, "vocab_size": 152064,
}  # fmt: skip
MISTRAL = {
    "head_dim": 128, "hidden_size": 5120, "intermediate_size": 32768, "model_type": "mistral",
    "num_hidden_layers": 40, "vocab_size": 131072,
}  # fmt: skip
PUBLISHED = {  # parameters of the checkpoint on the Hugging Face Hub -> its config.json, in part
    # sizes that are transformers' defaults are left out there, too
    4_300_079_472: {  # google/gemma-3-4b-it
        "model_type": "gemma3", "vision_config": SIGLIP,
        "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34},
    },
    7_063_427_072: {  # llava-hf/llava-1.5-7b-hf
        "model_type": "llava", "vision_config": CLIP, "tie_word_embeddings": False,
        "text_config": {"model_type": "llama", "vocab_size": 32064},
    },
    8_291_375_616: QWEN2 | {  # Qwen/Qwen2-VL-7B-Instruct
        "model_type": "qwen2_vl", "vision_config": {"depth": 32, "embed_dim": 1280},
    },
    8_292_166_656: QWEN2 | {  # Qwen/Qwen2.5-VL-7B-Instruct
        "model_type": "qwen2_5_vl", "vision_config": {"hidden_size": 1280},
    },
    24_011_361_280: {  # mistralai/Mistral-Small-3.1-24B-Instruct-2503
        "model_type": "mistral3", "vision_config": {"patch_size": 14}, "text_config": MISTRAL,
    },
}  # fmt: skip


@pytest.mark.parametrize("published", PUBLISHED)
def test_parameters_of_published_multimodal_models(published):
    tape = run(PUBLISHED[published])
    assert sum(w.size * w.count for w in tape.weights) == published


def test_llama_4_scout_has_a_vision_tower_and_says_that_text_alone_is_run(tmp_path):
    text = json.loads((CONFIGS / "llama-4-scout.json").read_text())
    path = file(tmp_path, {"model_type": "llama4", "text_config": text})
    found = count(path, sequence=32)
    assert found.parameters == 108_225_039_360
    assert any("455,178,240 parameters in memory, not run" in a for a in found.assumptions)
    assert found.flops_forward == count("llama-4-scout", sequence=32).flops_forward


WRONG_EARS = [
    {"d_model": 0}, {"d_model": [1, 2, 3]}, {"encoder_layers": "many"}, {"num_mel_bins": -1},
    {"max_source_positions": 10**18}, {"encoder_ffn_dim": 1.5},
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG_EARS, ids=str)
@pytest.mark.parametrize("kind", ["qwen2_audio", "qwen2_5_omni_thinker"])
def test_wrong_audio_towers_are_refused_by_key(kind, wrong):
    raw = {"model_type": kind, "text_config": SMALL | {"model_type": "qwen2"}}
    with pytest.raises(BadInput) as caught:
        from_config("it", raw | {"audio_config": wrong}, "config.json")
    text = str(caught.value)
    assert text.startswith("config.json: ") and len(text) < 300 and "\n" not in text


WRONG_TOWERS = [
    {"vision_config": {"patch_size": 0}},
    {"vision_config": {"image_size": []}},
    {"vision_config": {"hidden_size": "wide"}},
    {"vision_config": {"num_hidden_layers": 10**18}},
    {"vision_config": 7},
    {"text_config": "none"},
    {"text_config": {"model_type": "qwen2", "hidden_size": None}},
    {"downsample_ratio": "half"},
    {"downsample_ratio": float("nan")},
]


@pytest.mark.parametrize("wrong", WRONG_TOWERS, ids=str)
def test_wrong_parts_are_refused_by_key(wrong):
    raw = {"model_type": "internvl", "text_config": SMALL | {"model_type": "qwen2"}}
    key = next(iter(wrong))
    keys = wrong[key] if isinstance(wrong[key], dict) else {key: 0}
    with pytest.raises(BadInput) as caught:
        from_config("it", raw | wrong, "config.json")
    assert str(caught.value).startswith("config.json: ") and len(str(caught.value)) < 300
    assert any(name in str(caught.value) for name in (key, *keys))


def test_towers_are_held_and_not_trained():
    row = next(row for row in table() if row["name"] == "gemma3")
    tape = run(json.loads(row["config"]), training=True)
    towers = [w for w in tape.weights if "vision_tower" in tape.nodes[w.node].name]
    assert towers and not any(w.trainable for w in towers)


def test_a_part_that_is_not_counted_is_said():
    raw = {"model_type": "qwen2_audio", "text_config": SMALL | {"model_type": "qwen2"}}
    tape = run(raw | {"audio_config": {"d_model": 1280}, "talker_config": {"d_model": 1280}})
    assert any(a.startswith("talker_config: not run and not counted") for a in tape.assumptions)
    assert any(a.startswith("audio_config: tower of ") for a in tape.assumptions)


def test_the_class_in_architectures_tells_the_family():
    raw = MOE | {"model_type": "qwen9", "architectures": ["Qwen3MoeForCausalLM"]}
    tape = run(raw)
    assert any(a.startswith("model_type qwen9: read as qwen3_moe") for a in tape.assumptions)
    assert bytes_of(tape) == bytes_of(run(MOE))


def test_a_head_that_is_not_made_is_said():
    bert = {"vocab_size": 1000, "hidden_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "intermediate_size": 128, "model_type": "bert"}  # fmt: skip
    tape = run(bert | {"architectures": ["BertForNextSentencePrediction"]})
    assert any(
        "BertForNextSentencePrediction is counted with the usual" in a for a in tape.assumptions
    )


def test_a_refusal_names_the_nearest_families_and_the_way_through_a_py():
    raw = {"model_type": "qwen3_mow", "architectures": ["Qwen3MowForCausalLM"], "x": "y" * 5000}
    with pytest.raises(BadInput) as caught:
        from_config("it", raw, "config.json")
    text = str(caught.value)
    assert "nearest known: qwen3_moe" in text and len(text) < 500
    assert "t.Qwen3MowForCausalLM(t.AutoConfig.from_pretrained('config.json'))" in text
    assert "net.py:net --input 1x128:int64" in text


# ------------------------------------------------------------------ other keys
def test_a_key_is_read_known_to_cost_nothing_or_said():
    free = {"torch_dtype": "bfloat16", "rope_theta": 1e6, "bos_token_id": 1, "use_cache": True}
    off = {"index_topk": None, "n_extra": 0, "gated": False}
    assert run(SMALL | {"model_type": "llama"} | free | off).assumptions == []
    said = run(SMALL | {"model_type": "llama", "index_topk": 2048, "gate_rank": 8}).assumptions
    assert said == ["keys of config.json that no formula reads: index_topk, gate_rank"]


# what a shipped config.json has beside what is counted or run, by the key that says so
BESIDE = ("num_nextn_predict_layers", "vision_config", "index_topk")


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_shipped_models_leave_out_only_what_is_said_by_its_key(name):
    raw = json.loads((CONFIGS / f"{name}.json").read_text())
    said = resolve(name).run(Tape(precision("bf16")), 1, None).assumptions
    beside = [
        key
        for key in BESIDE
        if raw.get(key) and raw.get("model_type") not in ("clip", "sam", "siglip")
    ]
    assert not [line for line in said if line.startswith("key")]
    named = [line.partition(":")[0].partition(" ")[0] for line in said]
    assert sorted(key for key in named if key in BESIDE) == sorted(beside)


def test_what_is_said_of_a_hostile_file_is_short_and_plain():
    keys = {f"\x1b[2J{i}" + "k" * 5000: 1 for i in range(1000)}
    parts = {f"{'x' * 500}{i}_config": {"a": 1} for i in range(1000)}
    raw = {"model_type": "qwen2_audio", "text_config": SMALL | keys} | parts
    said = run(raw | {"quantization_config": {"quant_method": "\x1b[2J" * 999}}).assumptions
    assert len(said) < 10 and all(len(line) < 500 and line.isprintable() for line in said)


def test_a_kind_of_layer_without_a_formula_is_said():
    kinds = {"layer_types": ["full_attention", "hyper_attention"], "model_type": "llama"}
    assert "layer_types: 'hyper_attention' has no formula" in run(SMALL | kinds).assumptions


# ------------------------------------------------------------------ the cache of generation
CACHES = {  # elements of keys and values per token, times two bytes
    "llama-3.1-8b": 2 * 32 * 8 * 128 * 2,
    "deepseek-v3": 61 * (512 + 64) * 2,  # latent attention keeps its compressed form
    "gpt-oss-20b": 2 * 24 * 8 * 64 * 2,
    "falcon-40b": 2 * 60 * 8 * 64 * 2,
    "gpt2": 2 * 12 * 768 * 2,
    "bloom-560m": 2 * 24 * 1024 * 2,
    "gpt-j-6b": 2 * 28 * 4096 * 2,
    "mpt-7b": 2 * 32 * 4096 * 2,
    "xglm-564m": 2 * 24 * 1024 * 2,
    "gemma-3n-e2b": 2 * 20 * 2 * 256 * 2,  # ten more layers read the keys of earlier ones
    "gemma-4-e2b": 2 * (12 * 256 + 3 * 512) * 2,  # of 35 layers, 15 have keys of their own
    "jamba-1.5-mini": 2 * 4 * 8 * 128 * 2,  # its layers with attention
    "qwen3-next-80b-a3b": 2 * 12 * 2 * 256 * 2,
}


@pytest.mark.parametrize("name", CACHES)
def test_inference_says_how_large_a_cache_would_be(name):
    found = predict(name, device="h200-sxm", mode="infer", sequence=128)
    assert found.memory.kv_cache_bytes_per_token == CACHES[name]
    line = next(a for a in found.assumptions if a.startswith("no KV cache counted"))
    assert f"{CACHES[name] / 1024:.3g} KiB per token" in line


CROSS = {  # keys and values of the encoder's output, per sequence: two bytes each
    "whisper-small": (2 * 12 * 768 * 2, 1500),
    "t5-base": (2 * 12 * 768 * 2, 128),
    "bart-large": (2 * 12 * 1024 * 2, 128),
}


@pytest.mark.parametrize("name", CROSS)
def test_the_cache_of_an_encoder_decoder_has_the_tokens_of_the_encoder(name):
    size, tokens = CROSS[name]
    found = predict(name, device="h200-sxm", mode="infer", sequence=128)
    assert found.memory.kv_cache_bytes_per_token == size  # as many heads in both attentions
    assert found.memory.cross_cache_bytes_per_sequence == size * tokens
    line = next(a for a in found.assumptions if a.startswith("no KV cache counted"))
    assert f"for the {tokens:,} tokens of the encoder's output" in line


def test_short_convolutions_hold_their_last_inputs():
    found = predict("lfm2-1.2b", device="h200-sxm", mode="infer", sequence=128)
    line = next(a for a in found.assumptions if a.startswith("no KV cache counted"))
    assert "the last inputs of a convolution" in line


def test_layers_with_a_window_stop_to_grow():
    memory = predict("gpt-oss-20b", device="h200-sxm", mode="infer", sequence=128).memory
    assert memory.kv_cache_bytes_per_token_past_windows == memory.kv_cache_bytes_per_token / 2


def test_the_ranks_of_tensor_parallelism_share_the_cache():
    fields = {"device": "h100-sxm5", "mode": "infer", "sequence": 128}
    found = predict("llama-3-70b", devices=8, tp=8, **fields)
    assert found.memory.kv_cache_bytes_per_token == 2 * 80 * 1 * 128 * 2
    assert any("per token and device" in a for a in found.assumptions)


@pytest.mark.parametrize(("name", "mode"), [("bert-base", "infer"), ("gpt2", "train")])
def test_no_cache_is_named_where_nothing_is_generated(name, mode):
    found = predict(name, device="rtx-4090", mode=mode)
    assert found.memory.kv_cache_bytes_per_token is None
    assert not any("KV cache" in a for a in found.assumptions)


def test_every_family_of_a_wrapper_is_known():
    from roofcast.simulator.models.families.text_part import DEFAULT_TEXT, WRAPPED

    texts = {entry.text for entry in WRAPPED.values()} | set(DEFAULT_TEXT.values())
    assert texts - {None} <= set(FAMILIES)


@pytest.mark.parametrize(
    ("raw", "width"),
    [
        ({"model_type": "vit", "hidden_size": 768, "num_hidden_layers": 12,
          "num_attention_heads": 12, "intermediate_size": 3072}, 768),
        ({"model_type": "swin"}, 768), ({"model_type": "convnext"}, 768),
        ({"model_type": "resnet"}, 2048),
        ({"model_type": "dinov2", "architectures": ["Dinov2ForImageClassification"]}, 1536),
    ],
)  # fmt: skip
def test_classes_of_images_are_those_that_the_config_names_and_else_two(raw, width):
    def weights(**more):
        return sum(w.size * w.count for w in run(raw | more, size=224).weights)

    named = {str(i): f"class {i}" for i in range(5)}
    assert weights(id2label=named) == weights(num_labels=5) == weights() + 3 * (width + 1)
    if raw["model_type"] == "vit":
        assert weights() == 85_800_194  # transformers 5.24, ViTForImageClassification


@pytest.mark.parametrize("kind", ["qwen2", "qwen2_moe", "smollm3"])
def test_a_window_of_0_is_none_where_the_config_uses_none(kind):
    raw = SMALL | {"model_type": kind}
    found = [
        [(k.kind, k.shape) for k in run(raw | {"sliding_window": w}).kernels] for w in (0, None)
    ]
    assert found[0] == found[1]


def test_a_gemma_has_a_window():
    with pytest.raises(BadInput, match="'sliding_window' is 0; it must be a positive number"):
        from_config("it", SMALL | {"model_type": "gemma2", "sliding_window": 0})


def test_a_model_with_code_of_its_own_is_built_from_it():
    raw = SMALL | {"model_type": "mine", "architectures": ["MineForCausalLM"]}
    with pytest.raises(BadInput, match=r"t\.MineForCausalLM\("):
        from_config("config.json", raw)
    with pytest.raises(BadInput, match=r"AutoModelForCausalLM\.from_config\(.*trust_remote_code"):
        from_config("config.json", raw | {"auto_map": {"AutoModelForCausalLM": "m.Mine"}})


def test_adapters_and_timm_files_say_what_to_give_instead():
    adapters = {
        "peft_type": "LORA", "r": 16, "base_model_name_or_path": "me/base",
        "target_modules": ["q_proj", "v_proj"],
    }  # fmt: skip
    with pytest.raises(BadInput, match="base model of 'me/base' and --lora 16 --lora-targets q_p"):
        from_config("adapter_config.json", adapters)
    with pytest.raises(BadInput, match="timm: give its name, 'vit_base_patch16_224'"):
        from_config("config.json", {"architecture": "vit_base_patch16_224", "num_classes": 10})
