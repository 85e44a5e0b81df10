"""DoRA's counts, and what stacks of fine-tuning keep."""

import pytest

from roofcast import predict
from roofcast.hwdb.errors import BadInput
from roofcast.simulator.forecast.counts import count

LORA = {"lora": 8, "lora_targets": "q,v", "sequence": 2048, "precision": "bf16"}
ASKED = {"device": "a100-sxm4-80gb", "precision": "bf16", "batch": 1, "sequence": 1304}


def test_dora_counts_equal_pytorch_and_peft():
    """PEFT 0.21 with PyTorch 2.13, Llama 2 7B of transformers 5.24 on 1 x 2048 tokens."""
    found = count("llama-2-7b", **LORA, dora=True)
    assert found.trainable_parameters == 4_456_448
    assert found.flops_forward == 29_313_151_795_200
    assert found.flops_backward == 32_388_079_943_680


def test_dora_trains_a_magnitude_of_each_output_and_keeps_both_results():
    plain, dora = count("llama-2-7b", **LORA), count("llama-2-7b", **LORA, dora=True)
    outputs = 32 * 2 * 4096
    assert dora.trainable_parameters - plain.trainable_parameters == outputs
    # the layer's result and the adapter's, in bf16, and two numbers per output
    kept = dora.saved_bytes - plain.saved_bytes
    assert kept == pytest.approx(2 * 2 * 2048 * outputs, rel=1e-3)


def test_dora_is_slower_than_lora():
    asked = {"model": "llama-3.2-1b", **ASKED, "lora": 8, "recompute": "full"}
    assert predict(**asked, dora=True).step_time_s > predict(**asked).step_time_s


def test_dora_without_adapters_or_with_dropout_is_refused():
    with pytest.raises(BadInput, match="--lora 16"):
        predict("llama-3.2-1b", **ASKED, dora=True)
    with pytest.raises(BadInput, match="lora_dropout 0.1: with DoRA"):
        predict("llama-3.2-1b", **ASKED, lora=8, dora=True, lora_dropout=0.1)


def test_bitsandbytes_of_2023_keeps_the_inputs_of_4_bit_layers():
    """The inputs of gate, up and down, and of the attention's layers where dropout copies them."""
    asked = {"model": "llama-2-7b", **ASKED, "lora": 8, "lora_targets": "q,v"}
    held = {
        (stack, weights): predict(**asked, stack=stack, weights=weights).memory.activations_bytes
        for stack in ("pytorch-eager-2023", "litgpt")
        for weights in ("bf16", "nf4")
    }
    plain = held["pytorch-eager-2023", "nf4"] - held["pytorch-eager-2023", "bf16"]
    kept = held["litgpt", "nf4"] - held["litgpt", "bf16"]
    assert plain == pytest.approx(0.0, abs=1e6)
    # normalized input and product of the gate: (4096 + 11008) numbers of 2 bytes a layer and token
    assert kept == pytest.approx(32 * 1304 * 2 * (4096 + 11008), rel=0.05)
