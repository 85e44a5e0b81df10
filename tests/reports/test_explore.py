"""`roofcast explore`: the server's refusals, and the page in a real browser."""

import json
import random
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request

import pytest
from click.testing import CliRunner

from roofcast.reports.command import main

uvicorn = pytest.importorskip("uvicorn", reason="pip install '.[web]'")
pytest.importorskip("starlette", reason="pip install '.[web]'")
TOKEN = "a-token-of-the-tests"
SETTLED = "body[data-state='settled']"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
CONFIG = """{"model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "vocab_size": 999,
"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
"max_position_embeddings": 128}"""


@pytest.fixture(scope="module")
def address():
    """The explorer, served by a thread of this process."""
    from roofcast.reports.html.explorer import application

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        config = uvicorn.Config(application(TOKEN, port), log_level="warning", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{port}"
        server.should_exit = True
        thread.join(10)


def call(address, body=b"", path="/forecast", **headers):
    """Status and body of a request."""
    given = {"X-Token": TOKEN} | {key.replace("_", "-"): value for key, value in headers.items()}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(address + path, data=data or None, headers=given)
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def wanted(**changes):
    return {"model": "gpt2", "device": "l4"} | changes


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({}, ()),
        ({"options": {"batch": 8, "mode": "infer"}}, ("--batch", "8", "--mode", "infer")),
        ({"factors": {"memory.bandwidth": 2.0}}, ("--set", "memory.bandwidth=x2")),
        ({"options": {"devices": 4, "zero": 3}}, ("--devices", "4", "--zero", "3")),
    ],
)
def test_an_answer_is_what_predict_prints(address, changes, arguments):
    status, body = call(address, wanted(**changes))
    assert status == 200
    found = json.loads(body)
    printed = CliRunner().invoke(main, ["predict", "gpt2", "--on", "l4", *arguments, "--json"])
    assert found["forecasts"][0]["json"] == json.loads(printed.stdout)
    assert 'model = "gpt2"' in found["scenario"]


def test_a_pasted_model_is_forecast_and_saved_nowhere(address, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, body = call(address, wanted(pasted=CONFIG))
    assert status == 200, body
    assert json.loads(body)["forecasts"][0]["json"]["parameters"] > 500_000
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"model": "net.py:Net"}, 422, "no model 'net.py:Net'"),
        ({"model": "/etc/passwd"}, 422, "no model '/etc/passwd'"),
        ({"device": "../devices/l4.toml"}, 422, "no device"),
        ({"options": {"inputs": "x"}}, 422, "no option of the explorer"),
        ({"options": {"stack": "/etc/passwd"}}, 422, ""),
        ({"options": {"batch": 0}}, 422, "batch"),
        ({"options": {"batch": "many"}}, 422, "batch"),
        ({"factors": {"memory.bandwidth": 1e9}}, 422, "no number"),
        ({"factors": {"secret": 2.0}}, 422, "no number"),
        ({"pasted": "{" * 100_000}, 422, ""),
        ({"pasted": "<script>alert(1)</script>"}, 422, ""),
        ({"pasted": "layers = 7"}, 422, ""),
        ({"unknown": 1}, 400, "not a request of this page"),
    ],
)
def test_what_cannot_be_is_one_message(address, changes, status, said):
    found, body = call(address, wanted(**changes))
    assert found == status and said in json.loads(body)["error"]
    assert "Traceback" not in body and "root:" not in body


def test_others_are_refused(address):
    assert call(address, wanted(), X_Token="another")[0] == 403
    assert call(address, wanted(), Origin="http://evil.example")[0] == 403
    assert call(address, wanted(), Host="evil.example")[0] == 403
    assert call(address, path="/")[0] == 403
    assert call(address, path="/?token=another")[0] == 403
    assert call(address, path=f"/?token={TOKEN}")[0] == 200
    assert call(address, b"not json")[0] == 400
    try:
        status, _ = call(address, b'{"model": "' + b"x" * 50_000_000)
    except (urllib.error.URLError, ConnectionError):
        status = 413  # the server closed the connection before all was sent
    assert status == 413
    assert call(address, wanted())[0] == 200


def test_the_command_opens_the_page_with_a_model_and_a_device():
    from urllib.parse import unquote

    from roofcast.reports.commands.explore import first_state

    state = json.loads(unquote(first_state("meta-llama/Llama-3.1-8B", "4090")).removeprefix("#"))
    assert (state["model"], state["device"]) == ("llama-3.1-8b", "rtx-4090")
    assert json.loads(unquote(first_state(None, "l4")).removeprefix("#"))["model"] == "llama-3-8b"
    for words, says in (
        (("net.py:Net",), "no shipped model"),
        (("gpt2", "--on", "h100-smx5"), "did you mean h100-sxm5"),
        (("gpt2", "--on", "chip.toml"), "the page reads no file"),
    ):
        result = CliRunner().invoke(main, ["explore", "--no-open", *words])
        assert result.exit_code == 2 and says in result.stderr


