"""Names of timm: counted as timm has them, or answered with the way to count them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from roofcast.hwdb.errors import UnknownName
from roofcast.simulator.models import catalog, resolve
from roofcast.simulator.models.names import SHIPPED
from roofcast.simulator.models.nets import CLASSIFIERS, NETS
from roofcast.simulator.work.precision import precision
from roofcast.simulator.work.tape import Tape

TABLE = Path(__file__).parents[1] / "oracle" / "timm.csv"
NOT_OF_TIMM = {"alexnet", "xception"}  # of torchvision; of timm before 1.0

HEADLESS = {"vit_huge_patch14_224": 1281 * 1000}  # timm builds it without the classifier


def _rows():
    with TABLE.open(encoding="utf-8") as lines:
        return {r["name"]: r for r in csv.DictReader(x for x in lines if not x.startswith("#"))}


ROWS = _rows()


@pytest.mark.parametrize("name", sorted(set(ROWS) & set(NETS)))
def test_a_name_of_timm_has_its_parameters_at_its_default_size(name):
    model = resolve(name)
    tape = model.run(Tape(precision("bf16")), 1)
    counted = sum(w.size * w.count for w in tape.weights) - HEADLESS.get(name, 0)
    assert (counted, model.size) == (int(ROWS[name]["parameters"]), int(ROWS[name]["side"]))


def test_every_other_name_of_timm_is_answered_with_the_file_to_write():
    for name in sorted(set(ROWS) - set(NETS)):
        if name.replace("_", "-") in SHIPPED:  # the same net, by its name on Hugging Face
            continue
        with pytest.raises(UnknownName) as error:
            resolve(name)
        message = str(error.value)
        assert f'model = timm.create_model("{name}")' in message and "import timm" in message
        assert "\n" not in message and len(message) < 500


def test_every_classifier_with_a_name_of_timm_is_in_the_table():
    assert set(CLASSIFIERS) - set(ROWS) <= NOT_OF_TIMM


def test_the_table_holds_every_family_of_timm():
    names = set(json.loads(catalog.TIMM.read_text(encoding="utf-8"))["names"])
    assert set(ROWS) <= names and len(ROWS) > len(names) / 3
    words = {name.split("_")[0] for name in names}
    assert len(words - {name.split("_")[0] for name in ROWS}) < len(words) / 2


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        ("timm/resnet50.a1_in1k", "resnet50"),
        ("vit_base_patch16_224.augreg_in21k_ft_in1k", "vit_base_patch16_224"),
    ],
)
def test_the_tag_of_a_set_of_weights_does_not_change_the_model(typed, name):
    assert resolve(typed).name == name
