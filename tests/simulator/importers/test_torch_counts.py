"""Counts of a traced module equal PyTorch's: parameters, FLOPs, bytes kept for backward."""

import pytest

torch = pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
import torch_nets as nets  # noqa: E402
from counting import imported, really, uncounted  # noqa: E402

from roofcast.simulator.importers import from_torch  # noqa: E402
from roofcast.simulator.work.precision import precision  # noqa: E402
from roofcast.simulator.work.tape import Tape  # noqa: E402

pytestmark = pytest.mark.torch
ALL = {**nets.NETS, **nets.VALUE_DEPENDENT}
# the workspace of oneDNN's LSTM differs in size between fake and real tensors
WORKSPACE = {"lstm", "bidirectional lstm of two layers"}
# nets whose kernels depend on the device: dropout, attention, recurrent cells, autocast
WORDS = ("attention", "dropout", "lstm", "gru", "rnn", "cells", "encoder", "autocast")
DEVICE = {name for name in nets.NETS if any(word in name for word in WORDS)}
DEVICE -= {"composed attention"}


@pytest.mark.parametrize("name", ALL)
def test_counts_on_a_cpu_equal_those_of_a_real_run(name):
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
def test_counts_on_a_gpu_in_fp32_equal_those_of_a_cpu_if_the_kernels_are_the_same(name):
    make, inputs = nets.NETS[name]
    module = make()
    assert imported(from_torch(module, inputs))[0] == really(module, inputs)


@pytest.mark.parametrize(
    "name", ["mlp with dropout", "convolutions", "shared weights", "u-net", "composed attention"]
)
def test_counts_under_autocast_on_a_cpu_equal_those_of_a_real_run(name):
    make, inputs = nets.NETS[name]
    module = make()
    assert imported(from_torch(module, inputs, device="cpu"), "amp-bf16")[0] == really(
        module, inputs, torch.bfloat16
    )


def test_dropout_keeps_a_byte_per_element_on_a_gpu_and_a_number_on_a_cpu():
    net = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.Dropout(0.1))
    kept = {
        device: imported(from_torch(net, ["4x8"], device=device))[0].saved
        for device in ("gpu", "cpu")
    }
    assert kept == {"gpu": 4 * 16, "cpu": 4 * 4 * 16}


BATCH, LENGTH, HEADS, DIM = 2, 33, 4, 8
# elements of each of q, k, v, the result, and the layer's input and output
N = BATCH * LENGTH * HEADS * DIM


@pytest.mark.parametrize(
    ("how", "attention", "kept", "backward"),
    [
        # q, k, v, result; the log-sum-exp of each row in fp32; the random generator's state
        ("bf16", "flash", 4 * 2 * N + 4 * BATCH * HEADS * LENGTH + 24, 10),
        # fp32 has no flash kernel: the efficient one, with rows padded to a multiple of 32
        ("fp32", "flash", 4 * 4 * N + 4 * BATCH * HEADS * 64 + 16, 10),
        ("bf16", "efficient", 4 * 2 * N + 4 * BATCH * HEADS * 64 + 16, 10),
        # q, k, v, probabilities, and the copy of the result for the last layer
        ("fp32", "eager", 4 * 4 * N + 4 * BATCH * HEADS * LENGTH**2, 8),
    ],
)
def test_bytes_that_attention_kernels_keep_on_a_gpu(how, attention, kept, backward):
    counts, _ = imported(from_torch(nets.Attention(), [f"{BATCH}x{LENGTH}x32"]), how, attention)
    layer = 2 * BATCH * LENGTH * 32 * 32
    scores = BATCH * HEADS * LENGTH**2 * DIM
    assert counts.saved == kept
    assert counts.forward == 4 * layer + 4 * scores
    # of the layers for q, k and v, the gradient of the weight only: the input needs none
    assert counts.backward == (2 + 3) * layer + backward * scores


def test_autocast_on_a_gpu_casts_layer_norm_to_fp32_but_not_gelu():
    net = torch.nn.Sequential(
        torch.nn.Linear(16, 32), torch.nn.GELU(), torch.nn.LayerNorm(32), torch.nn.Linear(32, 4)
    )
    counts, _ = imported(from_torch(net, ["6x16"]), "amp-bf16")
    wide = 6 * 32
    # in bf16: the input, gelu's argument and the last layer's input
    # in fp32: layer norm's input, with mean and deviation of each row
    assert counts.saved == 2 * 6 * 16 + 2 * wide + 4 * wide + 8 * 6 + 2 * wide
    # the last layer's weight only: the input of the first layer needs no gradient
    assert counts.weight_copies == 2 * 32 * 4


def test_a_gpu_runs_a_layer_of_an_lstm_as_one_kernel():
    steps, batch, width, hidden = 7, 4, 12, 16
    counts, tape = imported(from_torch(nets.Recurrent(), [f"{batch}x{steps}:int64"]))
    cell, out = 2 * batch * 4 * hidden * (width + hidden), 2 * batch * hidden * 3
    assert counts.forward == steps * cell + out
    walks = [k for k in tape.kernels if k.kind == "recurrent"]
    assert [(k.phase, k.shape) for k in walks] == [
        (phase, (steps, batch, 4 * hidden, hidden)) for phase in ("forward", "backward")
    ]


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "vit_tiny_patch16_224", "efficientnet_b0"]
)
def test_counts_of_a_timm_model_equal_those_of_a_real_run(name):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    size = {"img_size": 64} if "vit" in name else {}
    module = timm.create_model(name, pretrained=False, **size)
    ours, tape = imported(from_torch(module, ["2x3x64x64"], device="cpu"))
    forward, backward = uncounted(tape)
    ours = ours._replace(forward=ours.forward - forward, backward=ours.backward - backward)
    assert ours == really(module, ["2x3x64x64"])


@pytest.mark.parametrize("family", ["GPT2", "Llama"])
def test_counts_of_a_transformers_model_equal_those_of_a_real_run(family):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4}
    sizes["intermediate_size"] = 64
    if family == "GPT2":
        sizes = {"n_layer": 2, "n_embd": 32, "n_head": 4}
    config = getattr(transformers, f"{family}Config")(vocab_size=100, use_cache=False, **sizes)
    module = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    ours, _ = imported(from_torch(module, ["2x12:int64"], device="cpu"))
    assert ours == really(module, ["2x12:int64"])


class FiveDimensions(torch.nn.Module):
    """Attention in windows, as Hiera and NesT write it: [batch, windows, heads, tokens, width]."""

    def forward(self, x):
        return torch.nn.functional.scaled_dot_product_attention(x, x, x)


def test_attention_over_five_dimensions_is_composed():
    """PyTorch's fused kernels take four dimensions only."""
    model = from_torch(FiveDimensions(), ["2x3x4x8x16"])
    tape = model.run(Tape(precision("bf16"), training=False), 2)
    assert sum(k.matrix * k.count for k in tape.kernels) == 2 * 2 * (2 * 3 * 4) * 8 * 8 * 16
    assert not [k for k in tape.kernels if k.kind == "attention"]
