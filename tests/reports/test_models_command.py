"""roofcast models: grouped on a screen or two, filtered by words, one line per model."""

import json

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.reports.pages.models import GROUPS, OTHERS, grouped
from roofcast.simulator import models


def run(*args, columns="80"):
    return CliRunner().invoke(main, ["models", *args], env={"COLUMNS": columns})


def test_the_list_names_every_model_on_three_screens():
    lines = run().stdout.splitlines()
    assert len(lines) <= 140 and max(map(len, lines)) <= 80
    assert set(models.names()) <= set(" ".join(lines).split())


def test_every_family_has_a_group_and_no_family_two():
    rows = [models.describe(name) for name in models.names()]
    assert OTHERS not in grouped(rows)
    families = [family for group in GROUPS.values() for family in group]
    assert len(families) == len(set(families)) and set(families) >= {r.family for r in rows}


def test_sizes_of_a_family_are_in_order():
    (names,) = grouped(
        [models.describe(n) for n in ("llama-65b", "llama-7b", "llama-13b")]
    ).values()
    assert names == ["llama-7b", "llama-13b", "llama-65b"]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (("llama", "70b"), {"llama-2-70b", "llama-3-70b", "llama-3.1-70b"}),
        (("vit", "base", "patch32"), {"vit_base_patch32_224", "clip-vit-base-patch32"}),
        (("Small nets",), {"linear-regression", "mlp", "cnn-32x32", "lenet", "bilstm64"}),
    ],
)  # fmt: skip
def test_words_filter_the_list(words, found):
    rows = json.loads(run(*words, "--json").stdout)["models"]
    assert {row["name"] for row in rows} >= found and len(rows) <= 12
    assert json.loads(run("--json", *words).stdout)["models"] == rows
    table = run(*words).stdout
    assert all(name in table for name in found) and f"{len(rows)} models" in table


def test_long_has_the_sources_of_all_or_of_those_found():
    assert "Vaswani et al. 2017" in run("--long", columns="200").stdout
    assert "Vaswani" in run("vaswani", "--long").stdout
    assert "source" not in run("vaswani").stdout
    assert "sou…" not in run("--long", columns="40").stdout


@pytest.mark.parametrize(("word", "cure"), [("gpt-3", "gpt3-175b"), ("yolo3", "yolov3")])
def test_a_word_in_no_name_is_one_line_with_the_names_meant(word, cure):
    result = run(word)
    assert (result.exit_code, result.stdout) == (2, "") and result.stderr.count("\n") == 1
    assert f"did you mean {cure}" in result.stderr
