"""How published benchmarks of servers were run: protocols.toml."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("protocols.toml")


class Protocol(NamedTuple):
    """What the scripts of a benchmark say, and its table does not."""

    lengths: float = 1.0  # mean length of prompts and answers over those of the table
    spread: float = 0.0  # lengths lie evenly within this share around the mean
    waits: float = 0.0  # decode steps for which a prompt waits for others
    processes: bool = False  # of the server, of their own, turn tokens into text
    requests: int = 0  # sent, all at once; 0: unstated
    input_len: int = 0  # mean tokens of a prompt where the table has none; 0: unstated


@functools.cache
def _rules() -> tuple[tuple[re.Pattern[str], dict[str, Any]], ...]:
    rules = tomllib.loads(FILE.read_text(encoding="utf-8"))["rule"]
    return tuple((re.compile(rule.pop("of")), rule) for rule in rules)


def protocol(row: Mapping[str, str]) -> Protocol:
    """The protocol of a row.

    >>> row = {"source_name": "InferenceX", "engine": "trt", "model": "Llama-3.1-70B", "tp": "2"}
    >>> protocol(row | {"input_len": "1024", "output_len": "1024", "load": "8"}).waits
    20
    """
    named = (row.get(name) or "" for name in ("source_name", "engine", "model", "device", "w_prec"))
    lengths = f"{row.get('input_len') or ''}/{row.get('output_len') or ''}"
    cells = (*named, f"tp {row.get('tp') or ''}", lengths, row.get("load") or "")
    text = " | ".join(cells).lower()
    found: dict[str, Any] = {}
    for pattern, values in _rules():
        if pattern.search(text):
            found |= values
    return Protocol()._replace(**found)
