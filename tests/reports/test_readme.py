"""The README and docs/usage.md hold: every command in them runs, on the files they show, and its
output is as pasted.

After a change of what a forecast says: python tests/reports/test_readme.py writes the outputs and
the picture anew.
"""

import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main

ROOT = Path(__file__).parent.parent.parent
PAGES = ("README.md", "docs/usage.md")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.M | re.S)
WIDTH = {"COLUMNS": "88"}
PICTURE = "docs/roofline-llama-3-8b.png"


def blocks(page):
    """Fenced blocks: (language, text)."""
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def commands(page):
    """Every roofcast command, with the output pasted below its block where there is one."""
    found = blocks(page)
    for (language, text), (following, output) in zip(found, [*found[1:], ("", "")], strict=True):
        lines = (
            [line for line in text.splitlines() if line.startswith("roofcast ")]
            if language == "sh"
            else []
        )
        for line in lines:
            yield line, output if following == "text" and line is lines[-1] else ""


COMMANDS = [
    pytest.param(line, output, id=f"{page}: {line}")
    for page in PAGES
    for line, output in commands(page)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the pages show as files, a config.json and the scenarios."""
    place = tmp_path_factory.mktemp("newcomer")
    for page in PAGES:
        for language, text in blocks(page):
            head = re.match(r"# (\S+\.(?:toml|py))\n", text)
            if language in ("toml", "python") and head:
                (place / head[1]).write_text(text)
    shutil.copy(ROOT / "simulator/models/configs/llama-3-8b.json", place / "config.json")
    shutil.copytree(
        ROOT / "scenarios", place / "scenarios", ignore=shutil.ignore_patterns("*.csv", "published")
    )
    return place


def run(line, place=None):
    return CliRunner(env=WIDTH).invoke(main, shlex.split(line)[1:])


@pytest.mark.parametrize(("line", "output"), COMMANDS)
def test_every_command_works(line, output, folder, monkeypatch):
    if ".onnx" in line or ".py:" in line:
        pytest.importorskip("torch")
    if ".onnx" in line:
        pytest.importorskip("onnx")
        exported(folder)
    monkeypatch.chdir(folder)
    result = run(line)
    assert result.exit_code == 0, result.stderr
    if output and " count " in line:
        assert result.stdout == output
    elif output:
        assert lead(result.stdout) == pytest.approx(lead(output), rel=0.1), (
            "python tests/reports/test_readme.py writes it anew"
        )


def exported(folder):
    """my_net.onnx, exported from my_net.py."""
    if (folder / "my_net.onnx").exists():
        return
    import runpy

    import torch

    net = runpy.run_path(str(folder / "my_net.py"))["MyNet"]()
    axes = {"pictures": {0: "batch"}}
    torch.onnx.export(
        net,
        torch.zeros(2, 3, 32, 32),
        str(folder / "my_net.onnx"),
        dynamo=False,
        input_names=["pictures"],
        dynamic_axes=axes,
    )


def lead(text):
    """The step time that a forecast leads with."""
    return float(re.search(r"([\d.]+) ms a step", text)[1])


@pytest.mark.skipif(find_spec("pandas") is None, reason="tables need pandas")
@pytest.mark.parametrize("page", PAGES)
def test_every_python_example_works(page, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    for language, text in blocks(page):
        if language == "python" and "import torch" not in text and "from torch" not in text:
            exec(compile(text, page, "exec"), {})
            capsys.readouterr()


def test_usage_explains_every_option_of_predict():
    text = (ROOT / "docs/usage.md").read_text(encoding="utf-8")
    options = {
        o
        for param in main.get_command(None, "predict").params
        for o in (*param.opts, *param.secondary_opts)
        if o.startswith("--")
    }
    assert len(options) > 30
    assert not [option for option in options if not re.search(rf"{option}(?![\w-])", text)]


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#:]+)\)", text):
        assert ((ROOT / page).parent / target).exists(), target


def write_anew():
    """Outputs and picture as the commands give them now."""
    for page in PAGES:
        text = (ROOT / page).read_text(encoding="utf-8")
        for line, output in commands(page):
            if output:
                text = text.replace(
                    f"{line}\n```\n```text\n{output}", f"{line}\n```\n```text\n{run(line).stdout}"
                )
        (ROOT / page).write_text(text, encoding="utf-8")
    run(f"roofcast roofline llama-3-8b --on h100-sxm5 -o {ROOT / PICTURE}")


if __name__ == "__main__":
    write_anew()
