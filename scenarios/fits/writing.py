"""Writing fitted constants back: into the files of hwdb and into profiles of software stacks."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from roofcast.hwdb import constants


def put(path: Path, section: str, key: str, value: float, residual: str) -> None:
    """Replaces a constant and its residual in a TOML file and leaves everything else as it is.

    section: the table that the key stands in; "" for the head of the file. Only constants whose
    source starts with "fit" are replaced.
    """
    lines, inside = path.read_text(encoding="utf-8").splitlines(), section == ""
    for i, line in enumerate(lines):
        if line.startswith("["):
            inside = line.startswith(f"[{section}]")
        if inside and re.match(rf"{key}\s*= \{{", line) and 'source = "fit' in line:
            line = re.sub(r"value = [0-9.e+-]+", f"value = {value:.4g}", line)
            line = re.sub(r', residual = "[^"]*"', "", line)
            lines[i] = re.sub(r'(source = "[^"]*")', rf'\1, residual = "{residual}"', line)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    for cached in (constants.shipped, constants.constants, constants.family):
        cached.cache_clear()  # the next stage of a fit starts from what this one wrote


def profile_with(profile: str, name: str, value: float) -> str:
    """The text of a stack profile with a constant set to a value; comments behind it stay.

    Where the profile inherits the constant, it is added above the first table.

    >>> profile_with('like = "megatron"\\n\\n[implementations]\\nloss = "sum"\\n', "factor", 0.5)
    'like = "megatron"\\nfactor = 0.5\\n\\n[implementations]\\nloss = "sum"\\n'
    >>> profile_with("overlap = {tp = 4.0}\\n", "overlap.ep", 1.6)
    'overlap = {tp = 4.0, ep = 1.6}\\n'
    """
    head, mark, tables = profile.partition("\n[")
    key, line = name, f"{name} = {value:.3g}"
    if name.startswith("overlap."):
        kinds = {**tomllib.loads(head).get("overlap", {}), name[8:]: round(value, 1)}
        key = "overlap"
        line = f"overlap = {{{', '.join(f'{kind} = {power}' for kind, power in kinds.items())}}}"
    if re.search(rf"^{key} = ", head, re.M):
        head = re.sub(rf"^{key} = [^#\n]*[^#\s]", line, head, flags=re.M)
    else:
        head = f"{head.rstrip()}\n{line}\n"
    return head + mark + tables


def put_in_profile(path: Path, name: str, value: float) -> None:
    """Sets a constant in the file of a stack profile."""
    profile = path.read_text(encoding="utf-8")
    path.write_text(profile_with(profile, name, value), encoding="utf-8")
