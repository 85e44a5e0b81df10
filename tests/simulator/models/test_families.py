"""Counts of the Hugging Face families against PyTorch, and parameters against published ones."""

import csv
import json
from pathlib import Path

import pytest

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models import resolve
from roofcast.simulator.models.catalog import CONFIGS
from roofcast.simulator.models.families.table import FAMILIES
from roofcast.simulator.models.names import SHIPPED
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

TABLES = sorted((Path(__file__).parents[1] / "oracle").glob("families*.csv"))
NETS = Path(__file__).parents[3] / "scenarios" / "nets"
VISION = TABLES[0].with_name("vision.csv")  # of test_vision_families.py
COLUMNS = (
    "parameters",
    "flops_forward",
    "flops_backward",
    "saved_bytes",
    "saved_input_bytes",
    "saved_weight_copy_bytes",
)

# parameters of the checkpoint on the Hugging Face Hub (or of the paper, if it prints all digits);
# tied weights count once
PUBLISHED = {
    "bart-large": 406_291_456,
    "bert-large": 335_174_458,
    "bloom-176b": 176_247_271_424,
    "bloom-7b1": 7_069_016_064,
    "clip-vit-base-patch32": 151_277_313,
    "deepseek-v2-lite": 15_706_484_224,
    "falcon-7b": 6_921_720_704,
    "gemma-2-9b": 9_241_705_984,
    "gemma-2b": 2_506_172_416,
    "gemma-3-1b": 999_885_952,
    "gpt-j-6b": 6_050_882_784,
    "gpt-neox-20b": 20_554_567_680,
    "gpt-oss-120b": 116_829_156_672,
    "gpt-oss-20b": 20_914_757_184,
    "gpt2": 124_439_808,
    "gpt2-large": 774_030_080,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "llama-2-13b": 13_015_864_320,
    "llama-2-70b": 68_976_648_192,
    "llama-2-7b": 6_738_415_616,
    "llama-3-70b": 70_553_706_496,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "llama-3.2-3b": 3_212_749_824,
    "mamba-130m": 129_135_360,
    "mistral-7b": 7_241_732_096,
    "mixtral-8x7b": 46_702_792_704,
    "opt-1.3b": 1_315_758_080,
    "opt-6.7b": 6_658_473_984,
    "phi-3-mini": 3_821_079_552,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-72b": 72_706_203_648,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-8b": 8_190_735_360,
    "roberta-base": 124_697_433,
    "starcoder2-7b": 7_173_923_840,
    "swin-tiny": 28_288_354,
    "t5-base": 222_903_552,
    "t5-large": 737_668_096,
    "tinyllama-1.1b": 1_100_048_384,
    "whisper-large-v3": 1_543_490_560,
    "whisper-small": 241_734_912,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-70b": 70_553_706_496,
    "llama-7b": 6_738_415_616,
    "llama-13b": 13_015_864_320,
    "llama-30b": 32_528_943_616,
    "llama-65b": 65_285_660_672,
    "codellama-34b": 33_743_970_304,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-3b": 3_085_938_688,
    "qwen2.5-14b": 14_770_033_664,
    "qwen2.5-32b": 32_763_876_352,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-14b": 14_768_307_200,
    "qwen3-32b": 32_762_123_264,
    "mistral-nemo-12b": 12_247_782_400,
    "mistral-small-24b": 23_572_403_200,
    "mixtral-8x22b": 140_620_634_112,
    "gemma-2-2b": 2_614_341_888,
    "gemma-2-27b": 27_227_128_320,
    "gemma-3-4b": 3_880_263_168,
    "gemma-3-12b": 11_766_034_176,
    "phi-4": 14_659_507_200,
    "yi-6b": 6_061_035_520,
    "yi-34b": 34_388_917_248,
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
    "opt-125m": 125_239_296,
    "opt-2.7b": 2_651_596_800,
    "opt-13b": 12_853_473_280,
    "falcon-40b": 41_303_293_952,
    "bloom-560m": 559_214_592,
    "bloom-1b7": 1_722_408_960,
    "bloom-3b": 3_002_557_440,
    "t5-small": 60_506_624,
    "t5-3b": 2_851_598_336,
    "mamba-370m": 371_516_416,
    "mamba-1.4b": 1_372_178_432,
    "mamba-2.8b": 2_768_345_600,
    "whisper-tiny": 37_760_640,
    "whisper-base": 72_593_920,
    "whisper-medium": 763_857_920,
    "deepseek-v2": 235_741_434_880,
    "rwkv-7-0.1b": 191_034_624,  # of Peng et al. 2025, as the next three
    "rwkv-7-0.4b": 450_767_872,
    "rwkv-7-1.5b": 1_527_404_544,
    "rwkv-7-2.9b": 2_947_735_040,
}
# billions as printed, and half of the last digit; deepseek-v3 without multi-token prediction,
# llama-4-scout and gemma-3-27b without vision
BILLIONS = {
    "deepseek-v3": (671, 0.5),
    "gemma-3-27b": (27.0, 0.05),
    "gpt3-175b": (175, 0.5),
    "llama-4-scout": (108, 0.5),
    "opt-175b": (175, 0.5),
    "opt-30b": (30, 0.5),
    "t5-11b": (11.3, 0.05),
}


def reference():
    return [row for table in TABLES for row in rows(table)]


def rows(table):
    with table.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def named(row):
    model = row["model"] if row["model"][0] != "{" else json.loads(row["model"])["model_type"] + "*"
    return f"{model}-{row['batch']}x{row['sequence']}-{row['precision']}-{row['attention']}"


