"""TOML lists of layers: shapes and parameters against numbers worked out by hand, and against the
shipped nets.
"""

from __future__ import annotations

from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models import resolve
from roofcast.simulator.models.toml import layers
from roofcast.simulator.work.ops.conv import out_length
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape


def net(tmp_path, text):
    path = tmp_path / "net.toml"
    path.write_text(text, encoding="utf-8")
    return layers.read(path)


def stack(*kinds, before="input = [3, 32, 32]"):
    """A file of one-line layers: stack("kind = 'relu'", ...)."""
    return before + "\n" + "\n".join(f"[[layers]]\n{kind}" for kind in kinds)


def shape_out(model, batch=2, size=None):
    tape = Tape(precision("fp32"), training=False)
    return model.program(tape, batch, model.size if size is None else size).shape


def trace(model, policy="fp32", batch=2, training=True, size=None):
    return model.run(Tape(precision(policy), training=training), batch, size)


def parameters(tape):
    return sum(w.size * w.count for w in tape.weights)


def counts(tape):
    """Parameters, FLOPs of products in each phase, bytes kept: what must agree between two
    descriptions of a net.
    """
    flops = {
        phase: sum(k.matrix * k.count for k in tape.kernels if k.phase == phase)
        for phase in ("forward", "backward")
    }
    saved = {
        kind: sum(e[1] * e[2] for e in tape.saved.values() if e[3] == kind)
        for kind in ("activation", "input", "weight_copy")
    }
    return parameters(tape), flops, saved


CONV = "kind = 'conv'\nchannels = 8\nkernel = 3"
SHAPES = [  # file, what comes out for a batch of 2, parameters: by hand
    (stack(CONV), (2, 8, 30, 30), 8 * 27 + 8),
    (stack(CONV + "\npadding = 'same'\nstride = 2"), (2, 8, 16, 16), 224),
    (stack(CONV + "\npadding = 2\ndilation = 2\nbias = false"), (2, 8, 32, 32), 216),
    (stack("kind = 'conv'\nchannels = 6\nkernel = [3, 5]\ngroups = 3"), (2, 6, 30, 28), 6 * 15 + 6),
    (stack("kind = 'depthwise'\nkernel = 3\npadding = 1\nmultiplier = 2"), (2, 6, 32, 32), 60),
    (
        stack("kind = 'conv_transpose'\nchannels = 4\nkernel = 4\nstride = 2\npadding = 1"),
        (2, 4, 64, 64),
        3 * 4 * 16 + 4,
    ),
    (
        stack("kind = 'max_pool'\nkernel = 3\nstride = 2\nceil = true", "kind = 'global_avg_pool'"),
        (2, 3),
        0,
    ),
    (stack("kind = 'max_pool'\nkernel = 3\nstride = 2\nceil = true"), (2, 3, 16, 16), 0),
    (
        stack("kind = 'upsample'\nscale = 3", "kind = 'adaptive_avg_pool'\nsize = [4, 5]"),
        (2, 3, 4, 5),
        0,
    ),
    (
        stack("kind = 'conv1d'\nchannels = 16\nkernel = 5\nstride = 2", before="input = [2, 101]"),
        (2, 16, 49),
        176,
    ),
    (
        stack(
            "kind = 'conv3d'\nchannels = 4\nkernel = 3\npadding = 1",
            "kind = 'group_norm'\ngroups = 2",
            before="input = [1, 8, 16, 16]",
        ),
        (2, 4, 8, 16, 16),
        4 * 27 + 4 + 8,
    ),
    (
        stack(
            "kind = 'linear'\nin = 784\nout = 128",
            "kind = 'relu'",
            "kind = 'linear'\nout = 10",
            before="input = [784]",
        ),
        (2, 10),
        784 * 128 + 128 + 1290,
    ),
    (
        stack(
            "kind = 'linear'\nout = 1024",
            "kind = 'reshape'\nshape = [64, 4, 4]",
            before="input = [100]",
        ),
        (2, 64, 4, 4),
        103424,
    ),
    (
        stack(
            "kind = 'embedding'\nwidth = 64",
            "kind = 'position_embedding'",
            "kind = 'transformer'\nheads = 4\nrepeat = 6",
            "kind = 'mean_tokens'",
            "kind = 'linear'\nout = 2",
            before="tokens = 16\nvocabulary = 100",
        ),
        (2, 2),
        6400
        + 16 * 64
        + 6 * (4 * (64 * 64 + 64) + (64 * 256 + 256) + (256 * 64 + 64) + 4 * 64)
        + 130,
    ),
    (
        stack(
            "kind = 'attention'\nheads = 8\nkv_heads = 2\nbias = false\ncausal = true",
            "kind = 'rms_norm'",
            before="tokens = 10\nfeatures = 32",
        ),
        (2, 10, 32),
        32 * 32 * 2 + 2 * 32 * 8 + 32,
    ),
    (
        stack(
            "kind = 'embedding'\nwidth = 32",
            "kind = 'to_channels'",
            "kind = 'conv1d'\nchannels = 16\nkernel = 3",
            "kind = 'global_max_pool'",
            before="tokens = 20\nvocabulary = 50",
        ),
        (2, 16),
        1600 + 16 * 96 + 16,
    ),
    (
        stack(
            "kind = 'embedding'\nwidth = 128",
            "kind = 'lstm'\nhidden = 64\nbidirectional = true\nlayers = 2",
            "kind = 'last_token'",
            before="tokens = 20\nvocabulary = 50",
        ),
        (2, 128),
        6400 + 4 * 4 * (64 * 128 + 64 * 64 + 2 * 64),
    ),
    (
        stack(
            "kind = 'gru'\nhidden = 16",
            "kind = 'rnn'\nhidden = 8",
            before="tokens = 20\nfeatures = 4",
        ),
        (2, 20, 8),
        3 * (16 * 4 + 16 * 16 + 32) + 8 * 16 + 64 + 16,
    ),
    (
        stack(
            "kind = 'conv'\nchannels = 24\nkernel = 8\nstride = 8",
            "kind = 'to_tokens'",
            "kind = 'last_token'",
        ),
        (2, 24),
        24 * 192 + 24,
    ),
    (
        stack(
            "kind = 'branch'\nbranches = [[], [{kind = 'conv', channels = 5, kernel = 3, padding ="
            " 1}, {kind = 'relu'}]]"
        ),
        (2, 8, 32, 32),
        140,
    ),
    (
        stack(
            "kind = 'residual'\nlayers = [{kind = 'conv', channels = 8, kernel = 1, stride ="
            " 2}]\nshortcut = [{kind = 'avg_pool', kernel = 2}, {kind = 'conv', channels = 8,"
            " kernel = 1}]"
        ),
        (2, 8, 16, 16),
        64,
    ),
]


