"""predict: its arguments, its result, and one-line messages for invalid input."""

import json
import subprocess
import sys

import msgspec
import pytest

from roofcast import Forecast, Scenario, hwdb, predict
from roofcast.hwdb.errors import BadInput, RoofcastError, UnknownName


def test_predict_takes_a_scenario_or_its_fields_as_keywords():
    asked = {"model": "gpt2", "device": "h100-sxm5", "batch": 4}
    assert predict(Scenario(**asked)) == predict(**asked)


def test_a_forecast_converted_to_json_and_back_is_unchanged():
    f = predict(model="gpt2", device="h100-sxm5", tokens="1B")
    assert Forecast.from_json(f.to_json()) == f
    assert json.loads(f.to_json())["memory"]["peak_bytes"] == f.memory.peak_bytes


@pytest.mark.parametrize("layout", [{}, {"zero": 2}, {"tp": 2, "batch": 4}, {"mode": "infer"}])
def test_a_forecast_that_was_read_writes_the_same_text(layout):
    f = predict(model="gpt2", device="a100", tokens="1B", price_per_hour=2, **layout)
    assert Forecast.from_json(f.to_json()).to_json() == f.to_json()


def test_a_scenario_that_was_read_is_equal_and_writes_the_same_text():
    s = Scenario(
        model="gpt2", device="a100", pp=2, stages=[6, 6], offload=["optimizer"], tokens=10**9,
        epochs=2, price_per_hour=2, set={"memory.bandwidth": "x2", "memory.capacity": 8 * 10**10},
    )  # fmt: skip
    read = Scenario.from_json(s.to_json())
    assert read == s and read.to_json() == s.to_json()


def test_a_scenario_with_a_system_in_hand_is_not_saved():
    s = Scenario(model="gpt2", device="h100-sxm5", system=hwdb.system("dgx-h100"))
    with pytest.raises(BadInput, match="give its name"):
        s.to_json()


def test_every_default_is_listed_as_an_assumption():
    asked = {"model": "gpt2", "device": "h100-sxm5"}
    given = {"batch": 1, "sequence": 1024, "precision": "bf16", "stack": "pytorch-eager"}
    given |= {"optimizer": "adamw"}
    assumptions = " ".join(predict(**asked).assumptions)
    assert all(name in assumptions for name in given)
    assert not any("not given" in text for text in predict(**asked, **given).assumptions)


def test_parameters_and_forward_flops_of_llama_3_8b_equal_the_published_formulas():
    """8.03 B parameters; forward 2 FLOPs per matrix parameter and token, and 4 s^2 d per layer for
    attention [llama team 2024].
    """
    f = predict(model="llama-3-8b", device="h100-sxm5", batch=1, sequence=2048)
    matrix_parameters = 8_030_261_248 - 128_256 * 4096 - 65 * 4096
    assert f.parameters == 8_030_261_248
    assert f.flops_forward == 2 * 2048 * matrix_parameters + 32 * 4 * 2048**2 * 4096


def test_time_cost_and_energy_of_a_run_follow_from_its_steps():
    """One device at 3 USD per device-hour and 700 W."""
    asked = {"model": "llama-3-8b", "device": "h100-sxm5", "batch": 1, "sequence": 8192}
    f = predict(**asked, tokens="1T", price_per_hour=3.0)
    assert f.steps == pytest.approx(1e12 / 8192)
    assert f.time_to_train_s == pytest.approx(f.steps * f.step_time_s)
    assert f.cost_usd == pytest.approx(3.0 * f.time_to_train_s / 3600)
    assert f.energy_j == pytest.approx(f.power_w * f.time_to_train_s) and f.power_w <= 700


def test_training_time_is_proportional_to_epochs():
    asked = {"model": "resnet50", "device": "a100", "samples": "1.28M"}
    one, ninety = (predict(**asked, epochs=e) for e in (1, 90))
    assert ninety.time_to_train_s == pytest.approx(90 * one.time_to_train_s)


def test_edits_of_a_device_are_listed_as_assumptions_and_take_effect():
    f = predict(model="gpt2", device="h100-sxm5", set={"memory.bandwidth": "8 TB/s"})
    assert any("hypothetical" in a and "memory.bandwidth" in a for a in f.assumptions)
    assert f.step_time_s < predict(model="gpt2", device="h100-sxm5").step_time_s


