"""Time from a slider's move in `roofcast explore` to the new picture, in Chromium, beside a warm
forecast of the same chip in the same run.

    python benchmarks/explore.py [--moves 50] [--model llama-3-8b] [--device h100-sxm5] [--equal]

A move is set in the page, and is over when the frame with the new picture is there. `--equal` then
compares the answer to every move, and the last one at rest, with `predict --json`.

Two times are told: of the clock, and of the processors (server and browser together), which other
work on the machine does not lengthen.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import shutil
import socket
import statistics
import time
import tomllib
from pathlib import Path
from typing import Any

TOKEN = "a-token-of-the-benchmark"
MOVE = """([name, to]) => new Promise(done => {
  const slider = document.querySelector(`[data-number='${name}']`);
  const start = performance.now();
  new MutationObserver((_, observer) => {
    observer.disconnect();
    requestAnimationFrame(() => done(performance.now() - start));
  }).observe(document.body, {attributeFilter: ['data-answered']});
  slider.value = to;
  slider.dispatchEvent(new Event('input', {bubbles: true}));
})"""


def serve(listening: socket.socket, port: int) -> None:
    """The explorer, in a process of its own as the command starts it."""
    import uvicorn

    from roofcast.reports.html.explorer import application

    config = uvicorn.Config(application(TOKEN, port), log_level="warning", lifespan="off")
    uvicorn.Server(config).run(sockets=[listening])


def cpu(root: int) -> float:
    """Processor seconds of a process and all below it."""
    parents: dict[int, list[int]] = {}
    seconds = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(path.parent.name))
        ticks = sum(map(int, fields[11:15]))
        seconds[int(path.parent.name)] = ticks / os.sysconf("SC_CLK_TCK")
    total, todo = 0.0, [root]
    while todo:
        process = todo.pop()
        total += seconds.get(process, 0.0)
        todo += parents.get(process, [])
    return total


def warm_forecast(model: str, device: str, count: int) -> float:
    """Median seconds of a forecast of a changed chip, its model in the caches."""
    from roofcast import predict

    chance, found = random.Random(2), []
    for i in range(count + 3):
        edits = {"memory.bandwidth": f"x{2 ** chance.uniform(-1, 1)!r}"}
        start = time.perf_counter()
        predict(model, device=device, set=edits)
        if i >= 3:
            found.append(time.perf_counter() - start)
    return statistics.median(found)


def equal_to_predict(page: Any, asked: argparse.Namespace) -> bool:
    """Whether what the page holds is what `predict --json` prints: all of it where the page rests;
    before, all but the lines that come then.
    """
    from roofcast.reports.answers import answer
    from roofcast.reports.options import to_json
    from roofcast.simulator.forecast.chain import forecast, with_largest_batch
    from roofcast.simulator.forecast.scenario import Scenario

    last = page.evaluate("window.roofcast.last")
    edits = tomllib.loads(last["scenario"]).get("set", {})
    scenario = Scenario(model=asked.model, device=asked.device, mode="train", set=edits)
    wanted = answer(scenario) if last["whole"] else with_largest_batch(forecast(scenario), scenario)
    return last["forecasts"][0]["json"] == json.loads(json.dumps(to_json(wanted)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--moves", type=int, default=50)
    parser.add_argument("--model", default="llama-3-8b")
    parser.add_argument("--device", default="h100-sxm5")
    parser.add_argument("--equal", action="store_true")
    asked = parser.parse_args()
    from playwright.sync_api import sync_playwright

    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    server = multiprocessing.Process(target=serve, args=(listening, port), daemon=True)
    server.start()
    state = {"model": asked.model, "device": asked.device, "options": {"mode": "train"}}
    chance, times, unequal, factors = random.Random(1), [], 0, {}
    with sync_playwright() as started:
        path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))))
        browser = started.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        while True:
            try:
                page.goto(f"http://127.0.0.1:{port}/?token={TOKEN}#{json.dumps(state)}")
                break
            except Exception:  # the server is not there yet
                time.sleep(0.1)
        page.locator("body[data-state=settled]").wait_for(timeout=60_000)
        names = page.locator("[data-number]").evaluate_all("all => all.map(x => x.dataset.number)")
        before = cpu(os.getpid()) - time.process_time()
        for i in range(asked.moves + 3):
            name, to = chance.choice(names), chance.randrange(-16, 17) / 8
            if factors.get(name, 1.0) == 2**to:
                to = -to or 1.0
            factors[name] = 2**to
            passed = page.evaluate(MOVE, [name, f"{to:g}"])
            times += [passed / 1e3] if i >= 3 else []
            if asked.equal:
                unequal += not equal_to_predict(page, asked)
        if asked.equal:
            page.locator("body[data-state=settled]").wait_for(timeout=60_000)
            unequal += not equal_to_predict(page, asked)
        busy = (cpu(os.getpid()) - time.process_time() - before) / (asked.moves + 3)
        browser.close()
    server.terminate()
    forecast = warm_forecast(asked.model, asked.device, asked.moves)
    middle = statistics.median(times)
    late = statistics.quantiles(times, n=10)[8]
    print(f"{asked.moves} moves of {asked.model} on {asked.device}")
    print(f"move to new picture  {1e3 * middle:.0f} ms median, {1e3 * late:.0f} ms in 9 of 10")
    print(f"processor time       {1e3 * busy:.0f} ms a move, server and browser together")
    print(f"warm forecast        {1e3 * forecast:.1f} ms median")
    print(f"ratio                {middle / forecast:.1f} warm forecasts to a move")
    if asked.equal:
        print(f"{unequal} of {asked.moves + 4} answers differ from predict --json")


if __name__ == "__main__":
    main()
