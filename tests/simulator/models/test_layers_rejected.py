"""TOML lists of layers that are rejected: the message names file, layer and remedy."""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toml_nets import net, shape_out, stack, trace

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.toml import layers
from roofcast.simulator.work.ops.conv import out_length

FC = "kind = 'linear'\nname = 'fc1'"
BAD = [  # file, start of the message after the file's name
    (
        stack(
            "kind = 'conv'\nchannels = 64\nkernel = 3\npadding = 1",
            "kind = 'max_pool'\nkernel = 4",
            "kind = 'flatten'",
            FC + "\nin = 2304\nout = 128",
        ),
        (
            "layer 4 'fc1' (linear): in = 2304, but the input is 64x8x8 = 4096; write in ="
            " 4096, or leave it out"
        ),
    ),
    (
        stack("kind = 'conb'\nchannels = 3"),
        "layer 1: no kind 'conb'; did you mean conv or conv3d or conv2d? kinds: ",
    ),
    (stack("kind = 3"), "layer 1: no kind '3'; kinds: "),
    (stack("name = 'x'\nout = 3"), "layer 1 'x': kind is missing; kinds: "),
    (
        stack("kind = 'conv'\nchanels = 3\nkernel = 3"),
        "layer 1 'conv1': no key 'chanels'; did you mean channels? keys here: channels, kernel, ",
    ),
    (
        stack("kind = 'relu'\nkernel = 3"),
        "layer 1 'relu1': no key 'kernel'; keys here: name, repeat",
    ),
    (
        stack("kind = 'relu'", "kind = 'conv'\nchannels = 3"),
        "layer 2 'conv1': kernel is missing; add it",
    ),
    (
        stack("kind = 'conv'\nchannels = '64'\nkernel = 3"),
        "layer 1 'conv1': channels is '64'; wanted a whole number",
    ),
    (
        stack("kind = 'conv'\nchannels = 64\nkernel = 0"),
        "layer 1 'conv1': kernel is 0; wanted a whole number >= 1",
    ),
    (
        stack("kind = 'conv'\nchannels = 64\nkernel = true"),
        "layer 1 'conv1': kernel is True; wanted a whole number or a list",
    ),
    (
        stack("kind = 'conv'\nchannels = 8\nkernel = [3, 3, 3]"),
        "layer 1 'conv1': kernel has 3 numbers, but the input is 3x32x32; wanted one number or 2",
    ),
    (
        stack("kind = 'conv'\nchannels = 8\nkernel = 3\npadding = 'full'"),
        "layer 1 'conv1': padding is 'full'; wanted 'same' or 'valid'",
    ),
    (
        stack("kind = 'conv'\nchannels = 8\nkernel = 3\ngroups = 2"),
        "layer 1 'conv1': convolution from 3 to 8 channels: both must be divisible by groups (2)",
    ),
    (
        stack("kind = 'conv1d'\nchannels = 8\nkernel = 3"),
        "layer 1 'conv1d1': conv1d takes channels and 1 lengths, but the input is 3x32x32; use",
    ),
    (
        stack("kind = 'max_pool'\nkernel = 2\nrepeat = 6"),
        "layer 1 'max_pool1': max pooling: output of input [1, 1] is empty",
    ),
    (
        stack("kind = 'max_pool'\nkernel = 2\npadding = 2"),
        "layer 1 'max_pool1': padding [2, 2] exceeds half of the window [2, 2]",
    ),
    (
        stack(FC + "\nout = 10"),
        (
            "layer 1 'fc1' (linear): takes features or tokens, but its input is 3x32x32 (space);"
            " put a 'flatten' or"
        ),
    ),
    (
        stack("kind = 'flatten'", "kind = 'conv'\nchannels = 8\nkernel = 3"),
        (
            "layer 2 'conv1': takes space, but its input is 3072 (features); put a 'reshape' layer"
            " before it"
        ),
    ),
    (
        stack("kind = 'relu'", before="tokens = 8\nvocabulary = 100"),
        "layer 1 'relu1': takes features or tokens or space, but its input is 8 (ids); put an '",
    ),
    (
        stack("kind = 'relu'\nname = 'a'", "kind = 'tanh'\nname = 'a'"),
        "layer 2 'a' (tanh): an earlier layer has this name already",
    ),
    (
        stack("kind = 'residual'\nlayers = [{kind = 'conv', channels = 8, kernel = 3}]"),
        (
            "layer 1 'residual1': its layers give 8x30x30, but 3x32x32 is to be added; make them"
            " equal, or give a shortcut"
        ),
    ),
    (
        stack("kind = 'residual'\nlayers = [{kind = 'conv', kernel = 3}]"),
        "layer 1.1 'conv1': channels is missing",
    ),
    (
        stack("kind = 'branch'\nbranches = [[], [{kind = 'max_pool', kernel = 2}]]"),
        "layer 1 'branch1': branches give 3x32x32 and 3x16x16 to concat",
    ),
    (
        stack("kind = 'branch'\nbranches = [[]]"),
        "layer 1 'branch1': branches has 1 list; wanted two or more",
    ),
    (stack("kind = 'group'\nlayers = []"), "layer 1 'group1': layers is empty"),
    (
        stack("kind = 'transformer'\nheads = 5", before="tokens = 4\nfeatures = 32"),
        "layer 1 'transformer1': the input is 4x32: a width of 32 cannot be divided into 5 heads",
    ),
    (
        stack(
            "kind = 'transformer'\nheads = 4\nactivation = 'gule'",
            before="tokens = 4\nfeatures = 32",
        ),
        "layer 1 'transformer1': activation is 'gule'; wanted 'relu' or ",
    ),
    (
        stack("kind = 'reshape'\nshape = [4, 4]"),
        "layer 1 'reshape1': the input 3x32x32 cannot be reshaped to 4x4; wanted channels",
    ),
    (stack("kind = 'dropout'\np = 1.5"), "layer 1 'dropout1': p is 1.5; wanted a number <= 1"),
    (stack("kind = 'upsample'"), "layer 1 'upsample1': give either scale or size"),
    (
        stack("kind = 'embedding'\nwidth = 8\nrows = 50", before="tokens = 4\nvocabulary = 100"),
        "layer 1 'embedding1': rows = 50 is less than the vocabulary of 100",
    ),
    (
        stack("kind = 'conv_transpose'\nchannels = 1\nkernel = 2\nstride = 2000000000\nrepeat = 3"),
        "layer 1 'conv_transpose1': a tensor of 2 x 1 x 6.2e+10",
    ),
    (
        stack("kind = 'relu'\nrepeat = 0"),
        "layer 1 'relu1': repeat is 0; wanted a whole number >= 1",
    ),
    ("input = [3, 32, 32]\nlayers = []", "layers is empty"),
    ("input = [3, 32, 32]", "layers is missing"),
    (stack("kind = 'relu'", before=""), "give either input = [channels, height, width]"),
    (stack("kind = 'relu'", before="tokens = 4"), "tokens = 4 needs either vocabulary"),
    (
        stack("kind = 'relu'", before="input = [3, -1]"),
        "input[1] is -1; wanted a whole number >= 1",
    ),
    (
        stack("kind = 'relu'", before="input = [4]\nloss = 'mes'"),
        "loss is 'mes'; wanted 'cross_entropy' or 'mse' or",
    ),
    (
        stack("kind = 'relu'", before="inputs = [4]"),
        "no key 'inputs'; did you mean input? keys here: layers, name, about, input",
    ),
    ("layers = 3\ninput = [3]", "layers is 3; wanted a list"),
    ("layers = [3]\ninput = [3]", "layers[0] is 3; wanted a table"),
    ("input = [3, 32", "is not valid TOML, or is cut off: "),
]


