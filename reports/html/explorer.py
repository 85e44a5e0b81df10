"""The explorer: a local page whose sliders are the numbers of a chip, and the server behind it.

It listens on this machine only. Every request for data needs the token that is in the page's
address; requests of other sites (by Origin or Host) are refused, so is a model that would run code
or a path: a model is a shipped name, or text that was pasted.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from roofcast import hwdb
from roofcast.hwdb.edits import CAPACITY, USABLE, figure_keys
from roofcast.hwdb.errors import BadInput, RoofcastError, quoted
from roofcast.hwdb.names import names
from roofcast.hwdb.records import CROSSCHECK_ONLY, SHOWN_ONLY, Device
from roofcast.reports.answers import answer
from roofcast.reports.html.data import answered, drawn, through
from roofcast.reports.html.page import asset, environment, html
from roofcast.scenarios.files import text
from roofcast.simulator.choices import MODES, PRECISIONS
from roofcast.simulator.forecast.chain import forecast, largest_batches
from roofcast.simulator.forecast.result import Forecast
from roofcast.simulator.forecast.scenario import Scenario
from roofcast.simulator.models import catalog

LARGEST = 2_000_000  # bytes of a request: a config.json or a list of layers is far smaller
FIELDS = (  # of a Scenario, that the page may ask for
    "mode", "batch", "sequence", "image", "precision", "optimizer", "recompute", "attention",
    "stack", "devices", "tp", "pp", "dp", "ep", "zero", "micro_batch", "lora", "weights", "tokens",
)  # fmt: skip
UNITS = ("FLOP/s", "B/s", "Hz", "W", "B", "s")
HOSTS = ("127.0.0.1", "localhost")
KEPT = 64  # of what requests share
_LARGEST: dict[bytes, tuple[int | None, int | None]] = {}
_THROUGH: dict[bytes, list[dict[str, Any]]] = {}


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the page asks: a model by name or pasted, a device, options, and factors of numbers."""

    model: str
    device: str
    pasted: str = ""  # a config.json or a TOML list of layers, in place of a name
    options: dict[str, str | int | float] = {}
    factors: dict[str, float] = {}  # key of the device: factor


def application(token: str, port: int) -> Starlette:
    """The explorer's server. token: what a request must carry; port: where it listens."""
    lock = asyncio.Lock()  # one forecast at a time: they share the engine's caches

    async def page(request: Request) -> Response:
        if not _allowed(request, port) or not _same(request.query_params.get("token"), token):
            return _refused("the address lacks its token; open the one that roofcast printed", 403)
        return HTMLResponse(_page(), headers=_HEADERS)

    async def ask(request: Request) -> Response:
        if not _allowed(request, port) or not _same(request.headers.get("x-token"), token):
            return _refused("this page has lost its token; start roofcast explore again", 403)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > LARGEST:
                return _refused(f"more than {LARGEST // 10**6} MB: paste a smaller model", 413)
        try:
            wanted = msgspec.json.decode(body, type=Wanted)
            async with lock:
                return await run_in_threadpool(WORK[request.url.path], wanted)
        except msgspec.MsgspecError as error:
            return _refused(f"not a request of this page: {error}", 400)
        except (RoofcastError, RecursionError) as error:
            return _refused(str(error) or "too deeply nested", 422)

    return Starlette(
        routes=[Route("/", page), *(Route(path, ask, methods=["POST"]) for path in WORK)]
    )


def new_token() -> str:
    """A token that cannot be guessed."""
    return secrets.token_urlsafe(24)


def scenario(wanted: Wanted, folder: Path) -> Scenario:
    """The scenario that a page asks for; a pasted model is written into the folder.

    Raises BadInput for a model that is not shipped, and for options and numbers that cannot be.
    """
    for key in wanted.options:
        if key not in FIELDS:
            raise BadInput(f"{quoted(key)}: no option of the explorer")
    device = hwdb.device(_known(wanted.device, names("devices"), "device"))
    numbers = sliders(device)
    for key, factor in wanted.factors.items():
        if key not in numbers or not 1e-3 <= factor <= 1e3:
            raise BadInput(f"{quoted(key)} x {factor:g}: no number that can be changed so")
    edits: dict[str, str | float | int] = {
        key: f"x{factor!r}" for key, factor in wanted.factors.items() if factor != 1.0
    }
    options: dict[str, Any] = dict(wanted.options)
    return Scenario(model=_model(wanted, folder), device=device.id, set=edits, **options)


def sliders(device: Device) -> dict[str, tuple[float, str]]:
    """The rates, sizes and times of a device that a forecast reads: key -> value, unit.

    Fractions of a peak are left out: they cannot be eight times what they are.
    """
    found = {}
    for key, unit in figure_keys().items():
        value: Any = device
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else getattr(value, part, None)
        shown = (unit in UNITS or key == "cores") and key != USABLE  # moves with the capacity
        if shown and value is not None and key not in SHOWN_ONLY[Device] | CROSSCHECK_ONLY:
            found[key] = (float(value), unit)
    return found


