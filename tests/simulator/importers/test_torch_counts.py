"""The counts of a traced module are PyTorch's own: parameters, FLOPs, bytes kept for backward."""

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
import torch_nets as nets  # noqa: E402
from counting import imported, really, uncounted  # noqa: E402

from roofcast.simulator.importers import from_torch  # noqa: E402

pytestmark = pytest.mark.torch
ALL = {**nets.NETS, **nets.NUMBERS}
# the workspace of oneDNN's LSTM has another size on fake tensors than on real ones
WORKSPACE = {"lstm", "bidirectional lstm of two layers"}
# what runs depends on the device: dropout's mask, attention's kernel, recurrent cells, autocast's
# lists
DEVICE = {
    name
    for name in nets.NETS
    if any(
        word in name
        for word in ("attention", "dropout", "lstm", "gru", "rnn", "cells", "encoder", "autocast")
    )
}
DEVICE -= {"composed attention"}


@pytest.mark.parametrize("name", ALL)
def test_a_module_on_a_cpu_counts_as_it_does_when_it_really_runs(name):
    make, inputs = ALL[name]
    torch.manual_seed(0)
    module = make()
    ours, tape = imported(from_torch(module, inputs, device="cpu"))
    theirs = really(module, inputs)
    forward, backward = uncounted(tape)
    ours = ours._replace(forward=ours.forward - forward, backward=ours.backward - backward)
    if name in WORKSPACE:
        ours = ours._replace(saved=theirs.saved)
    assert ours == theirs


@pytest.mark.parametrize("name", sorted(set(nets.NETS) - DEVICE - {"embedding bags"}))
def test_in_fp32_a_gpu_counts_as_a_cpu_where_it_runs_the_same_kernels(name):
    make, inputs = nets.NETS[name]
    module = make()
    assert imported(from_torch(module, inputs))[0] == really(module, inputs)


@pytest.mark.parametrize(
    "name", ["mlp with dropout", "convolutions", "shared weights", "u-net", "composed attention"]
)
def test_autocast_on_a_cpu_counts_as_it_does_when_it_really_runs(name):
    make, inputs = nets.NETS[name]
    module = make()
    assert imported(from_torch(module, inputs, device="cpu"), "amp-bf16")[0] == really(
        module, inputs, torch.bfloat16
    )


def test_dropout_on_a_gpu_keeps_a_byte_an_element_and_on_a_cpu_a_number():
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.1))
    kept = {
        device: imported(from_torch(net, ["4x8"], device=device))[0].saved
        for device in ("gpu", "cpu")
    }
    assert kept == {"gpu": 4 * 16, "cpu": 4 * 4 * 16}


BATCH, LENGTH, HEADS, DIM = 2, 33, 4, 8
# elements of q, k, v and the result; the layer's input and output are as large
N = BATCH * LENGTH * HEADS * DIM


@pytest.mark.parametrize(
    ("how", "attention", "kept", "backward"),
    [
        # q, k, v, result; a row's log-sum-exp in fp32; the random generator's state
        ("bf16", "flash", 4 * 2 * N + 4 * BATCH * HEADS * LENGTH + 24, 10),
        (
            "fp32",
            "flash",
            4 * 4 * N + 4 * BATCH * HEADS * 64 + 16,
            10,
        ),  # fp32 has no flash kernel: the efficient one, rows padded to 32
        ("bf16", "efficient", 4 * 2 * N + 4 * BATCH * HEADS * 64 + 16, 10),
        # q, k, v, probabilities, and the result copied for the last layer
        ("fp32", "eager", 4 * 4 * N + 4 * BATCH * HEADS * LENGTH**2, 8),
    ],
)
def test_attention_on_a_gpu_keeps_what_its_kernel_keeps(how, attention, kept, backward):
    counts, _ = imported(from_torch(nets.Attention(), [f"{BATCH}x{LENGTH}x32"]), how, attention)
    linear = 4 * 2 * BATCH * LENGTH * 32 * 32
    scores = BATCH * HEADS * LENGTH**2 * DIM
    assert counts.saved == kept
    assert counts.forward == linear + 4 * scores
    assert (
        counts.backward == 2 * linear - 3 * 2 * BATCH * LENGTH * 32 * 32 + backward * scores
    )  # the input needs no gradient


def test_autocast_on_a_gpu_sends_layer_norm_to_fp32_and_gelu_not():
    net = torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 4)
    )
    counts, _ = imported(from_torch(net, ["6x16"]), "amp-bf16")
    wide = 6 * 32
    # bf16: the input, gelu's argument, the last layer's input; fp32: layer norm's, with mean and
    # deviation
    assert counts.saved == 2 * 6 * 16 + 2 * wide + 4 * wide + 8 * 6 + 2 * wide
    assert (
        counts.weight_copies == 2 * (16 * 32 + 32 * 4) - 2 * 16 * 32
    )  # the first weight is not needed: its input has no gradient


def test_a_gpu_runs_one_fused_cell_a_step_of_an_lstm():
    steps, batch, width, hidden = 7, 4, 12, 16
    counts, _ = imported(from_torch(nets.Recurrent(), [f"{batch}x{steps}:int64"]))
    assert (
        counts.forward == steps * batch * 2 * 4 * hidden * (width + hidden) + 2 * batch * hidden * 3
    )


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "efficientnet_b0"]
)
def test_a_timm_model_counts_as_it_does_when_it_really_runs(name):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    module = timm.create_model(
        name, pretrained=False, **({"img_size": 64} if "vit" in name else {})
    )
    ours, tape = imported(from_torch(module, ["2x3x64x64"], device="cpu"))
    forward, backward = uncounted(tape)
    assert ours._replace(
        forward=ours.forward - forward, backward=ours.backward - backward
    ) == really(module, ["2x3x64x64"])


@pytest.mark.parametrize("family", ["GPT2", "Llama"])
def test_a_transformers_model_counts_as_it_does_when_it_really_runs(family):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = (
        {"n_layer": 2, "n_embd": 32, "n_head": 4}
        if family == "GPT2"
        else {
            "num_hidden_layers": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_attention_heads": 4,
        }
    )
    config = getattr(transformers, f"{family}Config")(vocab_size=100, use_cache=False, **sizes)
    module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    ours, _ = imported(from_torch(module, ["2x12:int64"], device="cpu"))
    assert ours == really(module, ["2x12:int64"])
