"""Keras models: the nets of Keras's tutorials equal the same nets as TOML; files and refusals."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

from roofcast import count
from roofcast.hwdb.errors import BadInput

pytest.importorskip("torch", reason="needs the torch extra: pip install .[torch]")
os.environ["KERAS_BACKEND"] = "torch"
keras = pytest.importorskip("keras", reason="needs the keras extra: pip install .[keras]")
layers = keras.layers
pytestmark = pytest.mark.keras


def cnn():
    net = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.BatchNormalization(),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    net.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    return net


def text():
    return keras.Sequential(
        [
            keras.Input((50,)),
            layers.Embedding(2000, 32),
            layers.Bidirectional(layers.LSTM(16, return_sequences=True)),
            layers.Bidirectional(layers.LSTM(16)),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def generator():
    return keras.Sequential(
        [
            keras.Input((100,)),
            layers.Dense(7 * 7 * 64),
            layers.Reshape((7, 7, 64)),
            layers.Conv2DTranspose(32, 4, strides=2, padding="same"),
            layers.BatchNormalization(),
            layers.LeakyReLU(0.2),
            layers.Conv2DTranspose(1, 4, strides=2, padding="same", activation="tanh"),
        ]
    )


def discriminator():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, strides=2, padding="valid"),
            layers.LeakyReLU(0.2),
            layers.Flatten(),
            layers.Dense(1, activation="sigmoid"),
        ]
    )


def recommender():
    """An embedding of users times an embedding of items."""
    user, item = keras.Input((1,)), keras.Input((1,))
    vectors = [layers.Embedding(n, 32)(x) for n, x in ((1000, user), (2000, item))]
    flat = [layers.Flatten()(v) for v in vectors]
    return keras.Model([user, item], layers.Dot(axes=1)(flat))


TOML = {
    "cnn": (
        cnn,
        """input = [1, 28, 28]
layers = [{kind="conv", channels=32, kernel=3}, {kind="relu"}, {kind="max_pool", kernel=2},
{kind="conv", channels=64, kernel=3, stride=2, padding="same"}, {kind="relu"},
{kind="batch_norm"}, {kind="max_pool", kernel=2}, {kind="flatten"}, {kind="dropout"},
{kind="linear", out=64}, {kind="relu"}, {kind="linear", out=10}, {kind="softmax"}]""",
        0,
    ),
    "text": (
        text,
        """tokens = 50
vocabulary = 2000
layers = [{kind="embedding", width=32}, {kind="lstm", hidden=16, bidirectional=true},
{kind="lstm", hidden=16, bidirectional=true}, {kind="last_token"}, {kind="linear", out=1},
{kind="sigmoid"}]""",
        -2 * 2 * 4 * 16,  # PyTorch's layers have a second bias, in each of two directions
    ),
    "generator": (
        generator,
        """input = [100]
layers = [{kind="linear", out=3136}, {kind="reshape", shape=[64, 7, 7]},
{kind="conv_transpose", channels=32, kernel=4, stride=2, padding=1}, {kind="batch_norm"},
{kind="leaky_relu"}, {kind="conv_transpose", channels=1, kernel=4, stride=2, padding=1},
{kind="tanh"}]""",
        0,
    ),
    "discriminator": (
        discriminator,
        """input = [1, 28, 28]
layers = [{kind="conv", channels=32, kernel=3, stride=2}, {kind="leaky_relu"},
{kind="flatten"}, {kind="linear", out=1}, {kind="sigmoid"}]""",
        0,
    ),
}


@pytest.fixture
def as_toml(tmp_path):
    def counted(text, **how):
        path = tmp_path / "same.toml"
        path.write_text(text)
        return count(str(path), **how)

    return counted


@pytest.mark.parametrize("name", TOML)
@pytest.mark.parametrize("mode", ["train", "infer"])
def test_a_net_of_keras_counts_as_the_same_net_in_toml(name, mode, tmp_path, as_toml):
    make, toml, more = TOML[name]
    path = tmp_path / "net.keras"
    make().save(path)
    ours, same = count(str(path), batch=8, mode=mode), as_toml(toml, batch=8, mode=mode)
    assert ours.parameters == same.parameters + more
    assert ours.flops_forward == same.flops_forward
    assert ours.flops_backward == same.flops_backward
    assert ours.saved_bytes == pytest.approx(same.saved_bytes, rel=0.04)
    if name != "text" and mode == "train":
        assert ours.bytes_forward == pytest.approx(same.bytes_forward, rel=0.02)


def test_a_dot_of_two_embeddings(tmp_path):
    path = tmp_path / "net.keras"
    recommender().save(path)
    found = count(str(path), batch=16)
    assert found.parameters == 3000 * 32
    assert found.flops_forward == 2 * 16 * 32
    assert found.flops_backward == 2 * found.flops_forward


NETS = [cnn, text, generator, discriminator, recommender]


@pytest.mark.parametrize("make", NETS, ids=lambda make: make.__name__)
def test_trainable_parameters_are_those_of_keras(make, tmp_path):
    net = make()
    path = tmp_path / "net.keras"
    net.save(path)
    own = sum(v.shape.num_elements() if hasattr(v.shape, "num_elements") else _size(v)
              for v in net.trainable_variables)  # fmt: skip
    assert count(str(path), batch=2).parameters == own


def _size(variable):
    size = 1
    for n in variable.shape:
        size *= n
    return size


def test_an_h5_file_is_the_same_net(tmp_path):
    net = cnn()
    one, other = tmp_path / "net.keras", tmp_path / "net.h5"
    net.save(one)
    net.save(other)
    a, b = count(str(one), batch=4), count(str(other), batch=4)
    assert (a.parameters, a.flops_forward, a.saved_bytes) == (
        b.parameters, b.flops_forward, b.saved_bytes
    )  # fmt: skip


FILE = """
import tensorflow as tf
from tensorflow import keras
from tensorflow.keras import layers
from tensorflow.keras.models import Sequential

