"""Names for the completion of a command line in the shell: models, devices, systems and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import click
from click.shell_completion import CompletionItem

Complete = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _models() -> Iterable[str]:
    from roofcast.simulator import models

    return models.names()


def _devices() -> Iterable[str]:
    from roofcast import hwdb
    from roofcast.hwdb import names

    measured = (*names.THIS_MACHINE, names.THIS_GPU)
    return (*hwdb.devices(), *(name for name in measured if names.this_machine(name).exists()))


def _systems() -> Iterable[str]:
    from roofcast import hwdb

    return hwdb.systems()


def _links() -> Iterable[str]:
    from roofcast import hwdb

    return hwdb.links()


def _hardware() -> Iterable[str]:
    return (*_devices(), *_systems(), *_links())


def _stacks() -> Iterable[str]:
    from roofcast.simulator.software import stack

    return stack.names()


def _scenarios() -> Iterable[str]:
    from roofcast.scenarios.files import ready

    return ready()


NAMES: dict[str, Callable[[], Iterable[str]]] = {
    "model": _models,
    "device": _devices,
    "system": _systems,
    "link": _links,
    "hardware": _hardware,
    "stack": _stacks,
    "scenario": _scenarios,
}


def completing(kind: str) -> Complete:
    """A completion of one of NAMES: the names that start with what is typed; paths for a path."""

    def complete(ctx: click.Context, param: click.Parameter, typed: str) -> list[CompletionItem]:
        if "/" in typed or typed.startswith((".", "~")):
            return [CompletionItem(typed, type="file")]
        names = sorted(name for name in NAMES[kind]() if name.startswith(typed))
        return [CompletionItem(name) for name in names] or [CompletionItem(typed, type="file")]

    return complete
