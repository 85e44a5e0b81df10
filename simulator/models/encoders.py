"""What the training scripts of diffusers run before a denoiser: the encoder of an autoencoder makes
latents of the images, and text encoders make embeddings of the prompts. Both are frozen, or the
CLIP encoders of the text train with the denoiser.

Sources: huggingface/diffusers, examples/text_to_image/train_text_to_image_lora.py, examples/
dreambooth/train_dreambooth_lora_sdxl.py, _sd3.py, _flux.py; model cards of the checkpoints.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from roofcast.hwdb.errors import BadInput
from roofcast.hwdb.tuples import NamedTuple
from roofcast.simulator.models import catalog
from roofcast.simulator.models.families import autoencoder_kl, t5
from roofcast.simulator.models.families.clip import Text, encoded
from roofcast.simulator.work.model import Model
from roofcast.simulator.work.ops import linear, pointwise
from roofcast.simulator.work.precision import Precision, precision
from roofcast.simulator.work.tape import Tape, Value

VAE, TEXT = "vae", "text"
KINDS = (VAE, TEXT)
WORDS = 77  # tokens of a prompt in CLIP
LEAST = 32  # side of an image on which the decoder is traced, for its weights alone [pixels]
TARGETS = "q_proj,k_proj,v_proj,out_proj"  # layers of CLIP with adapters in the training scripts
T5 = "flan-t5-xxl"  # the sizes of T5 v1.1 XXL


class Clip(NamedTuple):
    """A CLIP text encoder."""

    part: Text
    penultimate: bool = False  # the denoiser reads the states before the last layer
    projected: int | None = None  # width of the pooled state; None: not projected
    pooled: bool = True  # whether the denoiser reads the pooled state


class Parts(NamedTuple):
    """What runs before a denoiser."""

    vae: str  # name of its autoencoder
    wide: bool  # which the scripts hold in fp32
    clips: tuple[Clip, ...]
    t5: int = 0  # tokens of T5; 0: it reads none
    joined: bool = True  # CLIP's states are read too, not its pooled state alone


L = Text(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)
H = Text(
    hidden_size=1024, intermediate_size=4096, num_hidden_layers=23, num_attention_heads=16,
    hidden_act="gelu",
)  # fmt: skip
G = Text(
    hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20,
    hidden_act="gelu",
)  # fmt: skip
OF_UNETS = {  # width of the text that a U-Net reads -> Stable Diffusion 1, 2, XL
    768: Parts("sd-vae", False, (Clip(L, pooled=False),)),
    1024: Parts("sd-vae", False, (Clip(H, pooled=False),)),
    2048: Parts("sdxl-vae", True, (Clip(L, True, pooled=False), Clip(G, True, 1280))),
}
SD3 = Parts("flux-vae", True, (Clip(L, True, 768), Clip(G, True, 1280)), 256)  # of equal sizes
FLUX = Parts("flux-vae", False, (Clip(L),), 512, joined=False)


def parts_of(model: Model) -> Parts:
    """What the scripts run before a denoiser. Raises BadInput for models of which none is known."""
    if model.family == "UNet2DConditionModel":
        widths = model.config.per_level("cross_attention_dim")
        if widths[0] in OF_UNETS:
            return OF_UNETS[widths[0]]
    found = {"SD3Transformer2DModel": SD3, "FluxTransformer2DModel": FLUX}.get(model.family)
    if found is None:
        raise BadInput(
            f"encoders of {model.name}: known are those of Stable Diffusion 1, 2, XL, 3 and Flux;"
            " leave --encoders and --train-text-encoder out"
        )
    return found


def with_encoders(model: Model, run: tuple[str, ...], train_text: bool) -> Model:
    """The denoiser, whose training step first runs these of its encoders (KINDS).

    train_text: CLIP's train with it; T5 never does. Raises BadInput where they are not known.
    """
    parts = parts_of(model)

    def program(t: Tape, batch: int, size: int | None) -> Any:
        if not t.training:
            return model.program(t, batch, size)
        t.encoded = run
        if VAE in run:
            _vae(t, parts, batch, size or model.size or 0)
        if TEXT in run:
            _text(t, parts, batch, train_text)
        t.assumptions.append(_said(parts, run, train_text))
        return model.program(t, batch, size)

    return model._replace(program=program, quick=None)


def _said(parts: Parts, run: tuple[str, ...], train_text: bool) -> str:
    """What runs before the denoiser, in a sentence."""
    held = "fp32" if parts.wide else "the format of the denoiser"
    first = f"latents by the frozen {parts.vae} in {held}" if VAE in run else "latents cached"
    what = "CLIP and T5" if parts.t5 else "CLIP"
    trained = "trained and so run" + (", T5 frozen" if parts.t5 else "")
    how = trained if train_text else "frozen"
    second = f"text by {what}, {how}" if TEXT in run else "text embeddings cached"
    return f"encoders: {first}; {second}; an embedding of each prompt in each step"


def _frozen(t: Tape) -> Precision:
    """The format of frozen models beside one that autocast trains: its 16-bit format."""
    lower = t.precision.autocast
    return precision(lower) if lower in ("bf16", "fp16") else t.precision


def _vae(t: Tape, parts: Parts, batch: int, size: int) -> None:
    """Latents of a batch of images; the decoder's weights lie in memory too."""
    c = catalog.resolve(parts.vae).config
    held = precision("fp32") if parts.wide else _frozen(t)

    def run() -> None:
        images = t.input((batch, c.in_channels, size, size))
        autoencoder_kl.draw(t, autoencoder_kl.encode(t, c, images))
        alone = Tape(held, training=False)
        autoencoder_kl.build(alone, c, 1, LEAST * len(c.block_out_channels), "decoder")
        with t.op("decoder", "held"):
            t.parameter(sum(w.size * w.count for w in alone.weights))

    t.beside("vae", run, held)