@pytest.mark.parametrize(("text", "shape", "count"), SHAPES, ids=range(len(SHAPES)))
def test_shapes_and_parameters_worked_out_by_hand(tmp_path, text, shape, count):
    model = net(tmp_path, text)
    assert shape_out(model) == shape
    assert parameters(trace(model)) == count


TUTORIAL = """
name = "lenet-cifar"
input = [3, 32, 32]
layers = [
  {kind = "conv", channels = 6, kernel = 5}, {kind = "relu"}, {kind = "max_pool", kernel = 2},
  {kind = "conv", channels = 16, kernel = 5}, {kind = "relu"}, {kind = "max_pool", kernel = 2},
  {kind = "flatten"},
  {kind = "linear", out = 120}, {kind = "relu"}, {kind = "linear", out = 84}, {kind = "relu"}, {kind = "linear", out = 10},
]
"""


def test_lenet_and_cifar_cnn_parameters(tmp_path):
    assert parameters(trace(net(tmp_path, TUTORIAL))) == 62_006  # 456 + 2416 + 48120 + 10164 + 850
    cnn = TUTORIAL.replace("channels = 6, kernel = 5", "channels = 32, kernel = 3, padding = 1")
    cnn = cnn.replace("channels = 16, kernel = 5", "channels = 64, kernel = 3, padding = 1")
    cnn = cnn.replace('out = 120}, {kind = "relu"}, {kind = "linear", out = 84}', "out = 128}")
    assert parameters(trace(net(tmp_path, cnn))) == 545_098  # 896 + 18496 + 524416 + 1290


# its dense layers as convolutions, as timm and the shipped net have them
VGG16 = (
    "input = [3, 224, 224]\nlayers = [\n"
    + "".join(
        f'{{kind = "conv", channels = {width}, kernel = 3, padding = 1}}, {{kind = "relu"}},\n'
        * depth
        + '{kind = "max_pool", kernel = 2},\n'
        for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    )
    + """
  {kind = "conv", channels = 4096, kernel = 7}, {kind = "relu"}, {kind = "conv", channels = 4096, kernel = 1}, {kind = "relu"},
  {kind = "global_avg_pool"},
  {kind = "linear", out = 1000},
]"""
)


def basic(width, stride, shortcut):
    bare = 'kernel = {0}, stride = {1}, padding = {2}, bias = false}}, {{kind = "batch_norm"}}'
    conv = f'{{kind = "conv", channels = {width}, '
    side = f", shortcut = [{conv}{bare.format(1, stride, 0)}]" if shortcut else ""
    main = f'{conv}{bare.format(3, stride, 1)}, {{kind = "relu"}}, {conv}{bare.format(3, 1, 1)}'
    return f'{{kind = "residual", layers = [{main}]{side}}}, {{kind = "relu"}}'