INVALID = {  # changes to the scenario, and what the message contains
    "device": ({"device": "h100-smx5"}, "h100-sxm5"),
    "model": ({"model": "lama-3-8b"}, "llama-3-8b"),
    "precision": ({"precision": "bf17"}, "bf16"),
    "optimizer": ({"optimizer": "adm"}, "adam"),
    "stack": ({"stack": "pytorch"}, "pytorch-eager"),
    "attention": ({"attention": "flsh"}, "flash"),
    "recompute": ({"recompute": "half"}, "full"),
    "mode": ({"mode": "training"}, "train"),
    "batch 0": ({"batch": 0}, "at least 1"),
    "batch negative": ({"batch": -4}, "at least 1"),
    "sequence": ({"sequence": 0}, "at least 1"),
    "image for text": ({"image": 224}, "--seq"),
    "set key": ({"set": {"memory.bandwith": "8 TB/s"}}, "memory.bandwidth"),
    "set unit": ({"set": {"memory.bandwidth": "8 GHz"}}, "B/s"),
    "set sign": ({"set": {"memory.bandwidth": "-8 TB/s"}}, "more than zero"),
    "two lengths": ({"tokens": "1T", "samples": "1M"}, "give one"),
    "epochs alone": ({"epochs": 3}, "samples"),
    "tokens in words": ({"tokens": "many"}, "tokens"),
    "optimizer of inference": ({"mode": "infer", "optimizer": "adamw"}, "inference"),
    "recompute in inference": ({"mode": "infer", "recompute": "full"}, "inference"),
}


@pytest.mark.parametrize(("change", "remedy"), INVALID.values(), ids=INVALID)
def test_an_invalid_argument_is_rejected_in_one_line_that_suggests_a_remedy(change, remedy):
    with pytest.raises(RoofcastError) as error:
        predict(**{"model": "gpt2", "device": "h100-sxm5", **change})
    assert "\n" not in str(error.value) and remedy in str(error.value)


CONFIG = {
    "model_type": "llama",
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
WITHOUT_HIDDEN = {key: value for key, value in CONFIG.items() if key != "hidden_size"}
BROKEN = {  # text of the file, and what the message contains
    "cut off": ('{"model_type": "llama", "vocab', "cut off"),
    "not an object": ("[1, 2]", "object"),
    "no type": (json.dumps({**CONFIG, "model_type": None}), "model_type"),
    "unknown type": (json.dumps({**CONFIG, "model_type": "lama"}), "llama"),
    "missing key": (json.dumps(WITHOUT_HIDDEN), "hidden_size"),
    "wrong kind": (json.dumps({**CONFIG, "hidden_size": "big"}), "hidden_size"),
    "negative": (json.dumps({**CONFIG, "num_hidden_layers": -1}), "num_hidden_layers"),
    "zero": (json.dumps({**CONFIG, "vocab_size": 0}), "vocab_size"),
    "heads": (json.dumps({**CONFIG, "num_attention_heads": 7}), "7"),
    "groups": (json.dumps({**CONFIG, "num_key_value_heads": 3}), "3"),
}


@pytest.mark.parametrize(("text", "names"), BROKEN.values(), ids=BROKEN)
def test_an_invalid_model_config_is_rejected_in_one_line_with_file_and_key(tmp_path, text, names):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises((BadInput, UnknownName)) as error:
        predict(model=str(path), device="h100-sxm5")
    message = str(error.value)
    assert "\n" not in message and "config.json" in message and names in message


def test_a_binary_file_an_empty_folder_and_a_missing_file_are_rejected_as_models(tmp_path):
    (tmp_path / "weights.json").write_bytes(bytes(range(256)))
    for path in (tmp_path / "weights.json", tmp_path, tmp_path / "absent.json"):
        with pytest.raises(RoofcastError) as error:
            predict(model=str(path), device="h100-sxm5")
        assert "\n" not in str(error.value) and path.name in str(error.value)


def test_a_folder_with_a_hugging_face_config_is_a_model_and_unknown_keys_are_ignored(tmp_path):
    """Parameters: embedding and head, two layers of attention, MLP and norms, the last norm."""
    extra = {"torch_dtype": "bfloat16", "rope_scaling": None, "unknown": 1}
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **extra}))
    f = predict(model=str(tmp_path), device="h100-sxm5")
    layer = 4 * 64 * 64 + 3 * 64 * 128 + 2 * 64
    assert f.model == tmp_path.name
    assert f.parameters == 2 * 100 * 64 + 2 * layer + 64


def test_a_forecast_imports_no_heavy_library():
    code = (
        "import sys; from roofcast import predict; predict(model='llama-3-8b',"
        " device='h100-sxm5'); print(*sys.modules)"
    )
    python = [sys.executable, "-c", code]
    loaded = subprocess.run(python, capture_output=True, text=True, check=True).stdout.split()
    heavy = {"pandas", "scipy", "matplotlib", "numba", "torch", "onnx", "pint"}
    assert not set(loaded) & heavy


def test_a_forecast_is_a_frozen_record_with_one_table_row_per_layer():
    f = predict(model="gpt2", device="h100-sxm5")
    with pytest.raises(AttributeError):
        f.step_time_s = 0.0
    assert msgspec.structs.asdict(f)["model"] == "gpt2"
    assert len(f.to_frame()) == len(f.layers)
