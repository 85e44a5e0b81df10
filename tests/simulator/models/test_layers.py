"""TOML lists of layers: shapes and parameters against values computed by hand and shipped nets."""

from __future__ import annotations

import time

import pytest
from toml_nets import CONV, counts, net, parameters, shape_out, stack, trace

from roofcast.simulator.models import resolve
from roofcast.simulator.models.toml.keys import Net, meanings
from roofcast.simulator.models.toml.kinds import KINDS
from roofcast.simulator.work.traced import Block, layer_order

SHAPES = [  # file, output shape for a batch of 2, number of parameters; computed by hand
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
def test_shapes_and_parameters_equal_values_computed_by_hand(tmp_path, text, shape, count):
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
  {kind = "linear", out = 120}, {kind = "relu"},
  {kind = "linear", out = 84}, {kind = "relu"},
  {kind = "linear", out = 10},
]
"""


def test_lenet_and_a_cifar_cnn_have_the_parameters_computed_by_hand(tmp_path):
    assert parameters(trace(net(tmp_path, TUTORIAL))) == 62_006  # 456 + 2416 + 48120 + 10164 + 850
    cnn = TUTORIAL.replace("channels = 6, kernel = 5", "channels = 32, kernel = 3, padding = 1")
    cnn = cnn.replace("channels = 16, kernel = 5", "channels = 64, kernel = 3, padding = 1")
    cnn = cnn.replace('out = 120}, {kind = "relu"},\n  {kind = "linear", out = 84}', "out = 128}")
    assert parameters(trace(net(tmp_path, cnn))) == 545_098  # 896 + 18496 + 524416 + 1290


# its linear layers are convolutions, as in timm and in the shipped net
VGG16 = (
    "input = [3, 224, 224]\nlayers = [\n"
    + "".join(
        f'{{kind = "conv", channels = {width}, kernel = 3, padding = 1}}, {{kind = "relu"}},\n'
        * depth
        + '{kind = "max_pool", kernel = 2},\n'
        for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
    )
    + """
  {kind = "conv", channels = 4096, kernel = 7}, {kind = "relu"},
  {kind = "conv", channels = 4096, kernel = 1}, {kind = "relu"},
  {kind = "global_avg_pool"},
  {kind = "linear", out = 1000},
]"""
)


def basic(width, stride, shortcut):
    """A basic block of a ResNet, as TOML."""
    bare = 'kernel = {0}, stride = {1}, padding = {2}, bias = false}}, {{kind = "batch_norm"}}'
    conv = f'{{kind = "conv", channels = {width}, '
    side = f", shortcut = [{conv}{bare.format(1, stride, 0)}]" if shortcut else ""
    main = f'{conv}{bare.format(3, stride, 1)}, {{kind = "relu"}}, {conv}{bare.format(3, 1, 1)}'
    return f'{{kind = "residual", layers = [{main}]{side}}}, {{kind = "relu"}}'


RESNET18 = """
input = [3, 224, 224]
layers = [
  {kind = "conv", channels = 64, kernel = 7, stride = 2, padding = 3, bias = false},
  {kind = "batch_norm"}, {kind = "relu"},
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
def test_a_net_listed_layer_by_layer_has_the_counts_of_the_shipped_net(
    tmp_path, name, text, policy
):
    assert counts(trace(net(tmp_path, text), policy)) == counts(trace(resolve(name), policy))


def test_repeat_has_the_counts_of_the_layers_written_one_by_one(tmp_path):
    once = "kind = 'linear'\nout = 64"
    wide = stack(once + "\nrepeat = 7", "kind = 'relu'", before="input = [100]")
    long = stack(*[once] * 7, "kind = 'relu'", before="input = [100]")
    assert counts(trace(net(tmp_path, wide))) == counts(trace(net(tmp_path, long)))
    shrinking = stack("kind = 'max_pool'\nkernel = 2\nrepeat = 4")
    assert shape_out(net(tmp_path, shrinking)) == (2, 3, 2, 2)


def test_a_given_size_replaces_that_of_the_file(tmp_path):
    image = net(tmp_path, stack(CONV, "kind = 'global_avg_pool'", "kind = 'linear'\nout = 10"))
    assert (image.takes, image.size) == ("image", 32)
    small, large = (
        sum(k.matrix for k in trace(image, size=s).kernels if k.phase == "forward")
        for s in (32, 64)
    )
    assert large - small == 2 * 2 * 8 * 27 * (62**2 - 30**2)
    words = net(
        tmp_path, stack("kind = 'embedding'\nwidth = 8", before="tokens = 16\nvocabulary = 100")
    )
    assert (words.takes, words.size) == ("sequence", 16)
    assert shape_out(words, size=5) == (2, 5, 8)
    assert net(tmp_path, stack("kind = 'relu'", before="input = [4]")).takes == "table"
    wide = net(tmp_path, stack("kind = 'relu'", before="input = [3, 20, 30]"))
    assert shape_out(wide) == (2, 3, 20, 30)


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
def test_the_default_loss_depends_on_the_last_layer(tmp_path, end, loss):
    tape = trace(net(tmp_path, stack(end, before="input = [8]")))
    assert tape.nodes[-1].op == loss
    assert tape.nodes[-1].name == "loss"
    without = trace(net(tmp_path, stack(end, before="input = [8]\nloss = 'none'")))
    inference = trace(net(tmp_path, stack(end, before="input = [8]")), training=False)
    assert "loss" not in {node.name for node in (*without.nodes, *inference.nodes)}


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_key_of_a_kind_of_layer_is_documented(kind):
    assert KINDS[kind].about.endswith(".")
    documented(KINDS[kind].keys)


def test_every_key_of_a_file_is_documented():
    documented(Net)


def documented(record):
    """Every key has a meaning; a key that may be left out says its default."""
    required = len(record.__struct_fields__) - len(record.__struct_defaults__)
    for index, key in enumerate(record.__struct_encode_fields__):
        text = meanings(record)[key]
        assert ("default" in text) == (index >= required), key


def test_the_time_to_read_a_list_of_layers_grows_with_its_length(tmp_path):
    """Sixteen times as many layers take some sixteen times as long: names are not compared pair by
    pair.
    """

    def seconds(count, runs):
        path = tmp_path / f"{count}.toml"
        layers = "".join(f"[[layers]]\nkind = 'linear'\nout = {8 + i % 3}\n" for i in range(count))
        path.write_text("input = [8]\n" + layers)
        times = []
        for _ in range(runs):
            start = time.process_time()
            resolve(str(path))
            times.append(time.process_time() - start)
        return min(times)

    assert seconds(8000, 1) < 40 * seconds(500, 5)


def test_the_order_of_many_kinds_of_layers_is_found_in_linear_time():
    def seconds(count):
        blocks = [Block("", 1, 0.0), *(Block(f"{i}", 2, 0.0) for i in range(count))]
        start = time.process_time()
        assert layer_order(blocks, set(range(1, count + 1)))[-1] == count
        return time.process_time() - start

    assert seconds(4000) < 40 * min(seconds(250) for _ in range(5))