RESNET18 = """
input = [3, 224, 224]
layers = [
  {kind = "conv", channels = 64, kernel = 7, stride = 2, padding = 3, bias = false}, {kind = "batch_norm"}, {kind = "relu"},
  {kind = "max_pool", kernel = 3, stride = 2, padding = 1},
  {kind = "group", repeat = 2, layers = [FIRST]},
  REST
  {kind = "global_avg_pool"},
  {kind = "linear", out = 1000},
]""".replace("FIRST", basic(64, 1, False)).replace(
    "REST", "".join(f"{basic(w, 2, True)}, {basic(w, 1, False)}," for w in (128, 256, 512))
)


@pytest.mark.parametrize("policy", ["fp32", "bf16", "amp-bf16"])
@pytest.mark.parametrize(("name", "text"), [("vgg16", VGG16), ("resnet18", RESNET18)])
def test_a_net_listed_layer_by_layer_counts_as_the_shipped_one(tmp_path, name, text, policy):
    assert counts(trace(net(tmp_path, text), policy)) == counts(trace(resolve(name), policy))


def test_repeat_counts_as_written_out(tmp_path):
    once = "kind = 'linear'\nout = 64"
    wide = stack(once + "\nrepeat = 7", "kind = 'relu'", before="input = [100]")
    long = stack(*[once] * 7, "kind = 'relu'", before="input = [100]")
    assert counts(trace(net(tmp_path, wide))) == counts(trace(net(tmp_path, long)))
    shrinking = stack("kind = 'max_pool'\nkernel = 2\nrepeat = 4")
    assert shape_out(net(tmp_path, shrinking)) == (2, 3, 2, 2)


def test_another_size_stands_in_for_the_files(tmp_path):
    picture = net(tmp_path, stack(CONV, "kind = 'global_avg_pool'", "kind = 'linear'\nout = 10"))
    assert (picture.takes, picture.size) == ("image", 32)
    small, large = (
        sum(k.matrix for k in trace(picture, size=s).kernels if k.phase == "forward")
        for s in (32, 64)
    )
    assert large - small == 2 * 2 * 8 * 27 * (62**2 - 30**2)
    words = net(
        tmp_path, stack("kind = 'embedding'\nwidth = 8", before="tokens = 16\nvocabulary = 100")
    )
    assert (words.takes, words.size) == ("sequence", 16)
    assert shape_out(words, size=5) == (2, 5, 8)
    assert net(tmp_path, stack("kind = 'relu'", before="input = [4]")).takes == "table"
    assert shape_out(net(tmp_path, stack("kind = 'relu'", before="input = [3, 20, 30]"))) == (
        2,
        3,
        20,
        30,
    )


@pytest.mark.parametrize(
    ("end", "loss"),
    [
        ("kind = 'linear'\nout = 10", "cross_entropy"),
        ("kind = 'linear'\nout = 1", "mse"),
        ("kind = 'sigmoid'", "bce"),
        ("kind = 'softmax'", "cross_entropy"),
        ("kind = 'group'\nlayers = [{kind = 'relu'}, {kind = 'linear', out = 3}]", "cross_entropy"),
        ("kind = 'relu'", "mse"),
    ],
)
def test_the_loss_follows_from_the_last_layer(tmp_path, end, loss):
    tape = trace(net(tmp_path, stack(end, before="input = [8]")))
    assert tape.nodes[-1].op == loss
    assert tape.nodes[-1].name == "loss"
    assert not [
        n
        for n in trace(net(tmp_path, stack(end, before="input = [8]\nloss = 'none'"))).nodes
        if n.name == "loss"
    ]
    assert not [
        n
        for n in trace(net(tmp_path, stack(end, before="input = [8]")), training=False).nodes
        if n.name == "loss"
    ]