@pytest.mark.parametrize(("text", "message"), BAD, ids=range(len(BAD)))
def test_an_invalid_file_gives_one_line_that_names_file_layer_and_remedy(tmp_path, text, message):
    with pytest.raises(BadInput) as error:
        trace(net(tmp_path, text))
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 'net.toml'}: ") and "\n" not in line
    assert line.removeprefix(f"{tmp_path / 'net.toml'}: ").startswith(message)


def test_paths_that_are_not_text_files_are_rejected(tmp_path):
    (tmp_path / "weights.toml").write_bytes(b"\xff\x00\x80")
    for path, message in (
        (tmp_path / "none.toml", "no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "weights.toml", "is not text in UTF-8"),
    ):
        with pytest.raises(BadInput, match=message):
            layers.read(path)


@given(
    st.integers(1, 60), st.integers(1, 9), st.integers(1, 5), st.integers(0, 4), st.integers(1, 3)
)
def test_out_length_counts_the_positions_of_a_window(n, kernel, stride, padding, dilation):
    reach = dilation * (kernel - 1)
    positions = [
        start for start in range(0, n + 2 * padding, stride) if start + reach < n + 2 * padding
    ]
    assert max(out_length(n, kernel, stride, padding, dilation), 0) == len(positions)


WINDOW = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(["conv", "depthwise", "max_pool", "avg_pool"]),
        "kernel": st.integers(1, 5),
    },
    optional={
        "stride": st.integers(1, 3),
        "padding": st.one_of(st.integers(0, 2), st.sampled_from(["same", "valid"])),
    },
)


@settings(max_examples=150, deadline=None)
@given(st.lists(WINDOW, min_size=1, max_size=8), st.integers(1, 40), st.integers(1, 3))
def test_any_stack_of_windows_either_runs_or_is_rejected(tmp_path_factory, windows, side, batch):
    """The output side equals a count window by window; a stack with an empty output is rejected."""
    expected = side
    for window in windows:
        kernel = window["kernel"]
        stride = window.get("stride", kernel if "pool" in window["kind"] else 1)
        padding = window.get("padding", 0)
        if padding == "same":
            expected = -(-expected // stride)
            continue
        zeros = 0 if padding == "valid" else padding
        if "pool" in window["kind"] and 2 * zeros > kernel:
            expected = 0
            break
        expected = len(
            [
                s
                for s in range(0, expected + 2 * zeros, stride)
                if s + kernel <= expected + 2 * zeros
            ]
        )
        if not expected:
            break
    lines = [
        "\n".join(
            f"{k} = {v!r}"
            for k, v in (w | ({"channels": 4} if w["kind"] == "conv" else {})).items()
        )
        for w in windows
    ]
    model = net(
        tmp_path_factory.mktemp("nets"), stack(*lines, before=f"input = [2, {side}, {side}]")
    )
    if not expected:
        with pytest.raises(BadInput, match="is empty|exceeds half"):
            trace(model)
        return
    tape = trace(model, batch=batch)
    assert shape_out(model, batch)[2:] == (expected, expected)
    assert prod(shape_out(model, batch)) > 0 and all(
        k.read >= 0 and k.written >= 0 for k in tape.kernels
    )
