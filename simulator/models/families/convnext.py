"""ConvNeXt [liu2022] and ConvNeXt V2 [woo2023] with a classifier, as in transformers."""

from __future__ import annotations

from functools import partial

import msgspec

from roofcast.hwdb.errors import number_of
from roofcast.simulator.models.families import transformer
from roofcast.simulator.models.families.diffusion import check_sizes
from roofcast.simulator.models.families.resnet import check_stages
from roofcast.simulator.models.families.transformer import activate, normed
from roofcast.simulator.models.vision.convnext import channel_norm
from roofcast.simulator.models.vision.parts import (
    classify,
    convolve,
    dense,
    global_average,
    residual,
)
from roofcast.simulator.models.vision.vit import layer_scale
from roofcast.simulator.models.vision.windows import divided_drop_path
from roofcast.simulator.work.ops import pointwise
from roofcast.simulator.work.tape import Tape, Value


class Config(msgspec.Struct, frozen=True):
    """Keys of Hugging Face's ConvNextConfig and ConvNextV2Config, with their defaults."""

    model_type: str
    num_channels: int = 3
    patch_size: int = 4
    num_stages: int = 4
    hidden_sizes: tuple[int, ...] = (96, 192, 384, 768)
    depths: tuple[int, ...] = (3, 3, 9, 3)
    hidden_act: str = "gelu"
    layer_scale_init_value: float = 1e-6
    drop_path_rate: float = 0.0
    image_size: int = 224
    num_labels: int | None = None
    id2label: dict[str, str] | None = None

    def __post_init__(self) -> None:
        check_sizes(self)
        check_stages(self.depths, self.hidden_sizes)
        if len(self.depths) != self.num_stages:
            raise ValueError(
                f"depths has {number_of(len(self.depths), 'entry', 'entries')};"
                f" num_stages is {self.num_stages}"
            )

    @property
    def second(self) -> bool:
        """Whether it is V2: a response norm in the place of the scale of a branch."""
        return self.model_type == "convnextv2"

    @property
    def labels(self) -> int:
        """Classes of an image; two where the config names none."""
        return self.num_labels or len(self.id2label or ()) or 2


def build(t: Tape, c: Config, batch: int, image: int) -> Value:
    """One step on `batch` images of `image` x `image` pixels: the loss, or the logits."""
    x, patch = t.input((batch, c.num_channels, image, image)), c.patch_size
    x = convolve(t, "embeddings.patch_embeddings", x, c.hidden_sizes[0], patch, stride=patch)
    x = channel_norm(t, "embeddings.layernorm", x)
    for stage, (width, depth) in enumerate(zip(c.hidden_sizes, c.depths, strict=True)):
        with t.scope(f"encoder.stages.{stage}"):
            if stage:
                x = channel_norm(t, "downsampling_layer.0", x)
                x = convolve(t, "downsampling_layer.1", x, width, 2, stride=2)
            first = sum(c.depths[:stage])
            kinds = [c.drop_path_rate > 0 and first + i > 0 for i in range(depth)]
            x = transformer.layers(t, "layers", kinds, partial(block, t, c), x)
    x = normed(t, "layernorm", global_average(t, x, "pool"))
    return classify(t, x, c.labels, name="classifier")


def block(t: Tape, c: Config, x: Value, drops: bool) -> Value:
    """One block on x [B, C, H, W]: depthwise 7x7, norm, MLP, scale, residual."""
    batch, width, *space = x.shape
    h = convolve(t, "dwconv", x, width, 7, padding=3, groups=width)
    h = normed(t, "layernorm", t.view(h, batch, *space, width))
    h = dense(t, "pwconv1", h, 4 * width)
    with t.op("act", c.hidden_act):
        h = activate(t, c.hidden_act, h)
    if c.second:
        h = response_norm(t, "grn", h)
    h = dense(t, "pwconv2", h, width)
    if not c.second and c.layer_scale_init_value > 0:
        h = layer_scale(t, "layer_scale_parameter", h)
    h = divided_drop_path(t, "drop_path", h, c.drop_path_rate if drops else 0)
    return residual(t, x, t.view(h, batch, width, *space))


def response_norm(t: Tape, name: str, x: Value) -> Value:
    """x scaled by the norms of its channels over space, for x [B, H, W, C] [woo2023]."""
    batch, _, _, width = x.shape
    with t.op(name, "norm"):
        full = t.full(x)
        norms = t.new((batch, 1, 1, width), full.dtype, x.grad)
        t.emit("reduce", (full,), (norms,), vector=2 * x.size, special=norms.size)
        if norms.grad:
            t.save(full, norms)
            read, written = full.bytes + norms.bytes, full.bytes
            t.backward("elementwise", vector=2 * x.size, read=read, written=written)
        mean = pointwise.unary(t, "add_scalar", pointwise.mean(t, norms))
        relative = pointwise.mul(t, norms, mean)  # a quotient keeps what a product keeps
        h = pointwise.mul(t, t.parameter(1, 1, 1, width), pointwise.mul(t, x, relative))
        h = pointwise.add(t, h, t.parameter(1, 1, 1, width))
        return pointwise.add(t, h, x)
