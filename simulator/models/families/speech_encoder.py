"""wav2vec 2.0 [baevski2020], HuBERT [hsu2021], UniSpeech and WavLM [chen2021]: convolutions over
the waveform, a transformer.

`sequence` counts samples of audio. Without a head for CTC the loss is the square error of the last
hidden state, as in distillation.
"""

from __future__ import annotations

import msgspec

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.families.transformer import activate, normed, projections
from roofcast.simulator.models.vision.parts import dense, pairwise_loss
from roofcast.simulator.work.ops import attention, conv, ctc, embedding, linear, norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

RATE = 16_000  # samples of audio per second
CROP = 250_000  # samples of audio, to which training crops [baevski2020, Section 4.2]


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's Wav2Vec2Config, HubertConfig, WavLMConfig .., with their defaults."""

    model_type: str
    vocab_size: int = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    feat_proj_layer_norm: bool = True
    final_dropout: float = 0.1
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: tuple[int, ...] = (512,) * 7
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False
    mask_time_prob: float = 0.05
    mask_feature_prob: float = 0.0
    num_buckets: int = 320  # of relative positions, of WavLM
    add_adapter: bool = False
    conv_pos_batch_norm: bool = False
    architectures: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.feat_extract_norm not in ("group", "layer"):
            raise ValueError(f"feat_extract_norm {self.feat_extract_norm[:40]!r}: group or layer")
        if not len(self.conv_dim) == len(self.conv_stride) == len(self.conv_kernel) > 0:
            raise ValueError("conv_dim, conv_stride and conv_kernel must be equally long")
        if min(*self.conv_dim, *self.conv_stride, *self.conv_kernel) < 1:
            raise ValueError("conv_dim, conv_stride and conv_kernel must be positive")
        if self.add_adapter or self.conv_pos_batch_norm:
            raise ValueError("add_adapter and conv_pos_batch_norm are not modeled; use false")

    @property
    def size(self) -> int:
        """Default samples of audio in a sample."""
        return CROP

    @property
    def context(self) -> int:
        """Longest sequence [samples of audio]: there is no limit."""
        return self.size