def build(width=16):
    return tf.keras.Sequential([keras.Input((8,)), layers.Dense(width), layers.Dense(2)])

net = Sequential([keras.Input((8,)), layers.Dense(4)])
net.compile("adam", "mse")
net.fit([[0.0] * 8], [[0.0] * 4], epochs=100)
"""


def test_a_file_that_says_tf_keras_runs_without_tensorflow(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(FILE)
    assert count(f"{path}:build", batch=4).parameters == 8 * 16 + 16 + 16 * 2 + 2
    assert count(f"{path}:net", batch=4).parameters == 36
    assert count(str(path), batch=4).parameters == 36
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("x = tf.data.Dataset", "tf.data"),
        ("import tensorflow.nn", "tensorflow.nn"),
        ("tf.random.set_seed(1)", "tf.random"),
    ],
)
def test_other_parts_of_tensorflow_are_named(line, said, tmp_path):
    path = tmp_path / "net.py"
    path.write_text(f"import tensorflow as tf\n{line}\nnet = tf.keras.Sequential()\n")
    with pytest.raises(BadInput, match=said.replace(".", r"\.")):
        count(f"{path}:net", batch=1)


def test_a_layer_of_the_user_and_attention(tmp_path):
    path = tmp_path / "net.py"
    path.write_text(
        """
import keras
from keras import layers

class Block(layers.Layer):
    def __init__(self, **rest):
        super().__init__(**rest)
        self.attention = layers.MultiHeadAttention(4, 16)
        self.norm, self.mlp = layers.LayerNormalization(), layers.Dense(64, activation="gelu")

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")
        super().build(shape)

    def call(self, x):
        return self.norm(x * self.scale + self.mlp(self.attention(x, x)))

def net():
    x = keras.Input((32, 64))
    return keras.Model(x, Block()(Block()(x)))
"""
    )
    found = count(f"{path}:net", batch=2)
    square = 64 * 64 + 64
    assert found.parameters == 2 * (5 * square + 64 + 2 * 64)
    products = 5 * 2 * 64 * 64 * 64
    assert found.flops_forward == 2 * (products + 2 * 2 * 2 * 32 * 32 * 64)


def test_a_frozen_part_trains_nothing(tmp_path):
    maker, critic = generator(), discriminator()
    alone = count_of(keras.Sequential([maker, critic]), tmp_path)
    critic.trainable = False
    frozen = count_of(keras.Sequential([maker, critic]), tmp_path)
    assert frozen.parameters == alone.parameters
    assert frozen.flops_forward == alone.flops_forward
    assert frozen.flops_backward < alone.flops_backward


def count_of(net, folder):
    path = folder / "net.keras"
    net.save(path)
    return count(str(path), batch=4)


def lambda_file(folder):
    path = folder / "net.keras"
    keras.Sequential([keras.Input((4,)), layers.Lambda(lambda x: x * 2)]).save(path)
    return path


def weights_alone(folder):
    import h5py

    path = folder / "net.h5"
    with h5py.File(path, "w") as file:
        file["w"] = [1.0]
    return path


def saved_model(folder):
    (folder / "net").mkdir()
    (folder / "net" / "saved_model.pb").write_bytes(b"\x08\x01")
    return folder / "net"


def bomb(folder):
    path = folder / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", b" " * (1 << 27))
    return path


def nested(folder):
    return _described(folder, "[" * 100_000)


def not_a_model(folder):
    return _described(folder, json.dumps({"class_name": "Nothing", "config": {}}))


def another_module(folder):
    """A class of another module, which must not be imported."""
    layer = {"module": "os.path", "class_name": "join", "config": {}}
    net = {"module": "keras", "class_name": "Sequential", "config": {"layers": [layer]}}
    return _described(folder, json.dumps(net))


def no_config(folder):
    path = folder / "net.keras"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("other.json", "{}")
    return path


def noise(folder):
    path = folder / "net.keras"
    path.write_bytes(b"PK\x03\x04" + bytes(range(256)))
    return path


def open_axis(folder):
    path = folder / "net.keras"
    keras.Sequential([keras.Input((None, 4)), layers.LSTM(2)]).save(path)
    return path


def _described(folder, text):
    path = folder / "net.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", text)
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda_file, "Lambda layer"),
        (weights_alone, "weights alone"),
        (saved_model, "model.save"),
        (bomb, "claims"),
        (nested, "not JSON"),
        (not_a_model, "cannot be built"),
        (another_module, "'os.path' is not a class of Keras"),
        (no_config, "no config.json"),
        (noise, "neither"),
        (open_axis, "--input 1x128x4"),
    ],
    ids=lambda each: getattr(each, "__name__", ""),
)
def test_a_file_that_cannot_be_read_is_refused_in_one_line(make, said, tmp_path):
    with pytest.raises(BadInput) as refused:
        count(str(make(tmp_path)), batch=1)
    message = str(refused.value)
    assert said in message and "\n" not in message and len(message) < 500


def test_without_the_extra_a_line_says_how_to_install_it(tmp_path):
    (tmp_path / "keras.py").write_text("raise ImportError('no keras')")
    (tmp_path / "net.keras").write_bytes(b"")
    command = "from roofcast.reports.command import main; main(['count', 'net.keras'])"
    paths = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    ran = subprocess.run(
        [sys.executable, "-c", command],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True,
    )  # fmt: skip
    assert ran.returncode == 2 and "roofcast[keras,torch]" in ran.stderr, ran.stderr
    assert len(ran.stderr.strip().splitlines()) == 1
