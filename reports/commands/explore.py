"""roofcast explore"""

from __future__ import annotations

import json
import socket
from urllib.parse import quote

import click

from roofcast.hwdb.errors import BadInput, quoted
from roofcast.reports.console import tell
from roofcast.reports.option_types import Once

MODEL, DEVICE = "llama-3-8b", "h100-sxm5"  # with which the page starts otherwise


def first_state(model: str | None, device: str | None) -> str:
    """The fragment of the page's address that opens it with a model and a device; "" for its own.

    Raises UnknownName or BadInput for what is not shipped: the page reads no file.

    >>> first_state(None, None), first_state("gpt2", "l4")[:13]
    ('', '#%7B%22model%')
    """
    from roofcast import hwdb
    from roofcast.hwdb.names import is_path
    from roofcast.simulator.models import catalog

    if model is None and device is None:
        return ""
    asked = MODEL if model is None else model
    found = asked if asked in catalog.names() else catalog.shipped_as(asked)
    if found is None:
        raise BadInput(
            f"no shipped model {quoted(asked)}; roofcast models lists the names; paste a"
            " config.json or a list of layers into the page"
        )
    if device is not None and is_path(device):
        raise BadInput(f"--on {quoted(device)}: the page reads no file; give a shipped device")
    state = {
        "model": found,
        "device": hwdb.device(device or DEVICE).id,
        "pasted": "",
        "options": {},
        "factors": {},
    }
    return f"#{quote(json.dumps(state))}"


@click.command("explore", cls=Once)
@click.argument("model", required=False)
@click.option("--on", "device", metavar="DEVICE", help="Device that the page starts with.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port of 127.0.0.1 to listen on. Default: a free one.",
)
@click.option("--open/--no-open", "open_", default=True, help="Whether to open a browser.")
def command(model: str | None, device: str | None, port: int, open_: bool) -> None:
    """Explore rooflines on a page of this machine: choose a model and a device, move the numbers of
    the chip, and see the step, its memory and its roofline follow. The page starts with MODEL and
    DEVICE, two of the shipped ones, where they are given.

    The page is served on 127.0.0.1 alone, and only to whoever has the token in its address. Needs
    the extra web: pip install 'roofcast[web]'. Ctrl-C ends it.
    """
    try:
        import uvicorn

        from roofcast.reports.html.explorer import application, new_token
    except ModuleNotFoundError as error:
        raise BadInput(
            f"roofcast explore needs the package {error.name}; install the extra: pip install"
            " 'roofcast[web]' (in a checkout: pip install '.[web]')"
        ) from None
    start = first_state(model, device)
    with socket.socket() as listening:
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise BadInput(f"--port {port}: {error.strerror}; give another one") from None
        token, at = new_token(), listening.getsockname()[1]
        address = f"http://127.0.0.1:{at}/?token={token}{start}"
        tell(f"open {address}")
        tell("Ctrl-C ends it")
        if open_:
            import webbrowser

            webbrowser.open(address)
        config = uvicorn.Config(application(token, at), log_level="warning", lifespan="off")
        uvicorn.Server(config).run(sockets=[listening])