def _text(t: Tape, parts: Parts, batch: int, train: bool) -> None:
    """Embeddings of a batch of prompts, which the denoiser reads where CLIP trains."""
    made: list[tuple[Value, Value | None]] = []
    for number, clip in enumerate(parts.clips, 1):
        name = f"text_encoder{'' if len(parts.clips) + bool(parts.t5) == 1 else f'_{number}'}"
        if train:
            with t.scope(name):
                made.append(_clip(t, clip, batch))
        else:
            t.beside(name, partial(_clip, t, clip, batch), _frozen(t))
    long = None
    if parts.t5:
        c = catalog.resolve(T5).config
        tokens = parts.t5

        def run() -> Value:
            table = t.vocabulary(c.vocab_size, c.d_model)
            return t5.stack(t, c, "encoder", t.input((batch, tokens), "int64"), table, None)

        long = t.beside(f"text_encoder_{len(parts.clips) + 1}", run, _frozen(t))
    if train:
        _given(t, parts, made, long)


def _clip(t: Tape, clip: Clip, batch: int) -> tuple[Value, Value | None]:
    """States [batch, tokens, width] that the denoiser reads, and the pooled state or None."""
    states, pooled = encoded(
        t, clip.part, batch, WORDS, penultimate=clip.penultimate, checkpoints=True
    )
    if clip.projected is not None:
        with t.op("text_projection", "linear"):
            pooled = linear.linear(t, pooled, clip.projected, bias=False)
    return states, pooled if clip.pooled else None


def _given(
    t: Tape, parts: Parts, made: list[tuple[Value, Value | None]], long: Value | None
) -> None:
    """Hands the embeddings to the denoiser, with their gradients."""
    with t.op("prompt_embeds", "concat"):
        pooled = [p for _, p in made if p is not None]
        if pooled:
            t.given["pooled"] = pointwise.concat(t, pooled, 1) if len(pooled) > 1 else pooled[0]
        if not parts.joined:
            return
        states = [x for x, _ in made]
        text = pointwise.concat(t, states, 2) if len(states) > 1 else states[0]
        if long is not None:  # padded with zeros to the width of T5
            zeros = t.new((*text.shape[:2], long.shape[-1] - text.shape[-1]))
            text = pointwise.concat(t, [text, zeros], 2)
            text = pointwise.concat(t, [text, long], 1)
        t.given["text"] = text
