"""What a command imports, and how its process is set up."""

import gc
import subprocess
import sys

import pytest
from click.testing import CliRunner

from roofcast.reports.command import SELDOM, main

PREDICT = ("predict", "gpt2", "--on", "h100-sxm5", "--json")
PAGE = ("serving", "llama-3-8b", "--on", "h100-sxm", "--batch", "4")
SERVING = ("serving", "llama-3-8b", "--on", "h100-sxm", "--concurrency", "4", "--json")


@pytest.mark.parametrize("words", [SERVING, PREDICT], ids=lambda words: words[0])
def test_forecasts_import_only_what_their_answer_needs(words):
    """Modules of ours among them, none of which makes the slow tuples of `typing`."""
    code = (
        "import sys; from roofcast.reports.command import main\n"
        f"try: main({list(words)})\nexcept SystemExit: pass\n"
        "ours = [m for m in list(sys.modules.values()) if m.__name__.startswith('roofcast.')]\n"
        "print('slow', *(m.__name__ for m in ours if vars(m).get('NamedTuple') is not None"
        " and m.NamedTuple.__module__ == 'typing'), file=sys.stderr)\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    slow, loaded = (line.split() for line in done.stderr.splitlines())
    assert "step_time_s" in done.stdout or "ttft_s" in done.stdout
    assert slow == ["slow"] or sys.version_info >= (3, 14)
    unneeded = {
        "pandas", "scipy", "matplotlib", "numba", "torch", "onnx", "pint", "gzip",
        "tempfile", "roofcast.simulator.importers.spec", "roofcast.simulator.choose.search",
    }  # fmt: skip
    assert {"numpy", "msgspec"} <= set(loaded)
    assert not unneeded & set(loaded)
    if words[0] == "serving":
        others = {"rich", "statistics", "difflib", "roofcast.simulator.choose.offers"}
        assert not others & set(loaded)


def test_a_page_of_text_is_written_without_what_it_does_not_need():
    code = (
        "import sys; from roofcast.reports.command import main\n"
        f"try: main({list(PAGE)})\nexcept SystemExit: pass\n"
        "print(*sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    unneeded = {
        "rich", "numpy.random", "pandas", "scipy", "matplotlib", "tomllib",
        "roofcast.simulator.work.step", "roofcast.simulator.serving.pools.chain",
    }  # fmt: skip
    assert "Memory, per device" in done.stdout
    assert not unneeded & set(done.stderr.split())


def test_the_garbage_collector_is_left_alone_in_a_process_that_is_not_ours():
    before = gc.get_threshold()
    assert CliRunner().invoke(main, ("--help",)).exit_code == 0 and gc.get_threshold() == before
    code = (
        "import gc, sys; from roofcast.reports.command import main; sys.argv = ['roofcast', '-h']\n"
        "try: main()\nfinally: print(gc.get_threshold()[0], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stderr) == SELDOM