def _known(name: str, all_: tuple[str, ...], what: str) -> str:
    """A shipped name; a path is never read for a page."""
    if name not in all_:
        raise BadInput(f"no {what} {quoted(name)}; choose one of the list")
    return name


def _model(wanted: Wanted, folder: Path) -> str:
    if not wanted.pasted.strip():
        return _known(wanted.model, catalog.names(), "model")
    suffix = ".json" if wanted.pasted.lstrip().startswith("{") else ".toml"
    target = folder / f"pasted{suffix}"
    target.write_text(wanted.pasted, encoding="utf-8", errors="replace")
    return str(target)


def _forecast(wanted: Wanted) -> Response:
    """The data of a page, the scenario as a file, and the device's numbers."""
    return _data(wanted, lambda asked: _remembered(wanted, answer(asked)), whole=True)


def _move(wanted: Wanted) -> Response:
    """The same while a slider moves: without what takes further forecasts, which changes of the
    chip had no effect, and what would make the step fit.
    """
    return _data(wanted, forecast, whole=False)


def _data(wanted: Wanted, forecast_of: Callable[[Scenario], Forecast], whole: bool) -> Response:
    with tempfile.TemporaryDirectory() as folder:
        asked = scenario(wanted, Path(folder))
        found, (most, held) = forecast_of(asked), _steady(wanted, asked)
    memory = msgspec.structs.replace(
        found.memory, largest_batch=most[0], largest_batch_surely=most[1]
    )
    found = msgspec.structs.replace(found, memory=memory)
    numbers = sliders(hwdb.device(wanted.device))
    data: dict[str, Any] = {
        "whole": whole,
        "forecasts": [drawn(answered(asked, found, False), held)],
        "numbers": [[key, *each] for key, each in numbers.items()],
        "scenario": text(asked) if not wanted.pasted.strip() else "",
    }
    return Response(msgspec.json.encode(data, enc_hook=float), media_type="application/json")


def _steady(
    wanted: Wanted, asked: Scenario
) -> tuple[tuple[int | None, int | None], list[dict[str, Any]]]:
    """The largest batches that fit, and memory through the step: the first depends on the capacity
    of the chip, and neither on its rates. Those of the last few requests are kept.
    """
    size, plain = _without(wanted, CAPACITY), _without(wanted)
    if size not in _LARGEST:
        try:
            _keep(_LARGEST, size, largest_batches(asked))
        except BadInput:
            _keep(_LARGEST, size, (None, None))
    if plain not in _THROUGH:
        _keep(_THROUGH, plain, through(asked))
    return _LARGEST[size], _THROUGH[plain]


def _remembered(wanted: Wanted, found: Forecast) -> Forecast:
    m = found.memory
    _keep(_LARGEST, _without(wanted, CAPACITY), (m.largest_batch, m.largest_batch_surely))
    return found


def _without(wanted: Wanted, *kept: str) -> bytes:
    """What is asked, of the factors these alone: a key."""
    factors = {key: value for key, value in wanted.factors.items() if key in kept}
    return msgspec.json.encode(msgspec.structs.replace(wanted, factors=factors))


def _keep(cache: dict[bytes, Any], key: bytes, value: Any) -> None:
    cache[key] = value
    while len(cache) > KEPT:
        del cache[next(iter(cache))]


def _report(wanted: Wanted) -> Response:
    """The report of a scenario, as a file to save."""
    import datetime

    with tempfile.TemporaryDirectory() as folder:
        asked = scenario(wanted, Path(folder))
        answers = [answered(asked, answer(asked), True)]
        page = html(answers, "roofcast explore", datetime.date.today().isoformat())
    return Response(page, media_type="text/html")


WORK = {"/forecast": _forecast, "/move": _move, "/report": _report}


def _allowed(request: Request, port: int) -> bool:
    """Whether a request is of this page: no other site, and no other name of this machine."""
    host, _, at = request.headers.get("host", "").partition(":")
    origin = request.headers.get("origin")
    here = [f"http://{name}:{port}" for name in HOSTS]
    return host in HOSTS and at in ("", str(port)) and (origin is None or origin in here)


def _same(given: str | None, token: str) -> bool:
    return hmac.compare_digest((given or "").encode(), token.encode())


def _refused(why: str, status: int) -> Response:
    return JSONResponse({"error": why}, status_code=status, headers=_HEADERS)


_HEADERS = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}


@cache
def _page() -> str:
    template = environment().get_template("explore.html")
    return template.render(
        models=catalog.names(),
        devices=names("devices"),
        modes=MODES,
        precisions=PRECISIONS,
        style=asset("report.css") + asset("explore.css"),
        script=asset("report.js") + asset("explore.js"),
    )