FC = "kind = 'linear'\nname = 'fc1'"
BAD = [  # file, what the line must say after the file's name
    (
        stack(
            "kind = 'conv'\nchannels = 64\nkernel = 3\npadding = 1",
            "kind = 'max_pool'\nkernel = 4",
            "kind = 'flatten'",
            FC + "\nin = 2304\nout = 128",
        ),
        (
            "layer 4 'fc1' (linear): in = 2304 is stated, but 64x8x8 = 4096 arrive; write in ="
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
        "layer 2 'conv1': kernel is missing; it must be given",
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
        "layer 1 'conv1': kernel has 3 numbers, but 3x32x32 arrives; wanted one number or 2",
    ),
    (
        stack("kind = 'conv'\nchannels = 8\nkernel = 3\npadding = 'full'"),
        "layer 1 'conv1': padding is 'full'; wanted 'same' or 'valid'",
    ),
    (
        stack("kind = 'conv'\nchannels = 8\nkernel = 3\ngroups = 2"),
        "layer 1 'conv1': convolution from 3 to 8 channels cannot be cut into 2 groups",
    ),
    (
        stack("kind = 'conv1d'\nchannels = 8\nkernel = 3"),
        "layer 1 'conv1d1': conv1d wants channels and 1 lengths, but 3x32x32 arrives; use conv2d",
    ),
    (
        stack("kind = 'max_pool'\nkernel = 2\nrepeat = 6"),
        "layer 1 'max_pool1': max pooling leaves nothing of [1, 1]",
    ),
    (
        stack("kind = 'max_pool'\nkernel = 2\npadding = 2"),
        "layer 1 'max_pool1': padding [2, 2] is more than half of the window [2, 2]",
    ),
    (
        stack(FC + "\nout = 10"),
        (
            "layer 1 'fc1' (linear): wants features or tokens, but 3x32x32 (space) arrives; put a"
            " 'flatten' or"
        ),
    ),
    (
        stack("kind = 'flatten'", "kind = 'conv'\nchannels = 8\nkernel = 3"),
        (
            "layer 2 'conv1': wants space, but 3072 (features) arrives; put a 'reshape' layer"
            " before it"
        ),
    ),
    (
        stack("kind = 'relu'", before="tokens = 8\nvocabulary = 100"),
        "layer 1 'relu1': wants features or tokens or space, but 8 (ids) arrives; put an 'emb",
    ),
    (
        stack("kind = 'relu'\nname = 'a'", "kind = 'tanh'\nname = 'a'"),
        "layer 2 'a' (tanh): the name stands on an earlier layer already",
    ),
    (
        stack("kind = 'residual'\nlayers = [{kind = 'conv', channels = 8, kernel = 3}]"),
        (
            "layer 1 'residual1': its layers give 8x30x30, but 3x32x32 is to be added; make them"
            " equal, or give shortcut"
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
        "layer 1 'transformer1': a width of 32 (4x32 arrives) cannot be cut into 5 heads",
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
        "layer 1 'reshape1': 3x32x32 arrives and cannot be seen as 4x4; wanted channels",
    ),
    (stack("kind = 'dropout'\np = 1.5"), "layer 1 'dropout1': p is 1.5; wanted a number <= 1"),
    (stack("kind = 'upsample'"), "layer 1 'upsample1': give either scale or size"),
    (
        stack("kind = 'embedding'\nwidth = 8\nrows = 50", before="tokens = 4\nvocabulary = 100"),
        "layer 1 'embedding1': rows = 50 is too few for a vocabulary",
    ),
    (
        stack("kind = 'conv_transpose'\nchannels = 1\nkernel = 2\nstride = 2000000000\nrepeat = 3"),
        "layer 1 'conv_transpose1': gives 1x",
    ),
    (
        stack("kind = 'relu'\nrepeat = 0"),
        "layer 1 'relu1': repeat is 0; wanted a whole number >= 1",
    ),
    ("input = [3, 32, 32]\nlayers = []", "layers is empty"),
    ("input = [3, 32, 32]", "layers is missing"),
    (stack("kind = 'relu'", before=""), "give either input = [channels, height, width]"),
    (stack("kind = 'relu'", before="tokens = 4"), "tokens = 4 wants either vocabulary"),
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
    ("input = [3, 32", "is not TOML, or was cut off: "),
]


@pytest.mark.parametrize(("text", "says"), BAD, ids=range(len(BAD)))
def test_a_bad_file_is_one_line_that_names_file_layer_and_cure(tmp_path, text, says):
    with pytest.raises(BadInput) as error:
        trace(net(tmp_path, text))
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 'net.toml'}: ") and "\n" not in line
    assert line.removeprefix(f"{tmp_path / 'net.toml'}: ").startswith(says)


def test_files_that_are_no_text_are_said_to_be_so(tmp_path):
    (tmp_path / "weights.toml").write_bytes(b"\xff\x00\x80")
    for path, says in (
        (tmp_path / "none.toml", "no such file"),
        (tmp_path, "is a directory"),
        (tmp_path / "weights.toml", "is not text"),
    ):
        with pytest.raises(BadInput, match=says):
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
def test_any_stack_of_windows_either_runs_or_is_refused_with_a_line(
    tmp_path_factory, windows, side, batch
):
    """The side that comes out is what counting window by window gives; a stack that leaves nothing
    is refused.
    """
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
        with pytest.raises(BadInput, match="leaves nothing|more than half"):
            trace(model)
        return
    tape = trace(model, batch=batch)
    assert shape_out(model, batch)[2:] == (expected, expected)
    assert prod(shape_out(model, batch)) > 0 and all(
        k.read >= 0 and k.written >= 0 for k in tape.kernels
    )