def model_of(reference, folder):
    if reference in SHIPPED:
        return resolve(reference)
    path = folder / "config.json"
    path.write_text(reference)
    return resolve(str(path))


def parameters(tape):
    return sum(w.size * w.count for w in tape.weights)


def counts(tape):
    saved = {}
    for _, size, count, kind, *_ in tape.saved.values():
        saved[kind] = saved.get(kind, 0) + size * count
    forward, backward = (
        sum(k.matrix * k.count for k in tape.kernels if k.phase == phase)
        for phase in ("forward", "backward")
    )
    kept = (saved.get(kind, 0) for kind in ("activation", "input", "weight_copy"))
    return dict(zip(COLUMNS, (parameters(tape), forward, backward, *kept), strict=True))


@pytest.mark.parametrize("row", reference(), ids=named)
def test_counts_equal_those_of_pytorch(row, tmp_path):
    tape = Tape(precision(row["precision"]), implementations={"attention": row["attention"]})
    model_of(row["model"], tmp_path).run(tape, int(row["batch"]), int(row["sequence"]))
    assert counts(tape) == {name: int(row[name]) for name in COLUMNS}


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_equal_the_published_number(name):
    model = resolve(name)
    size = model.size if model.takes == "image" else 64
    assert parameters(model.run(Tape(precision("bf16")), 1, size)) == PUBLISHED[name]


@pytest.mark.parametrize("name", BILLIONS)
def test_parameters_round_to_the_published_billions(name):
    billions, digits = BILLIONS[name]
    counted = parameters(resolve(name).run(Tape(precision("bf16")), 1, 64))
    assert counted / 1e9 == pytest.approx(billions, abs=digits)


def test_every_shipped_name_has_a_configuration_and_every_configuration_a_name():
    assert {path.stem for path in CONFIGS.glob("*.json")} == set(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_inference_has_the_parameters_of_training_and_only_forward_kernels(name):
    model = resolve(name)
    size = model.size if model.takes == "image" or model.size > 100_000 else 64  # or audio
    trained, used = (
        model.run(Tape(precision("bf16"), training=training), 1, size) for training in (True, False)
    )
    assert not used.saved and all(k.phase == "forward" for k in used.kernels)
    assert parameters(used) == parameters(trained)


def test_multi_token_prediction_of_deepseek_adds_the_published_parameters():
    model = resolve("deepseek-v3")
    plain, more = (
        parameters(model.run(Tape(precision("bf16"), implementations={"mtp": how}), 1, 64))
        for how in ("none", "train")
    )
    copies = 2 * 129280 * 7168  # the checkpoint holds embedding and head twice
    # the model's README: 671 B and 14 B
    assert (more + copies) / 1e9 == pytest.approx(685, abs=0.6)
    assert (more - plain + copies) / 1e9 == pytest.approx(14, abs=0.6)


def test_grouped_experts_of_llama_4_do_far_fewer_flops_than_all_experts():
    model = resolve("llama-4-scout")
    tapes = (Tape(precision("bf16"), implementations={"experts": e}) for e in ("dense", "grouped"))
    dense, grouped = (
        sum(k.matrix * k.count for k in model.run(tape, 1, 64).kernels) for tape in tapes
    )
    assert dense > 5 * grouped


def test_an_unknown_activation_is_rejected_with_a_list_of_known_ones(tmp_path):
    path = tmp_path / "config.json"
    config = json.loads((CONFIGS / "gpt2.json").read_text()) | {"activation_function": "gellu"}
    path.write_text(json.dumps(config))
    with pytest.raises(BadInput, match="no activation 'gellu'; known: .*gelu_new.*relu"):
        resolve(str(path)).run(Tape(precision("bf16")), 1, 8)


def test_every_family_has_a_reference_count():
    given = {row["model"] for row in reference()}
    raw = (m if m[0] == "{" else (CONFIGS / f"{m}.json").read_text() for m in given)
    counted = {json.loads(text)["model_type"] for text in raw}
    counted |= {kind for kind in FAMILIES if f'"model_type"": ""{kind}""' in VISION.read_text()}
    same = {
        "camembert": "roberta",
        "xlm-roberta": "roberta",
        "gemma3": "gemma3_text",
        "gemma3n": "gemma3n_text",
        "gemma4": "gemma4_text",
        "llama4": "llama4_text",
    }
    own_code = {"baichuan", "chatglm", "qwen"}  # not in transformers: BESIDE_WEIGHTS
    missing = {same.get(family, family) for family in FAMILIES} - counted - own_code
    assert missing <= {"vit", "dbrx", "rwkv7"}


BESIDE_WEIGHTS = {  # configurations whose code lies beside the weights: parameters of the weights
    "qwen-7b": 7_721_324_544,
    "qwen-14b": 14_167_290_880,
    "baichuan2-7b": 7_505_973_248,
    "baichuan2-13b": 13_896_668_160,
    "chatglm3-6b": 6_243_584_000,
}


@pytest.mark.parametrize("name", BESIDE_WEIGHTS)
def test_models_of_their_own_code_have_the_parameters_of_their_weights(name):
    model = resolve(str(NETS / f"{name}.json"))
    traced = model.run(Tape(precision("bf16")), 1, 64)
    assert parameters(traced) == BESIDE_WEIGHTS[name]
    assert "o_proj" in {n.name.rpartition(".")[2] for n in traced.nodes}
    assert not {"q_proj", "k_proj"} & {n.name.rpartition(".")[2] for n in traced.nodes}
