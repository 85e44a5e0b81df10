"""What a table of whole trainings writes: the kind of its hours, model, length, batch, devices."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

from roofcast.hwdb.errors import BadInput
from roofcast.scenarios.measured import net_words
from roofcast.scenarios.measured.architectures import names as llm_names
from roofcast.scenarios.measured.architectures import shipped_name as shipped_name
from roofcast.scenarios.measured.cells import Row, positive, text
from roofcast.scenarios.measured.device_words import device_named
from roofcast.simulator import models

NAMES = Path(__file__).parent / "names.toml"
SIZES = {
    "t": "tiny", "s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"
}  # fmt: skip
SUFFIX = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
RATE = (  # words of hours that are a rate times a length
    "from throughput", "pure compute", "no hardware issue", "estimate from", "authors accounting",
    "ideal", "rollbacks", "(readme rate)", "one epoch",
)  # fmt: skip
FLEET = ("total gpu time",)  # accounting of a fleet, whatever was run on it
CLASSIFIERS = re.compile(
    r"(?:wide_)?(?:se)?resne[xt]t?\d|resnet|regnet|(?:tf_)?efficientnet|vit_|deit|convnext|vgg"
    r"|densenet|mobilenet|mnasnet|inception|xception|swin"
)
# batches of a device by number format, and of two phases with their accumulations, in a row's note
FULL_AND_MIXED = r"Batch size / GPU(?:: TF32 FP16| \(FP32 : mixed precision\))=(\d+)(?: :)? (\d+)"
MIXED_AND_FULL = r"Batch size per GPU=(\d+)@FP16 (\d+)@(?:TF|FP)32"
TWO_PHASES = (
    r"[Bb]atch [Ss]ize ?/ ?GPU[^=;]*Phase ?1[^=;]*=(\d+)\D+(\d+);"
    r" Accumulation [Ss]teps[^=;]*=(\d+)\D+(\d+)"
)
KINDS = ("wall", "rate", "fleet", "derived")


@functools.cache
def table() -> dict[str, Any]:
    """names.toml."""
    return tomllib.loads(NAMES.read_text(encoding="utf-8"))


def kind_of(row: Row) -> str:
    """What the device-hours of a row are: "wall" time of one run times its devices, a "rate" times
    a length without any overhead, a "fleet"'s accounting, or "derived" from an assumed rate.
    """
    if "time is circular" in text(row, "note"):
        return "derived"
    words = f"{text(row, 'includes')} {text(row, 'model')}".lower()
    if any(word in words for word in FLEET):
        return "fleet"
    projected = text(row, "tier") == "P" or recipe_of(row).get("projected", False)
    return "rate" if projected or any(word in words for word in RATE) else "wall"


def scope_of(row: Row) -> tuple[str, float]:
    """The scope of a row's energy, and the PUE that is in it: of the boards where it does not
    tell.
    """
    words = " ".join(text(row, c) for c in ("energy_kind", "power_kind")).lower()
    scope = "board"
    if re.search(r"accelerator|system power|with its share of the host", words):
        scope = "accelerator"
    elif re.search(r"\bnode|server|plug|chassis", words):
        scope = "node"
    inside = "pue" in words and "before pue" not in words
    return scope, (positive(text(row, "pue")) or 1.0) if inside else 1.0


def where_of(row: Row) -> str:
    """All words that tell which example of a source a row is."""
    columns = ("model", "source", "where", "note", "device")
    return " ".join(text(row, column) for column in columns)


def recipe_of(row: Row) -> dict[str, Any]:
    """The recipe of a named example; empty where there is none."""
    words = where_of(row)
    found = (r for r in table()["recipes"] if all(each in words for each in r["where"]))
    recipe: dict[str, Any] = next(found, {})
    told = any(text(row, each) for each in ("samples", "steps", "tokens", "epochs"))
    if recipe or told or not re.search("bert[- _]?(base|large)", text(row, "model").lower()):
        return recipe
    usual = table()["usual"]["bert"]
    return next(r for r in table()["recipes"] if all(each in usual for each in r["where"])) | {
        "model": f"bert-{'base' if 'base' in text(row, 'model').lower() else 'large'}"
    }


def filled(row: Row) -> Row:
    """A row with the parameters, devices and software that the recipe of a named example tells."""
    recipe = recipe_of(row)
    told = {name: f"{recipe[name]:g}" for name in ("params", "devices") if name in recipe}
    return row | told | ({"software": recipe["software"]} if "software" in recipe else {})


class Named(NamedTuple):
    """A model, and what its name says beside."""

    name: str  # shipped; "" where none is
    passes: float  # training steps of it in one of the table's
    said: str
    image: int | None = None  # side, where it is not the model's own [pixels]

    @property
    def classifies(self) -> bool:
        """Whether it is a net for classification of images, by its name."""
        return bool(CLASSIFIERS.match(self.name))


def model_named(row: Row) -> Named:
    """The shipped model of a row."""
    recipe, name = recipe_of(row), text(row, "model")
    if "model" in recipe:
        ours = net_words.file_of(recipe["model"])
        return Named(ours, recipe.get("passes", 1.0), recipe.get("said", ""))
    if name.count("/") >= 2 or "DeepLearningExamples" in text(row, "source"):
        return Named(_of_example(row, name), 1.0, "")
    lower = re.sub(r"\s*\((?!jft|i21k).*?\)|\s*\d+ epochs?.*$", "", name.lower()).strip()
    for entry in table()["models"]:
        match = re.search(entry["pattern"], name.lower())
        if match:
            ours = match.expand(entry["model"]) if entry["model"] else ""
            if "{size}" in ours:
                ours = ours.replace("{size}", SIZES[match[1]])
            if not ours or ours in models.names():
                words = entry.get("passes", 1.0), entry.get("said", "")
                return Named(ours, *words, entry.get("image"))
    if (grown := _regnet(lower)) is not None:
        return grown
    ours = net_words.model_of(lower)
    if ours in models.names():
        return Named(ours, 1.0, "")
    return Named(shipped_name(lower) or "", 1.0, "")


def _of_example(row: Row, name: str) -> str:
    """The model of a page of examples, by its folder."""
    last = "/".join(name.split("/")[-2:])
    framework, place = name.split("/")[0], f"> {text(row, 'where').split(': ')[-1]}"
    lower = text(row, "note").lower()
    variants = [f"{last} [v1-b4]"] if "efficientnet_v1" in last and _is_b4(row) else []
    for each in (*variants, last, f"{last} [v1-b0]", name.split("/")[-1]):
        ours = net_words.model_of(each, framework, place, lower)
        if ours in models.names() or ours.endswith((".json", ".toml")):
            return ours
    return ""


def _is_b4(row: Row) -> bool:
    """EfficientNet-B4 reaches 82 %, B0 77 %."""
    found = re.search(r"Accuracy - \w+=(\d+)", text(row, "note"))
    return bool(found and int(found[1]) >= 80)


def _regnet(name: str) -> Named | None:
    """RegNetX-4.0GF -> regnetx_040; of a size that is not shipped, the nearest, in proportion."""
    found = re.search(r"regnet-?([xy])-?([\d.]+)\s*(m|g)f", name)
    if not found:
        return None
    wanted = float(found[2]) * (1.0 if found[3] == "g" else 1e-3)
    start = f"regnet{found[1]}_"
    sizes = {n: int(n[-4:].strip("_xy")) / 10 for n in models.names() if n.startswith(start)}
    best = min(sizes, key=lambda n: abs(math.log(sizes[n] / wanted)))
    return Named(best, wanted / sizes[best], "" if sizes[best] == wanted else f"in place of {name}")


def device_of(row: Row) -> tuple[str, str]:
    """The device of hwdb, and what was assumed. Raises UnknownName."""
    cell, recipe = text(row, "device"), recipe_of(row)
    if "device" in recipe:
        return recipe["device"], ""
    if cell.startswith("not parsed"):
        words = f"{text(row, 'precision')} {text(row, 'note')}".lower()
        ours = "a100-sxm4-80gb" if "tf32" in words else "v100-sxm2-16gb"
        return ours, f"device {ours} (not given)"
    plain = re.sub(r"\?|/\d+gb", "", cell.lower())
    if re.search(r"\d+/\d+gb", cell.lower()):
        plain = re.sub(r"/\d+", "", cell.lower())
    if plain in ("v100-sxm2", "v100"):
        plain = "v100-sxm2-16gb"
    return device_named(plain, net_words.names().devices | llm_names().devices), ""


def devices_of(row: Row) -> int | None:
    """Number of devices: of the notes where they tell of several nodes, else of its column."""
    note, devices = text(row, "note"), positive(text(row, "devices"))
    nodes = re.search(r"DGX System=(\d+) x DGX", note)
    if nodes and devices:
        return int(nodes[1]) * int(devices)
    pair = re.search(r"Nodes x GPUs=(\d+) x (\d+)", note)
    if pair:
        return int(pair[1]) * int(pair[2])
    some = re.search(r"Nodes=(\d+)", note)
    if some and not devices:
        return int(some[1]) * (16 if "DGX2" in note else 8)
    one = re.search(r"GPUs?=(\d+)", note)
    if not devices and one:
        return int(one[1])
    return int(devices) if devices else None


def of_one_node(row: Row) -> bool:
    """Whether the columns of a row count the devices of one node, and its note tells of several."""
    devices, all_of_them = positive(text(row, "devices")), devices_of(row)
    return bool(devices and all_of_them and all_of_them > devices)


def count(cell: str) -> float | None:
    """The number in a cell, or the sum of several: "1,126,400,000 at 256 + 1,740,800,000 at 512".

    >>> count("200M images (default)"), count("1.28e6"), count("")
    (200000000.0, 1280000.0, None)
    """
    plain = positive(cell)
    if plain is not None:
        return plain
    parts = re.split(r"\(", cell)[0].split(" + ")
    found = [re.match(r"\s*([\d,.]+)\s*([kKMBT])?\b", part) for part in parts]
    numbers = [
        float(m[1].replace(",", "")) * SUFFIX.get((m[2] or "").lower(), 1.0) for m in found if m
    ]
    return sum(numbers) or None


def image_of(row: Row) -> tuple[int | None, float, str]:
    """Side of an image [pixels]; training samples of that size in one of the table's: several crops
    count by their area; and what was assumed.

    >>> image_of({"image": "2x224 + 8x96"})[:2]
    (224, 3.4693877551020407)
    """
    cell = text(row, "image").lower()
    crops = re.findall(r"(\d+)x(\d+)(?=\s*(?:\+|$))", cell) if "+" in cell else []
    if crops:
        side = int(crops[0][1])
        views = sum(int(n) * (int(s) / side) ** 2 for n, s in crops)
        return side, views, f"{cell}: {views:.2f} images of {side} pixels, by area"
    grows = re.match(r"(\d+)-(\d+) progressive", cell)
    if grows:
        side = round((int(grows[1]) + int(grows[2])) / 2 / 8) * 8
        return side, 1.0, f"images of {side} pixels, the mean of {cell}"
    several = re.match(r"(\d+) then (\d+)", cell)
    if several:
        return int(several[2]), 1.0, f"images of {several[2]} pixels throughout"
    one = re.match(r"(\d+)", cell) or re.search(r"\b(\d+)x\1\b", text(row, "model"))
    views = 2.0 if "two views" in text(row, "note") else 1.0
    return int(one[1]) if one else None, views, "two views of an image" if views > 1 else ""


def sequence_of(row: Row) -> int | None:
    """Tokens of a sample."""
    found = re.match(r"\s*(\d+)", text(row, "seq"))
    return int(found[1]) if found else None


def batch_of(row: Row, devices: int, sequence: int | None) -> int | None:
    """Samples of a step on all devices; None where the row does not say."""
    given = positive(text(row, "global_batch"))
    if given:
        return int(given)
    tokens = re.match(r"([\d.]+)M tokens", text(row, "batch_note"))
    if tokens and sequence:
        return max(round(float(tokens[1]) * 1e6 / sequence), 1)
    note = text(row, "note").replace(",", "")
    mixed = text(row, "precision").startswith(("amp", "bf16", "fp16"))
    both = re.search(FULL_AND_MIXED, note)
    if both:
        return devices * int(both[2] if mixed else both[1])
    both = re.search(MIXED_AND_FULL, note)
    if both:
        return devices * int(both[1] if mixed else both[2])
    all_devices = re.search(r"Batch size \(TF32 BF16\)=(\d+) (\d+)", note)
    if all_devices:
        return int(all_devices[2] if mixed else all_devices[1])
    each = re.search(
        r"(?:[Bb]atch [Ss]ize ?(?:/|per) ?GPU[^=;]*|Local Batch size)=(\d+)(k?)\b", note
    )
    if each and "Phase" not in note:
        return devices * int(each[1]) * (1024 if each[2] else 1)
    return None


def phases_of(row: Row) -> tuple[tuple[int, int], ...]:
    """Of two phases that a note tells the batches of: samples of a device between two
    accumulations, and accumulations of a step; empty for other rows.

    >>> phases_of({"note": "Batch Size/GPU: Phase1, Phase2=128, 16; Accumulation Steps: Phase1,"
    ...            " Phase2=8, 32"})
    ((128, 8), (16, 32))
    """
    found = re.search(TWO_PHASES, text(row, "note"))
    if not found:
        return ()
    first, second, times, times_then = (int(n) for n in found.groups())
    return (first, times), (second, times_then)


def layout_of(row: Row) -> dict[str, Any]:
    """Degrees that the column `layout` states: "tp4 pp12 dp8, ZeRO 1", "tp8 + FSDP"."""
    words = text(row, "layout").lower()
    degrees = re.findall(r"\b(tp|pp|dp|cp|ep|vpp)\s*=?\s*(\d+)", words)
    found: dict[str, Any] = {name: int(n) for name, n in degrees}
    zero = re.search(r"zero\s*-?\s*(\d)", words)
    if zero or "fsdp" in words:
        found["zero"] = int(zero[1]) if zero else 3
    return found


def divisible(batch: int, devices: int, ranks: int | None, given: bool) -> int:
    """The batch, or the nearest that so many devices can share: a multiple of the data-parallel
    ranks, where the layout is told.

    >>> divisible(1953, 16384, None, False), divisible(2048, 6144, None, True)
    (2048, 2112)
    >>> divisible(976, 992, 124, True)
    992
    """
    if ranks is not None:
        return max(round(batch / ranks), 1) * ranks
    odd = devices // (devices & -devices)
    least = 8.0 if given else 1.4
    unit = odd
    while devices % (2 * unit) == 0 and 2 * unit <= batch / least:
        unit *= 2
    return max(round(batch / unit), 1) * unit


def refuse(why: str) -> BadInput:
    """Why a row has no forecast."""
    return BadInput(why)
