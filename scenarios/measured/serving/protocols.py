"""How published benchmarks of servers were run: protocols.toml."""

from __future__ import annotations

import functools
import math
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

FILE = Path(__file__).with_name("protocols.toml")
_TASK = re.compile(r"\btask [\w-]+")
WAVES = 1.5  # requests per place, up to which a benchmark repeats its questions


class Protocol(NamedTuple):
    """What the scripts of a benchmark say, and its table does not."""

    lengths: float = 1.0  # mean length of prompts and answers over those of the table
    spread: float = 0.0  # lengths lie evenly within this share around the mean
    waits: float = 0.0  # decode steps for which a prompt waits for others
    processes: bool = False  # of the server, of their own, turn tokens into text
    requests: int = 0  # sent, all at once; 0: unstated
    repeats: bool = False  # of all of them, until they are one and a half times those at once
    bench: bool = False  # run by trtllm-bench, which sets limits of the server for the lengths
    input_len: int = 0  # mean tokens of a prompt where the table has none; 0: unstated


def looked_back(requests: int, at_once: float, repeats: bool = False) -> float:
    """Mean share of an answer that decoding sequences have made, while requests wait.

    All start together, and lengths are exponentially distributed, as answers of a chat nearly are:
    one that decodes since the time t has made 1 - exp(-t) of a mean answer, in the mean. Requests
    wait for x = requests / at_once - 1 mean answers:

        share = 1 - (1 - exp(-x)) / x

    requests: 0: as many as it takes. repeats: all are sent again until there are WAVES per place.

    >>> looked_back(0, 64.0), round(looked_back(198, 64.0), 2), round(looked_back(198, 8.0), 2)
    (1.0, 0.58, 0.96)
    """
    if not requests:
        return 1.0
    if repeats:
        requests *= math.ceil(WAVES * at_once / requests)
    x = max(requests / at_once - 1.0, 1e-3)
    return 1.0 + math.expm1(-x) / x


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
    task = _TASK.search(row.get("notes") or "")
    cells = (
        *named, f"tp {row.get('tp') or ''}", lengths, row.get("load") or "",
        *([task[0]] if task else []),
    )  # fmt: skip
    text = " | ".join(cells).lower()
    found: dict[str, Any] = {}
    for pattern, values in _rules():
        if pattern.search(text):
            found |= values
    return Protocol()._replace(**found)
