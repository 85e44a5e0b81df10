"""roofcast explore"""

from __future__ import annotations

import socket

import click

from roofcast.hwdb.errors import BadInput
from roofcast.reports.console import tell
from roofcast.reports.option_types import Once


@click.command("explore", cls=Once)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=0,
    metavar="N",
    help="Port of 127.0.0.1 to listen on. Default: a free one.",
)
@click.option("--open/--no-open", "open_", default=True, help="Whether to open a browser.")
def command(port: int, open_: bool) -> None:
    """Explore rooflines on a page of this machine: choose a model and a device, move the numbers of
    the chip, and see the step, its memory and its roofline follow.

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
    with socket.socket() as listening:
        try:
            listening.bind(("127.0.0.1", port))
        except OSError as error:
            raise BadInput(f"--port {port}: {error.strerror}; give another one") from None
        token, at = new_token(), listening.getsockname()[1]
        address = f"http://127.0.0.1:{at}/?token={token}"
        tell(f"open {address}")
        tell("Ctrl-C ends it")
        if open_:
            import webbrowser

            webbrowser.open(address)
        config = uvicorn.Config(application(token, at), log_level="warning", lifespan="off")
        uvicorn.Server(config).run(sockets=[listening])
