"""README.md and the pages of docs/: every command and every Python example runs, on the files the
pages show, and prints what is quoted below it; every link leads somewhere.

A quoted output may leave sections out, with a line of three dots in their place.
`make docs` rewrites the quoted outputs and the pictures.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import tempfile
import tomllib
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.simulator import choices
from roofcast.simulator.forecast.result import Forecast, LayerForecast, MemoryForecast
from roofcast.simulator.models.toml.keys import Keys
from roofcast.simulator.models.toml.kinds import KINDS
from roofcast.simulator.work.ops.optimizer import OPTIMIZERS

ROOT = Path(__file__).parent.parent.parent
EXAMPLES = tuple(f"docs/examples/{p.name}" for p in sorted((ROOT / "docs/examples").glob("*.md")))
# pages of docs/ whose examples run
TASKS = ("usage", "report", "compression", "finetuning", "serving", "plan")
PAGES = ("README.md", *(f"docs/{name}.md" for name in TASKS), *EXAMPLES)
TEXTS = [
    *sorted(p.name for p in ROOT.glob("*.md")),
    *sorted(f"docs/{p.name}" for p in (ROOT / "docs").glob("*.md")),
    *EXAMPLES,
]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.M | re.S)
LINK = re.compile(r"\]\(([^)\s]+)\)")
WIDTH = {"COLUMNS": "100"}
SAVED = re.compile(r" --save (\S+)")  # a file that a later command may read
DRAWN = re.compile(r"(?:-o|--plot) (\w+\.png)")  # what a command of README.md draws into docs/
LEFT_OUT = "...\n"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def examples(page: str) -> list[tuple[str, str, str]]:
    """(language, code, quoted output or "") of every block of shell or Python code."""
    blocks = BLOCK.findall(read(page))
    following = [*blocks[1:], ("", "")]
    return [
        (language, code, output if after == "text" else "")
        for (language, code), (after, output) in zip(blocks, following, strict=True)
        if language in ("sh", "python")
    ]


def commands(page: str):
    """Every roofcast command, with the output quoted below its block if it is the last in it."""
    for language, code, output in examples(page):
        lines = [line for line in code.splitlines() if line.startswith("roofcast ")]
        if language == "sh":
            yield from ((line, output if line is lines[-1] else "") for line in lines)


def programs(page: str):
    """Every Python example that can run alone, with the output quoted below it."""
    for language, code, output in examples(page):
        if language == "python" and "torch" not in code:
            yield code, output


COMMANDS = [
    pytest.param(page, line, output, id=f"{page}: {line}")
    for page in PAGES
    for line, output in commands(page)
]
PROGRAMS = [
    pytest.param(code, output, id=f"{page}: {code.strip().splitlines()[-1]}")
    for page in PAGES
    for code, output in programs(page)
    if "tensorflow" not in code  # an input of the command, which lends it the name
]


def quoted(real: str, quote: str) -> str:
    """The real output, without the sections that the quote leaves out.

    A section starts at a line that is not indented, after an empty line.
    """
    if LEFT_OUT not in quote:
        return real
    first, *rest = sections(real)
    titles = {title(section) for section in sections(quote)[1:]} - {LEFT_OUT.strip()}
    gone = titles - {title(section) for section in rest}
    assert not gone, f"the output has no section {gone}: edit the quote"
    kept = [first]
    for section in rest:
        if title(section) in titles:
            kept.append(section)
        elif kept[-1] != LEFT_OUT:
            kept.append(LEFT_OUT)
    return "\n".join(kept)


def sections(output: str) -> list[str]:
    return re.split(r"\n(?=\S)", output)


def title(section: str) -> str:
    return section.split("\n", 1)[0]


def make_files(place: Path) -> None:
    """The files that the pages show, and those that their examples name."""
    for page in PAGES:
        for _, code in BLOCK.findall(read(page)):
            head = re.match(r"# (\S+\.(?:toml|py|csv))\n", code)
            if head:
                (place / head[1]).write_text(code, encoding="utf-8")
    shutil.copy(ROOT / "simulator/models/configs/llama-3-8b.json", place / "config.json")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("newcomer")
    make_files(place)
    return place


def write_before(line: str, page: str, place: Path) -> None:
    """Have the files that a command reads written by the earlier ones of its page."""
    for earlier, _ in commands(page):
        if earlier == line:
            return
        saved = SAVED.search(earlier)
        if saved and saved[1] in line.split() and not (place / saved[1]).exists():
            write_before(earlier, page, place)
            assert run(earlier).exit_code == 0, earlier


def run(line: str):
    return CliRunner(env=WIDTH).invoke(main, shlex.split(line)[1:])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the exporter
@pytest.mark.parametrize(("page", "line", "output"), COMMANDS)
def test_every_command_works_and_prints_what_is_quoted(page, line, output, folder, monkeypatch):
    if ".onnx" in line or ".py:" in line:
        pytest.importorskip("torch")
    if ".onnx" in line:
        pytest.importorskip("onnx")
        export_onnx(folder)
    if "keras" in line:
        save_keras(folder)
    monkeypatch.chdir(folder)
    write_before(line, page, folder)
    result = run(line)
    assert result.exit_code == 0, result.stderr
    assert not output or output == quoted(result.stdout, output), "make docs writes it anew"


def export_onnx(folder: Path) -> None:
    """my_net.onnx, exported from my_net.py."""
    if (folder / "my_net.onnx").exists():
        return
    import runpy

    import torch

    net = runpy.run_path(str(folder / "my_net.py"))["MyNet"]()
    torch.onnx.export(
        net, torch.zeros(2, 3, 32, 32), str(folder / "my_net.onnx"), dynamo=False,
        input_names=["images"], dynamic_axes={"images": {0: "batch"}},
    )  # fmt: skip


def save_keras(folder: Path) -> None:
    """my_net.keras, a small net."""
    pytest.importorskip("torch")
    os.environ["KERAS_BACKEND"] = "torch"
    keras = pytest.importorskip("keras")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(folder / "my_net.keras")


@pytest.mark.parametrize(("code", "output"), PROGRAMS)
def test_every_python_example_works_and_prints_what_is_quoted(code, output, folder, monkeypatch):
    monkeypatch.chdir(folder)
    printed = printed_by(code)
    assert not output or output == quoted(printed, output), "make docs writes it anew"


def printed_by(code: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(code, "example", "exec"), {})
    return printed.getvalue()


def test_a_file_that_an_earlier_command_writes_is_there_for_any_row_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_before("roofcast compare one.toml other.toml", "docs/report.md", tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.toml", "other.toml"]


def test_a_quote_may_leave_sections_out():
    real = "head 2\n  a 2\n\nOne\n  b\n\nTwo\n  c\n\nThree\n  d\n"
    assert quoted(real, "head 1\n  a 1\n\n...\n\nThree\n  d\n") == (
        "head 2\n  a 2\n\n...\n\nThree\n  d\n"
    )
    assert quoted(real, "head 1\n\n...\n") == "head 2\n  a 2\n\n...\n"
    assert quoted(real, "head 1\n") == real


def test_readme_is_short():
    assert len(read("README.md").splitlines()) <= 200


def gallery() -> list[tuple[str, str]]:
    """Commands of README.md whose pictures it shows, and the names of these."""
    lines = [line for line, _ in commands("README.md") if DRAWN.search(line)]
    return [(line, DRAWN.search(line)[1]) for line in lines]


def test_readme_shows_what_its_commands_draw():
    shown = re.findall(r"\]\(docs/(\w+\.png)\)", read("README.md"))
    assert shown == [name for _, name in gallery()] and 0 < len(shown) <= 3


@pytest.mark.parametrize(("line", "name"), gallery())
def test_pictures_of_readme_are_what_is_drawn_today(line, name, tmp_path, monkeypatch, alike):
    monkeypatch.chdir(tmp_path)
    assert run(line).exit_code == 0
    alike((ROOT / "docs" / name).read_bytes(), (tmp_path / name).read_bytes())


def test_readme_states_the_errors_of_the_page_on_accuracy():
    row = re.compile(r"^\| (fitted|left out|never seen) \| (.*) \|$", re.M)
    cells = {status: rest.split(" | ") for status, rest in row.findall(read("docs/accuracy.md"))}
    text = " ".join(read("README.md").split())
    assert list(cells) == ["fitted", "left out", "never seen"]
    for rows, errors, _, roofline, *_ in cells.values():
        median, floor = (cell.split(" / ")[0] for cell in (errors, roofline))
        assert f"{int(rows):,}" in text and f"{median} %" in text and f"{floor} %" in text


def test_usage_explains_every_option_of_predict():
    text = read("docs/usage.md") + read("docs/finetuning.md")
    options = {
        o
        for param in main.get_command(None, "predict").params
        for o in (*param.opts, *param.secondary_opts)
        if o.startswith("--")
    }
    assert len(options) > 30
    assert not [option for option in options if not re.search(rf"{option}(?![\w-])", text)]


def test_usage_names_every_command():
    text = read("docs/usage.md")
    assert not [name for name in main.list_commands(None) if f"`roofcast {name}" not in text]


def test_usage_names_every_value_that_an_option_may_have():
    text = read("docs/usage.md")
    values = {
        *choices.PRECISIONS, *choices.ATTENTION, *choices.MODES, *choices.MEMORY_FORMATS,
        *choices.CP_KINDS, *choices.OFFLOAD, *choices.SCHEDULES, *OPTIMIZERS,
    }  # fmt: skip
    assert not [value for value in values if f"`{value}`" not in text]


def test_usage_names_only_keys_that_a_forecast_has():
    rows = re.search(r"^\| keys of a forecast .*\n(?:\|.*\n)+", read("docs/usage.md"), re.M)
    known = {
        field
        for record in (Forecast, MemoryForecast, LayerForecast)
        for field in record.__struct_fields__
    }
    named = re.findall(r"`(\w+)`", rows[0])
    assert len(named) > 40 and set(named) <= known


def tables_of_kinds() -> dict[str, list[str]]:
    """Kind of layer -> the cells `takes`, `gives`, `keys` of its row in docs/usage.md."""
    tables = re.findall(
        r"^\| kind \| takes .*\n\|[-|]+\n((?:\|.*\n)+)", read("docs/usage.md"), re.M
    )
    rows = [row.strip("| ").split(" | ") for table in tables for row in table.splitlines()]
    return {kind: cells for names, *cells in rows for kind in re.findall(r"`(\w+)`", names)}


def test_usage_lists_every_kind_of_layer():
    assert sorted(tables_of_kinds()) == sorted(KINDS)


@pytest.mark.parametrize("name", KINDS)
def test_usage_lists_what_a_kind_of_layer_takes_and_every_key_it_has(name):
    takes, gives, *keys = tables_of_kinds()[name]
    kind = KINDS[name]
    assert takes == ", ".join(kind.takes)
    if kind.run:
        alone = kind.takes[0] if len(kind.takes) == 1 else "same"
        assert gives == (kind.gives or alone)
    shown = re.findall(r"`(\w+)(?: = ([^`]+))?`", "".join(keys))
    common = {field.name for field in msgspec.structs.fields(Keys)}
    own = {
        field.encode_name: field
        for field in msgspec.structs.fields(kind.keys)
        if field.name not in common
    }
    assert [key for key, _ in shown] == list(own)
    for key, value in shown:
        field = own[key]
        if field.required:
            assert not value, key
        elif field.default is None:
            assert value, f"{key}: say what it is where it is left out"
        else:
            default = [] if field.default is msgspec.NODEFAULT else field.default
            assert tomllib.loads(f"x = {value}")["x"] == default, key


def anchors(page: str) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", read(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", TEXTS)
def test_every_link_leads_somewhere(page):
    for target in LINK.findall(read(page)):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        goal = ((ROOT / page).parent / file).resolve() if file else ROOT / page
        assert goal.exists(), target
        assert not anchor or anchor in anchors(str(goal.relative_to(ROOT))), target


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/usage.md"])
def test_every_file_that_is_named_is_there(page):
    folders = "hwdb|simulator|scenarios|reports|api|tests|benchmarks|docs"
    named = re.findall(rf"(?<![\w./-])(?:{folders})/[\w./-]*\w", read(page))
    assert not [path for path in named if "NAME" not in path and not (ROOT / path).exists()]


@pytest.mark.parametrize("page", TEXTS)
def test_no_page_names_a_place_of_one_machine(page):
    assert not re.search(r"(?<![\w.])/(home|root|work|tmp|mnt|Users)/|localhost", read(page))


def refresh() -> None:
    """Write the outputs and the pictures as the commands give them now; nothing if one fails."""
    os.environ.update(WIDTH)
    with tempfile.TemporaryDirectory() as place:
        make_files(Path(place))
        os.chdir(place)
        texts = {page: refreshed(page) for page in PAGES}
        for line, name in gallery():
            checked(line)
            shutil.copy(name, ROOT / "docs" / name)
    for page, text in texts.items():
        (ROOT / page).write_text(text, encoding="utf-8")


def refreshed(page: str) -> str:
    """The page with its quotes as the examples print them now."""
    text = read(page)
    runs = [
        *((f"{line}\n", quote, checked) for line, quote in commands(page)),
        *((code, quote, printed_by) for code, quote in programs(page)),
    ]
    for code, quote, printed in runs:
        if SAVED.search(code):  # what a later example reads
            printed(code)
        if quote:
            real = quoted(printed(code), quote)
            old, new = (f"{code}```\n```text\n{output}```\n" for output in (quote, real))
            text = text.replace(old, new)
    return text


def checked(line: str) -> str:
    """What the command prints; an error if it fails."""
    result = run(line)
    if result.exit_code:
        raise SystemExit(f"{line}: {result.stderr}")
    return result.stdout


if __name__ == "__main__":
    refresh()