def build(t: Tape, c: Config, batch: int, sequence: int) -> Value:
    """One step on `batch` samples of `sequence` values of audio: the loss, or the result."""
    if t.parallel.cp > 1:
        raise BadInput(f"cp {t.parallel.cp}: convolutions over audio are not split; use cp 1")
    t.assumptions.append(
        f"a sequence is {sequence} samples of audio, {sequence / RATE:.3g} s at {RATE // 1000} kHz;"
        " no SpecAugment, no layer dropped"
    )
    wave = t.input((batch, sequence))
    wave.grad = t.training  # as transformers sets it, for checkpointing
    x = features(t, c, t.view(wave, batch, 1, sequence))
    width = c.hidden_size
    x = t.view(x, batch, x.shape[2], x.shape[1])
    if c.feat_proj_layer_norm or c.model_type != "hubert":
        x = normed(t, "feature_projection.layer_norm", x)
    x = dense(t, "feature_projection.projection", x, width)
    with t.op("feature_projection.dropout", "dropout"):
        x = pointwise.dropout(t, x, c.feat_proj_dropout)
        if c.mask_time_prob > 0 or c.mask_feature_prob > 0:
            t.parameter(width)
    x = encoder(t, c, x)
    if not any(name.endswith("ForCTC") for name in c.architectures or ()):
        t.assumptions.append("encoder without a head: the loss is the square error of its output")
        return pairwise_loss(t, "mse", x)
    with t.op("dropout", "dropout"):
        x = pointwise.dropout(t, x, c.final_dropout)
    logits = dense(t, "lm_head", x, c.vocab_size)
    if not t.training:
        return logits
    with t.op("loss", "ctc"):
        return ctc.ctc(t, logits, max(x.shape[1] // 4, 1))


def features(t: Tape, c: Config, x: Value) -> Value:
    """Features [batch, channels, frames] of the waveform [batch, 1, samples]."""
    layers = zip(c.conv_dim, c.conv_kernel, c.conv_stride, strict=True)
    for index, (width, kernel, stride) in enumerate(layers):
        with t.scope(f"feature_extractor.conv_layers.{index}"):
            with t.op("conv", "conv"):
                x = conv.conv(t, x, width, kernel, stride=stride, bias=c.conv_bias, dims=1)
            if c.feat_extract_norm == "layer":
                x = t.view(normed(t, "layer_norm", t.view(x, *_turned(x))), *x.shape)
            elif index == 0:
                with t.op("layer_norm", "group_norm"):
                    x = norm.group_norm(t, x, width)
            with t.op("activation", c.feat_extract_activation):
                x = activate(t, c.feat_extract_activation, x)
    return x


def _turned(x: Value) -> tuple[int, int, int]:
    batch, channels, frames = x.shape
    return batch, frames, channels


def encoder(t: Tape, c: Config, x: Value) -> Value:
    """Convolved positions, then the layers, on x [batch, frames, width]."""
    with t.scope("encoder"):
        with t.op("pos_conv_embed", "conv"):
            x = pointwise.add(t, x, places(t, c, x))
        if not c.do_stable_layer_norm:
            x = normed(t, "layer_norm", x)
        with t.op("dropout", "dropout"):
            x = pointwise.dropout(t, x, c.hidden_dropout)
        bias = relative_bias(t, c, x) if c.model_type == "wavlm" else None
        x = t.repeat("layers", c.num_hidden_layers, lambda x: block(t, c, x, bias), x)
        return normed(t, "layer_norm", x) if c.do_stable_layer_norm else x


def places(t: Tape, c: Config, x: Value) -> Value:
    """A grouped convolution over the frames, its filters normed per position of the kernel."""
    batch, frames, width = x.shape
    kernel, groups = c.num_conv_pos_embeddings, c.num_conv_pos_embedding_groups
    g, v = t.parameter(1, 1, kernel), t.parameter(width, width // groups, kernel)
    filters = t.new(v.shape, v.dtype, v.grad)
    t.emit("reduce", (v, g), (filters,), vector=4 * v.size)
    if v.grad:
        t.keep(4 * kernel)
        read, written, dtype = 2 * v.bytes, v.bytes + g.bytes, v.dtype
        t.backward("elementwise", vector=6 * v.size, read=read, written=written, product=dtype)
    h = t.view(x, batch, width, frames)
    h = conv.conv(t, h, width, kernel, padding=kernel // 2, groups=groups, dims=1, weight=filters)
    h = activate(t, c.feat_extract_activation, t.view(h, batch, width, frames))
    return t.view(h, batch, frames, width)


def relative_bias(t: Tape, c: Config, x: Value) -> Value:
    """A learned bias per relative position [batch heads, frames, frames], shared by all layers."""
    heads = t.share(c.num_attention_heads, "the attention heads")
    batch, frames, _ = x.shape
    ranks = t.parallel.tp if t.parallel.sp else 1
    frames = -(-frames // ranks) * ranks  # as the ranks together have
    with t.op("rel_attn_embed", "embedding"):
        places = t.new((frames, frames), "int64")
        t.emit("elementwise", (), (places,), vector=10 * places.size, special=places.size)
        bias = embedding.embedding(t, places, c.num_buckets, heads)
        return pointwise.copy(t, bias, batch * heads, frames, frames)


def block(t: Tape, c: Config, x: Value, bias: Value | None) -> Value:
    """One block; x and the result are [batch, frames, width]."""
    first = c.do_stable_layer_norm
    h = normed(t, "layer_norm", x) if first else x
    h = attend(t, c, h) if bias is None else gated_attend(t, c, h, bias)
    with t.op("residual_attn", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.hidden_dropout))
    x = x if first else normed(t, "layer_norm", x)
    h = normed(t, "final_layer_norm", x) if first else x
    with t.scope("feed_forward"):
        with t.op("intermediate_dense", "linear"):
            h = linear.linear(t, h, c.intermediate_size)
        with t.op("intermediate_act_fn", c.hidden_act):
            h = pointwise.dropout(t, activate(t, c.hidden_act, h), c.activation_dropout)
        with t.op("output_dense", "linear"):
            h = linear.linear(t, h, c.hidden_size)
    with t.op("residual_mlp", "add"):
        x = pointwise.add(t, x, pointwise.dropout(t, h, c.hidden_dropout))
    return x if first else normed(t, "final_layer_norm", x)


def attend(t: Tape, c: Config, x: Value) -> Value:
    """Self-attention of x [batch, frames, width]."""
    width, heads = c.hidden_size, c.num_attention_heads
    with t.scope("attention"):
        names = dict.fromkeys(("q_proj", "k_proj", "v_proj"), heads)
        q, k, v = projections(t, x, names, width // heads)
        with t.op("attention", "attention"):
            h = attention.attention(t, q, k, v, causal=False, dropout=c.attention_dropout)
        with t.op("out_proj", "linear"):
            return linear.linear(t, h, width)


def gated_attend(t: Tape, c: Config, x: Value, bias: Value) -> Value:
    """Self-attention of x [batch, frames, width] with a bias that every frame gates [chen2021]."""
    width, heads = c.hidden_size, c.num_attention_heads
    dim = width // heads
    with t.scope("attention"):
        own = t.share(heads, "the attention heads")
        with t.op("gru_rel_pos", "linear"):
            scale = t.parameter(1, own, 1, 1)
            full = t.enter(x) if t.parallel.tp > 1 else x
            batch, frames, _ = full.shape
            part = t.view(full, batch, own, frames, dim)
            part = part if own == 1 else pointwise.copy(t, part)
            sums = linear.linear(t, part, 8, parallel=False)
            sums = pointwise.total(t, t.view(sums, batch, own, frames, 2, 4), keepdim=False)
            gates = pointwise.unary(t, "sigmoid", sums)
            a, b = (t.view(gates, batch, own, frames, 1) for _ in range(2))
            b = pointwise.unary(t, "add_scalar", pointwise.mul(t, b, scale))
            gate = pointwise.unary(t, "add_scalar", pointwise.mul(t, a, b))
            bias = pointwise.mul(t, t.view(gate, batch * own, frames, 1), bias)
        turned = [x if batch == 1 else pointwise.copy(t, x) for _ in range(3)]
        with t.op("qkv_proj", "linear"):
            q, k, v = (linear.linear(t, y, width) for y in turned)
            q, k, v = (t.view(y, batch * own, frames, dim) for y in (pointwise.scale(t, q), k, v))
        with t.op("attention", "attention"):
            scores = pointwise.add(t, linear.matmul(t, q, k, transposed=True), bias)
            p = pointwise.dropout(t, norm.softmax(t, scores), c.attention_dropout)
            h = pointwise.copy(t, linear.matmul(t, p, v), batch, frames, own * dim)
        with t.op("out_proj", "linear"):
            return linear.linear(t, h, width)
