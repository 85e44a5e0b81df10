"""The HTML report in a real browser, with the network off. Skipped where there is no Chromium."""

import json
import shutil

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main
from roofcast.reports.format import hourly

playwright = pytest.importorskip("playwright.sync_api", reason="pip install '.[browser]'")
axe = pytest.importorskip(
    "axe_playwright_python.sync_playwright", reason="pip install '.[browser]'"
)
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium (Debian: apt install chromium)"
)
PAGES = {
    "llama": "llama-3-8b --on h100-sxm5",
    "two": "resnet50 --on a100-sxm4-80gb --on h100-sxm5 --batch 64",
    "pipeline": "llama-3-70b --on h100-sxm5 --devices 64 --tp 8 --pp 4 --batch 64",
    "run": "llama-2-7b --on h100-sxm5 --devices 64 --zero 1 --batch 256 --tokens 100B",
}
ANSWERS = {  # pages of other commands
    "choices": "choose gpt2 --tokens 1B --within 30d --on l4 --on h100-sxm5 --devices 8",
    "layouts": "search gpt2 --on h100-sxm5 --devices 8 --batch 64 --top 3",
}
# texts of one picture that lie over another; marks are circles and paths
OVERLAPS = """() => {
  const found = [];
  for (const svg of document.querySelectorAll('svg')) {
    const texts = [...svg.querySelectorAll('text')];
    const boxes = texts.map(t => [t.textContent, t.getBoundingClientRect()]);
    for (let i = 0; i < boxes.length; i++) for (let j = i + 1; j < boxes.length; j++) {
      const [a, x] = boxes[i], [b, y] = boxes[j];
      const wide = Math.min(x.right, y.right) - Math.max(x.left, y.left);
      const high = Math.min(x.bottom, y.bottom) - Math.max(x.top, y.top);
      if (wide > 1 && high > 0.35 * Math.min(x.height, y.height)) found.push(a + ' | ' + b);
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    for name, words in PAGES.items():
        target = str(folder / f"{name}.html")
        result = CliRunner().invoke(main, ["report", *words.split(), "-o", target])
        assert result.exit_code == 0, result.output
    for name, words in ANSWERS.items():
        result = CliRunner().invoke(main, [*words.split(), "-o", str(folder / f"{name}.html")])
        assert result.exit_code == 0, result.output
    net = folder / "net.toml"
    net.write_text(
        'input = [16]\nlayers = [{kind = "linear", out = 4,'
        " name = '</script><img src=x onerror=window.touched=1>'}]\n",
        encoding="utf-8",
    )
    words = ["report", str(net), "--on", "h100-sxm5", "-o", str(folder / "hostile.html")]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture
def page(browser, written):
    """A function that opens a page offline; every message of its console is a failure."""
    said, contexts = [], []

    def opened(name, width=1280, dark=False):
        contexts.append(
            browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme="dark" if dark else "light",
                offline=True,
            )
        )
        tab = contexts[-1].new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.goto((written / f"{name}.html").as_uri())
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def marks(tab):
    return tab.locator("section").nth(1).locator("[data-mark]").count()


@pytest.mark.parametrize("name", [*PAGES, *ANSWERS])
@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_overlaps_or_leaves_the_page(page, name, width):
    tab = page(name, width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(OVERLAPS) == []


@pytest.mark.parametrize("name", [*PAGES, *ANSWERS])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_no_serious_fault(page, name, dark):
    found = axe.Axe().run(page(name, dark=dark)).response["violations"]
    assert [
        (v["id"], v["nodes"][0]["html"]) for v in found if v["impact"] in ("serious", "critical")
    ] == []


def test_marks_are_filtered_by_share_kind_phase_and_format(page):
    tab = page("llama")
    all_ = marks(tab)
    assert all_ > 10
    tab.locator("[data-least]").first.fill("2")
    assert 0 < marks(tab) < all_
    tab.locator("[data-least]").first.fill("0")
    tab.get_by_role("combobox", name="kind of op", exact=True).select_option("attention")
    names = tab.locator("[data-mark]").evaluate_all("all => all.map(m => m.dataset.mark)")
    assert names and all(name.endswith("attention") for name in names)
    tab.get_by_role("combobox", name="kind of op", exact=True).select_option("")
    tab.get_by_role("combobox", name="layer", exact=True).select_option("model.layers.mlp")
    names = tab.locator("[data-mark]").evaluate_all("all => all.map(m => m.dataset.mark)")
    assert names and all(name.startswith("model.layers.mlp.") for name in names)
    tab.get_by_role("combobox", name="layer", exact=True).select_option("")
    before = marks(tab)
    tab.get_by_role("checkbox", name="backward").uncheck()
    assert marks(tab) < before
    roofs = tab.locator("[data-roof]").count()
    tab.get_by_role("combobox", name="format", exact=True).select_option("bf16")
    assert tab.locator("[data-roof]").count() < roofs


def test_a_mark_tells_its_op_by_mouse_and_keyboard(page):
    tab = page("llama")
    mark = tab.locator("[data-mark]").first
    mark.focus()
    said = tab.locator(".told").first.text_content()
    data = json.loads(tab.locator("#data").text_content())["forecasts"][0]
    longest = data["points"][0]
    assert longest["name"] in said and "FLOP/B" in said and "of the step" in said
    tab.locator("[data-mark]").nth(3).dispatch_event("mouseenter")
    assert tab.locator(".told").first.text_content() != said


def test_the_tree_of_layers_opens(page):
    tab = page("llama")
    tree = tab.locator("[data-picture=layers]").first
    assert not tree.get_by_text("up_proj").first.is_visible()
    for part in ("layers", "mlp"):
        tree.locator("summary", has=tab.get_by_text(part, exact=True)).last.click()
    tree.get_by_text("up_proj").first.wait_for(state="visible")  # "toggle" comes after the click


def test_a_layer_named_like_code_is_text(page):
    tab = page("hostile")
    tab.wait_for_timeout(200)
    assert tab.evaluate("window.touched") is None
    assert tab.locator("[data-picture=layers]").get_by_text("<img").first.is_visible()


@pytest.mark.parametrize("picture", ["roofline", "memory", "sensitivity", "pipeline"])
def test_every_picture_is_saved_as_png(page, picture):
    tab = page("pipeline")
    with tab.expect_download() as download:
        tab.locator(f"[data-save$='-{picture}']").click()
    assert download.value.suggested_filename.endswith(f"-{picture}.png")
    assert download.value.path().read_bytes().startswith(b"\x89PNG")


def test_colours_change_and_are_kept_apart(page):
    tab = page("llama")
    paper = "getComputedStyle(document.body).backgroundColor"
    light = tab.evaluate(paper)
    tab.get_by_role("button", name="Dark colours").click()
    assert tab.evaluate(paper) != light
    tab.get_by_role("button", name="Light colours").click()
    assert tab.evaluate(paper) == light


@pytest.mark.parametrize("name", ANSWERS)
def test_a_front_tells_its_points_and_the_theme_changes(page, name):
    tab = page(name)
    points = tab.locator("[data-mark]")
    assert points.count() > 2
    points.last.focus()
    assert tab.locator("#told").text_content() == points.last.get_attribute("aria-label")
    tab.get_by_role("button", name="Dark colours").click()
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    rows = tab.locator("tbody tr th").all_text_contents()
    data = json.loads(tab.locator("#data").text_content())
    if name == "choices":
        first = data["choices"][0]
        assert rows[0] == f"{first['devices']} × {first['device']}"
    else:
        assert len(data["best"]) == 3 and len(rows) == 3


def test_the_whole_training_has_one_price_and_its_invoice(page):
    tab = page("run")
    found = json.loads(tab.locator("#data").text_content())["forecasts"][0]["json"]
    text = tab.locator("body").inner_text()
    assert "With 95 % probability done within" in text and "for at most $" in text
    lines = tab.get_by_role("region", name="Invoice").locator("tbody tr").count()
    assert lines == len(found["campaign"]["invoice"]) + 1
    tab.locator("details").last.evaluate("d => d.open = true")
    prices = tab.locator("section.forecast th", has_text="price").all_text_contents()
    assert prices == ["price"]
    assert f"{hourly(found['price']['usd_per_hour'])} per device-hour" in text


MODULES = 100
TRACED = """import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        pairs = ((torch.nn.Linear(32 + i, 33 + i), torch.nn.ReLU()) for i in range(MODULES // 2))
        self.body = torch.nn.Sequential(*(part for pair in pairs for part in pair))

    def forward(self, x):
        return self.body(x)
"""


def test_a_traced_module_of_many_modules_is_a_page_that_opens(page, written):
    """A tenth of a thousand modules, no two alike, in a tenth of 4 MB."""
    pytest.importorskip("torch", reason="pip install '.[torch]'")
    net, target = written / "many.py", written / "many.html"
    net.write_text(f"MODULES = {MODULES}\n{TRACED}", encoding="utf-8")
    words = ["report", f"{net}:Net", "--input", "8x32", "--on", "h100-sxm5", "--no-sensitivity"]
    result = CliRunner().invoke(main, [*words, "-o", str(target)])
    assert result.exit_code == 0, result.output
    assert target.stat().st_size < 4e6 * MODULES / 1000
    tab = page("many")
    rows = json.loads(tab.locator("#data").text_content())["forecasts"][0]["json"]["layers"]
    assert len(rows) >= MODULES and marks(tab) > 0
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1280
