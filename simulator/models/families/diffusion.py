"""Shared parts of the denoisers and autoencoders of diffusers: what their Configs have in common,
embeddings of time steps and texts, residual blocks of convolutions, modulated norms.

`size` is the side of the image in pixels. The denoisers work on latents, whose side is an eighth of
it, and the autoencoders on the image itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.simulator.models.vision.parts import activation, convolve, dense, pairwise_loss
from roofcast.simulator.work.ops import norm, pointwise
from roofcast.simulator.work.tape import Tape, Value

REDUCTION = 8  # side of an image over that of its latents, in the autoencoders of Stable Diffusion
MOST, MOST_LAYERS = 10**7, 10**3  # of a size, and of layers
ATTENTION = "to_q,to_k,to_v,to_out.0"
_JOINT = "attn.to_q,attn.to_k,attn.to_v,attn.to_out.0"
_ADDED = "attn.add_q_proj,attn.add_k_proj,attn.add_v_proj,attn.to_add_out"
_MLPS = "ff.net.0.proj,ff.net.2,ff_context.net.0.proj,ff_context.net.2"
ADAPTED = {  # layers with adapters in the training scripts of diffusers (examples/), by class
    "UNet2DConditionModel": ATTENTION,
    "SD3Transformer2DModel": f"{_JOINT},{_ADDED}",
    "FluxTransformer2DModel": f"{_JOINT},{_ADDED},{_MLPS}",
    "QwenImageTransformer2DModel": ATTENTION,
    "WanTransformer3DModel": ATTENTION,
    "PixArtTransformer2DModel": ATTENTION,
    "DiTTransformer2DModel": ATTENTION,
}
TIME = 256  # sines and cosines of a time step in diffusion transformers


def only(config: Any, expected: Mapping[str, Any]) -> None:
    """Raises ValueError unless these keys of a config have the values that are modeled."""
    for key, value in expected.items():
        found = getattr(config, key)
        if found != value:
            raise ValueError(
                f"{key} {str(found)[:40]!r} is not modeled, only {value!r}; a .py file that builds"
                " the module with diffusers runs it"
            )


def check_sizes(config: Any) -> None:
    """Raises ValueError unless the sizes of a config are positive and within reason."""
    for key in config.__struct_fields__:
        value = getattr(config, key)
        lowest = 0 if key == "dual_attention_layers" else 1
        highest = MOST_LAYERS if "layers" in key else MOST
        for number in value if isinstance(value, tuple) else (value,):
            whole = isinstance(number, int) and not isinstance(number, bool)
            if whole and not lowest <= number <= highest:
                raise ValueError(f"{key} is {number:.4g}; it must be {lowest} to {highest}")


def latent_side(t: Tape, size: int, unit: int, text: int | None = None) -> int:
    """Side of the latents of images of side `size` [pixels], which the model takes in squares of
    `unit`; states what that assumes. Raises BadInput where the side does not fit.
    """
    if size % (REDUCTION * unit):
        raise BadInput(
            f"image of {size}x{size} pixels: use a side divisible by {REDUCTION * unit}, for"
            f" latents that an autoencoder makes {REDUCTION} times smaller"
        )
    t.inputs_need_grad = False  # diffusers' checkpoints pass gradients without
    side = size // REDUCTION
    alone = "" if t.encoded else "denoiser alone: "
    t.assumptions.append(
        f"{alone}images of {size}x{size} are latents of {side}x{side}, as an autoencoder"
        f" makes them {REDUCTION} times smaller" + ("" if text is None else f"; {text} text tokens")
    )
    return side


def passed(t: Tape, name: str, *shape: int) -> Value:
    """An input that an encoder may have made in the same step: the text, or its pooled state."""
    return t.given.pop(name, None) or t.input(shape)


def sinusoids(t: Tape, step: Value, width: int, rows: int | None = None) -> Value:
    """Sines and cosines [rows, width] of time steps or sizes, computed in fp32."""
    with t.op("time_proj", "rotary"):
        wide = t.new((rows or step.size, width), "fp32")
        t.emit("elementwise", (step,), (wide,), special=wide.size)
        return t.cast(wide, t.precision.activations)


def embedder(t: Tape, name: str, x: Value, width: int) -> Value:
    """linear, silu, linear: an embedding of width `width`."""
    with t.scope(name):
        h = activation(t, "act", "silu", dense(t, "linear_1", x, width), in_place=False)
        return dense(t, "linear_2", h, width)


def group_norm(t: Tape, name: str, x: Value, groups: int) -> Value:
    """GroupNorm, as an op called `name`."""
    with t.op(name, "group_norm"):
        return norm.group_norm(t, x, groups)


def resnet(
    t: Tape,
    name: str,
    x: Value,
    width: int,
    groups: int,
    *,
    time: Value | None = None,
    act: str = "silu",
    dropout: float = 0.0,
) -> Value:
    """ResnetBlock2D: two convolutions with group norms, the time embedding added between them."""
    with t.scope(name):
        h = activation(t, "act1", act, group_norm(t, "norm1", x, groups), in_place=False)
        h = convolve(t, "conv1", h, width, 3, padding=1)
        if time is not None:
            shift = activation(t, "time_act", act, time, in_place=False)
            shift = dense(t, "time_emb_proj", shift, width)
            with t.op("time_add", "add"):
                h = pointwise.add(t, h, t.view(shift, *shift.shape, 1, 1))
        h = activation(t, "act2", act, group_norm(t, "norm2", h, groups), in_place=False)
        with t.op("dropout", "dropout"):
            h = pointwise.dropout(t, h, dropout)
        h = convolve(t, "conv2", h, width, 3, padding=1)
        shortcut = convolve(t, "conv_shortcut", x, width, 1) if x.shape[1] != width else x
        return scaled_sum(t, shortcut, h)


def scaled_sum(t: Tape, x: Value, h: Value) -> Value:
    """(x + h) over a factor that is one in all released models, a kernel nevertheless."""
    with t.op("add", "add"):
        return pointwise.scale(t, pointwise.add(t, x, h))


def plain_norm(t: Tape, name: str, x: Value) -> Value:
    """LayerNorm without scale and shift."""
    with t.op(name, "layer_norm"):
        return norm.layer_norm(t, x, affine=False)


def modulation(t: Tape, name: str, conditioning: Value, width: int, parts: int) -> list[Value]:
    """`parts` shifts, scales and gates [batch, 1, width], one linear layer of the conditioning."""
    with t.scope(name):
        h = activation(t, "silu", "silu", conditioning, in_place=False)
        h = dense(t, "linear", h, parts * width, parallel=False)
        return [t.view(h, h.shape[0], 1, width) for _ in range(parts)]


def modulated(t: Tape, name: str, x: Value, scale: Value, shift: Value) -> Value:
    """x (1 + scale) + shift, for x [batch, tokens, width]."""
    with t.op(name, "mul"):
        factor = pointwise.unary(t, "add_scalar", scale)
        return pointwise.add(t, pointwise.mul(t, x, factor), shift)


def placed(t: Tape, x: Value) -> Value:
    """Tokens x plus fixed sines and cosines of their places, added in fp32."""
    with t.op("pos_embed", "add"):
        return t.cast(pointwise.add(t, x, t.buffer(1, *x.shape[1:])), x.dtype)


def unpatched(t: Tape, x: Value, channels: int, size: int) -> Value:
    """Tokens, one per patch, as latents [batch, channels, size, size]."""
    with t.op("unpatchify", "copy"):
        return pointwise.copy(t, x, x.shape[0], channels, size, size)


def gated_residual(t: Tape, name: str, x: Value, h: Value, gate: Value) -> Value:
    """x + gate h."""
    with t.op(name, "add"):
        return pointwise.add(t, x, pointwise.mul(t, gate, h))


def mlp(t: Tape, name: str, x: Value, hidden: int, act: str = "gelu_tanh") -> Value:
    """linear, activation, linear back to the width of x."""
    width = x.shape[-1]
    with t.scope(name):
        h = activation(t, "net.0.act", act, dense(t, "net.0.proj", x, hidden), in_place=False)
        return dense(t, "net.2", h, width)


def square_error(t: Tape, x: Value) -> Value:
    """The mean square error of the predicted noise or velocity; in inference the prediction."""
    return pairwise_loss(t, "mse", x)