def test_the_command_needs_the_extra_and_a_free_port(monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(main, ["explore", "--no-open", "--port", port])
    assert result.exit_code == 2 and f"--port {port}" in result.stderr
    monkeypatch.setitem(__import__("sys").modules, "uvicorn", None)
    result = CliRunner().invoke(main, ["explore", "--no-open"])
    assert result.exit_code == 2 and "pip install" in result.stderr


@pytest.fixture(scope="module")
def tab(address):
    """The explorer's page in a browser; every message of its console is a failure."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install '.[browser]'")
    if CHROMIUM is None:
        pytest.skip("no Chromium (Debian: apt install chromium)")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page, said = browser.new_page(viewport={"width": 1280, "height": 900}), []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.goto(f"{address}/?token={TOKEN}")
        page.locator(SETTLED).wait_for()
        yield page
        assert [text for text in said if "422" not in text] == []
        browser.close()


def moved(tab, change):
    """Make a change, and wait until the page rests with the whole answer."""
    change()
    tab.locator(SETTLED).wait_for()


def slide(tab, name, to):
    """Move a slider, and wait for the first answer."""
    before = int(tab.evaluate("Number(document.body.dataset.answered)"))
    tab.locator(f"[data-number='{name}']").fill(f"{to:g}")
    tab.locator(f"body:not([data-answered='{before}'])").wait_for()


def predicted(saved):
    """What predict --json prints of the edits in a scenario file."""
    from roofcast.reports.answers import answer
    from roofcast.reports.options import to_json
    from roofcast.simulator.forecast.scenario import Scenario

    edits = dict(
        line.replace('"', "").split(" = ") for line in saved.splitlines() if '= "x' in line
    )
    asked = Scenario(model="llama-3-8b", device="h100-sxm5", mode="train", set=edits)
    return json.loads(json.dumps(to_json(answer(asked))))


def test_random_moves_leave_the_page_equal_to_predict(tab):
    chance = random.Random(1)
    names = tab.locator("[data-number]").evaluate_all("all => all.map(x => x.dataset.number)")
    assert {"memory.bandwidth", "peak_flops.bf16", "memory.capacity"} <= set(names)
    later = ("assumptions", "diagnosis")  # said when the slider rests
    for i in range(60):  # benchmarks/explore.py --equal makes 200
        at, to = chance.choice(names), chance.randrange(-16, 17) / 8
        if tab.locator(f"[data-number='{at}']").input_value() != f"{to:g}":
            slide(tab, at, to)
        if i % 30 == 0:  # while the sliders move
            found = tab.evaluate("window.roofcast.last")
            held, printed = found["forecasts"][0]["json"], predicted(found["scenario"])
            assert {k: v for k, v in held.items() if k not in later} == {
                k: v for k, v in printed.items() if k not in later
            }
    tab.locator(SETTLED).wait_for()
    found = tab.evaluate("window.roofcast.last")
    assert found["forecasts"][0]["json"] == predicted(found["scenario"])
    headline = tab.locator("#headline .headline").inner_text()
    assert headline.endswith("per step")
    moved(tab, lambda: tab.get_by_role("button", name="As built").click())


def test_undo_and_links_bring_a_state_back(tab):
    first = tab.locator("#headline .headline").inner_text()
    moved(tab, lambda: tab.locator("[data-number='memory.bandwidth']").fill("2"))
    assert tab.locator("#headline .headline").inner_text() != first
    link = tab.url
    assert "#" in link
    moved(tab, lambda: tab.get_by_role("button", name="Undo").click())
    assert tab.locator("#headline .headline").inner_text() == first


def test_a_mistake_is_told_and_the_last_answer_stays(tab):
    before = tab.locator("#headline .headline").inner_text()
    field = tab.get_by_label("device", exact=True)
    moved(tab, lambda: (field.fill("<script>x</script>"), field.blur()))
    assert "no device" in tab.locator("#error").inner_text()
    assert tab.locator("#headline .headline").inner_text() == before
    moved(tab, lambda: (field.fill("h100-sxm5"), field.blur()))
    assert tab.locator("#error").inner_text() == ""


def test_axe_finds_no_serious_fault_in_the_explorer(tab):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright")
    for width in (1280, 390):
        tab.set_viewport_size({"width": width, "height": 900})
        assert tab.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.Axe().run(tab).response["violations"]
        serious = [v for v in found if v["impact"] in ("serious", "critical")]
        assert [(v["id"], v["nodes"][0]["html"]) for v in serious] == []
